//! Flushed files.
use std::collections::BTreeSet;

use jiff::Timestamp;
use vitalseal_crypto::{DeviceId, SubjectPseudonym};

use crate::store::StoreError;
/// A flushed file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataFile {
    /// Under the store's object store.
    pub path: object_store::path::Path,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub messages: u64,
    /// Readings inside.
    pub readings: u64,
    /// Earliest instant measured.
    pub first_at: Timestamp,
    /// Latest instant measured.
    pub last_at: Timestamp,
    /// Earliest arrival.
    pub received_first_at: Timestamp,
    /// Latest arrival.
    pub received_last_at: Timestamp,
    /// When it was written.
    pub flushed_at: Timestamp,
}
/// What is held of one patient from one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Patient.
    pub subject: SubjectPseudonym,
    /// Device.
    pub device: DeviceId,
    /// Messages.
    pub messages: u64,
    /// Readings.
    pub readings: u64,
    /// Earliest instant measured.
    pub first_at: Timestamp,
    /// Latest instant measured.
    pub last_at: Timestamp,
}
/// Handle.
#[derive(Clone, Debug)]
pub struct Catalog {}
impl Catalog {
    /// Every live file, oldest first.
    /// # Errors
    /// SQL.
    pub async fn files(&self) -> Result<Vec<DataFile>, StoreError> { todo!() }
    /// Counts what arrived in `[from, to)`, for these patients and devices (`None`: all), without opening anything.
    /// # Errors
    /// SQL or reading files.
    pub async fn holdings(
        &self,
        subjects: Option<&BTreeSet<SubjectPseudonym>>,
        devices: Option<&BTreeSet<DeviceId>>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Holding>, StoreError> { todo!() }
}
