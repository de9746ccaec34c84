//! Keys.
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use vitalseal_crypto::{Backend, Kek, KeyEpoch, Kid, RecipientCertificate, RecipientKey, RecipientKeyRing, RootKey, SubjectPseudonym};
use zeroize::Zeroizing;

/// The root provider failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// Not there.
    #[error("root key of epoch {0:?} is not in {1}")]
    Missing(KeyEpoch, String),
}
/// Where root keys live.
pub trait RootProvider: Send + Sync + std::fmt::Debug {
    /// Goes into certificates.
    fn name(&self) -> &str;
    /// # Errors
    /// Missing or unreadable.
    fn load(&self, epoch: KeyEpoch) -> Result<RootKey, RootError>;
    /// # Errors
    /// Exists already or cannot be made durable.
    fn create(&self, epoch: KeyEpoch, backend: &dyn Backend) -> Result<RootKey, RootError>;
    /// # Errors
    /// Could not be destroyed.
    fn destroy(&self, epoch: KeyEpoch) -> Result<(), RootError>;
    /// # Errors
    /// Could not be listed.
    fn epochs(&self) -> Result<Vec<KeyEpoch>, RootError>;
}
/// Root keys as files.
#[derive(Debug, Clone)]
pub struct FileRootProvider {}
impl FileRootProvider {
    /// In this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self { let _: PathBuf = dir.into(); Self {} }
}
impl RootProvider for FileRootProvider {
    fn name(&self) -> &str { todo!() }
    fn load(&self, epoch: KeyEpoch) -> Result<RootKey, RootError> { todo!() }
    fn create(&self, epoch: KeyEpoch, backend: &dyn Backend) -> Result<RootKey, RootError> { todo!() }
    fn destroy(&self, epoch: KeyEpoch) -> Result<(), RootError> { todo!() }
    fn epochs(&self) -> Result<Vec<KeyEpoch>, RootError> { todo!() }
}
/// The key store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// SQL failed.
    #[error("using the key tables")]
    Sql(#[from] sqlx::Error),
}
/// What an erasure did to the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyErasure {
    /// Id that the caller gave.
    pub erasure_id: String,
    /// Patient.
    pub subject: SubjectPseudonym,
    /// When.
    pub erased_at: Timestamp,
    /// Root that is gone.
    pub root_epoch_destroyed: KeyEpoch,
    /// Root that took its place.
    pub root_epoch: KeyEpoch,
    /// Page that the KEK was on.
    pub page: i64,
    /// Other patients' KEKs wrapped anew.
    pub keks_rewrapped: u64,
    /// Pages wrapped anew.
    pub pages_rewrapped: u64,
    /// Id of the KEK that is gone.
    pub kek_kid: Kid,
    /// Who held the root.
    pub root_provider: String,
}
/// Figures of the key tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyStatus {
    /// Present root.
    pub root_epoch: KeyEpoch,
    /// Who holds it.
    pub root_provider: String,
    /// Pages.
    pub pages: u64,
    /// KEKs.
    pub keks: u64,
    /// Erasures so far.
    pub erasures: u64,
}
/// One erasure of the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerRow {
    /// Id.
    pub erasure_id: String,
    /// Patient.
    pub subject: SubjectPseudonym,
    /// When.
    pub erased_at: Timestamp,
    /// Root that took over.
    pub root_epoch: KeyEpoch,
    /// When the old root was destroyed; `None`: not yet.
    pub completed_at: Option<Timestamp>,
}
/// An envelope key of the server.
#[derive(Clone, Debug)]
pub struct RecipientRow {
    /// Epoch.
    pub epoch: KeyEpoch,
    /// Key id.
    pub kid: Kid,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Its certificate.
    pub certificate: RecipientCertificate,
}
/// Handle.
#[derive(Clone, Debug)]
pub struct KeyStore {}
impl KeyStore {
    /// # Errors
    pub async fn kek(&self, subject: &SubjectPseudonym) -> Result<Option<Arc<Kek>>, KeyError> { todo!() }
    /// # Errors
    pub async fn keks<'a>(&self, subjects: impl Iterator<Item = &'a SubjectPseudonym> + Send) -> Result<HashMap<SubjectPseudonym, Arc<Kek>>, KeyError> { todo!() }
    /// # Errors
    pub async fn erase(&self, subject: &SubjectPseudonym, erasure_id: &str, now: Timestamp) -> Result<KeyErasure, KeyError> { todo!() }
    /// # Errors
    pub async fn erasure(&self, erasure_id: &str) -> Result<Option<KeyErasure>, KeyError> { todo!() }
    /// # Errors
    pub async fn put_secret(&self, name: &str, secret: &[u8]) -> Result<(), KeyError> { todo!() }
    /// # Errors
    pub async fn secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> { todo!() }
    /// # Errors
    pub async fn delete_secret(&self, name: &str) -> Result<(), KeyError> { todo!() }
    /// # Errors
    pub async fn put_recipient(&self, key: &RecipientKey, epoch: KeyEpoch, not_before: Timestamp, not_after: Timestamp) -> Result<(), KeyError> { todo!() }
    /// # Errors
    pub async fn recipient_ring(&self) -> Result<Arc<RecipientKeyRing>, KeyError> { todo!() }
    /// # Errors
    pub async fn current_recipient(&self, now: Timestamp) -> Result<Option<RecipientCertificate>, KeyError> { todo!() }
    /// # Errors
    pub async fn destroy_recipients_ended_before(&self, now: Timestamp) -> Result<Vec<(KeyEpoch, Kid)>, KeyError> { todo!() }
    /// # Errors
    pub async fn recipients(&self) -> Result<Vec<RecipientRow>, KeyError> { todo!() }
    /// # Errors
    pub async fn status(&self) -> Result<KeyStatus, KeyError> { todo!() }
    /// # Errors
    pub async fn erasure_ledger(&self) -> Result<Vec<LedgerRow>, KeyError> { todo!() }
}
