//! The store.
use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use jiff::Timestamp;
use object_store::ObjectStore;

use crate::catalog::{Catalog, DataFile};
use crate::flush::FlushReport;
use crate::inbox::Inbox;
use crate::keys::{KeyStore, RootProvider};
use crate::paths::StorePaths;
use crate::ports::Authorized;
use crate::registry::Registry;

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQL failed.
    #[error("using the store's databases")]
    Sql(#[from] sqlx::Error),
}
/// One consistent cut through the inbox and the files.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Rows that are not in a file yet, of authorized patients only; schema `schema::sealed_rows()`.
    pub hot: RecordBatch,
    /// Files; they hold rows of other patients too.
    pub files: Vec<DataFile>,
}
/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Patients, devices, users.
    pub registry: Registry,
    /// Durable intake and hot tier.
    pub inbox: Inbox,
    /// Wrapped keys.
    pub keys: KeyStore,
    /// Flushed files.
    pub catalog: Catalog,
}
impl Store {
    /// Makes a new store.
    /// # Errors
    /// When one is there already.
    pub async fn create(paths: &StorePaths, roots: Arc<dyn RootProvider>, now: Timestamp) -> Result<Self, StoreError> { todo!() }
    /// Opens a store.
    /// # Errors
    /// When locked or the root is missing.
    pub async fn open(paths: &StorePaths, roots: Arc<dyn RootProvider>, now: Timestamp) -> Result<Self, StoreError> { todo!() }
    /// Inbox to one Parquet file.
    /// # Errors
    /// I/O.
    pub async fn flush(&self, now: Timestamp) -> Result<FlushReport, StoreError> { todo!() }
    /// One consistent cut.
    /// # Errors
    /// SQL.
    pub async fn snapshot(&self, who: &Authorized) -> Result<Snapshot, StoreError> { todo!() }
    /// Where files lie.
    #[must_use]
    pub fn parquet_root(&self) -> PathBuf { todo!() }
    /// Object store with that prefix.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> { todo!() }
    /// Closes in order.
    pub async fn close(self) { todo!() }
}
