//! Patients, devices, users.
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use vitalseal_crypto::{DeviceCertificate, DeviceId, SubjectPseudonym, Thumbprint};
use zeroize::Zeroizing;

use crate::ports::{Role, UserName};

/// Whether a patient's key still exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatientState {
    /// Readings can be opened.
    Active,
    /// Tombstone: the key is gone, for ever.
    Erased,
}
/// The person behind a pseudonym. Sealed under the patient's own KEK.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatientIdentity {
    /// Name.
    pub name: Option<String>,
    /// Medical record number.
    pub mrn: Option<String>,
}
impl std::fmt::Debug for PatientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PatientIdentity").finish_non_exhaustive()
    }
}
/// A patient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatientRow {
    /// Pseudonym.
    pub subject: SubjectPseudonym,
    /// State.
    pub state: PatientState,
    /// When added.
    pub created_at: Timestamp,
    /// When erased.
    pub erased_at: Option<Timestamp>,
    /// The person; `None` when none was given or after erasure.
    pub identity: Option<PatientIdentity>,
}
/// Whether a device may connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It may.
    Active,
    /// It may not, for ever.
    Revoked,
}
/// What the hot path needs to know of a device.
#[derive(Clone, Debug)]
pub struct DeviceRecord {
    /// Id.
    pub id: DeviceId,
    /// State.
    pub state: DeviceState,
    /// Present certificate.
    pub certificate: Arc<DeviceCertificate>,
    /// Patient that it measures now.
    pub patient: Option<SubjectPseudonym>,
    /// Since when.
    pub assigned_since: Option<Timestamp>,
}
/// A device, for listings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRow {
    /// Id.
    pub id: DeviceId,
    /// State.
    pub state: DeviceState,
    /// Present certificate.
    pub certificate: Thumbprint,
    /// Patient that it measures now.
    pub patient: Option<SubjectPseudonym>,
    /// Since when.
    pub assigned_since: Option<Timestamp>,
    /// First enrolment.
    pub enrolled_at: Timestamp,
    /// When revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why revoked.
    pub revoked_reason: Option<String>,
}
/// A login to be added.
pub struct NewUser<'a> {
    /// Login name.
    pub name: UserName,
    /// Role.
    pub role: Role,
    /// Password hash in PHC form.
    pub password_hash: String,
    /// TOTP secret; sealed under the service key before it is written.
    pub totp_secret: &'a [u8],
}
/// A login.
#[derive(Clone)]
pub struct UserRow {
    /// Login name.
    pub name: UserName,
    /// Role.
    pub role: Role,
    /// Password hash in PHC form.
    pub password_hash: String,
    /// TOTP secret.
    pub totp_secret: Zeroizing<Vec<u8>>,
    /// Newest time step used; an older or equal one is refused.
    pub last_totp_step: Option<u64>,
    /// When added.
    pub created_at: Timestamp,
}
/// The registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// SQL failed.
    #[error("using the registry")]
    Sql(#[from] sqlx::Error),
}
/// Handle.
#[derive(Clone, Debug)]
pub struct Registry {}
/// # Errors
impl Registry {
    /// # Errors
    pub async fn add_patient(&self, name: Option<&str>, mrn: Option<&str>, now: Timestamp) -> Result<SubjectPseudonym, RegistryError> { todo!() }
    /// # Errors
    pub async fn patients(&self) -> Result<Vec<PatientRow>, RegistryError> { todo!() }
    /// # Errors
    pub async fn patient(&self, subject: &SubjectPseudonym) -> Result<Option<PatientRow>, RegistryError> { todo!() }
    /// # Errors
    pub async fn enroll_device(&self, certificate: &DeviceCertificate, now: Timestamp) -> Result<(), RegistryError> { todo!() }
    /// # Errors
    pub async fn assign_device(&self, device: &DeviceId, subject: &SubjectPseudonym, now: Timestamp) -> Result<(), RegistryError> { todo!() }
    /// # Errors
    pub async fn revoke_device(&self, device: &DeviceId, reason: &str, now: Timestamp) -> Result<(), RegistryError> { todo!() }
    /// # Errors
    pub async fn devices(&self) -> Result<Vec<DeviceRow>, RegistryError> { todo!() }
    /// # Errors
    pub async fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>, RegistryError> { todo!() }
    /// # Errors
    pub async fn device_certificate(&self, thumbprint: &Thumbprint) -> Result<Option<Arc<DeviceCertificate>>, RegistryError> { todo!() }
    /// x
    #[must_use]
    pub fn subscribe_devices(&self) -> broadcast::Receiver<DeviceId> { todo!() }
    /// # Errors
    pub async fn add_user(&self, user: NewUser<'_>, now: Timestamp) -> Result<(), RegistryError> { todo!() }
    /// # Errors
    pub async fn user(&self, name: &UserName) -> Result<Option<UserRow>, RegistryError> { todo!() }
    /// `false` when that step or a later one was used before.
    /// # Errors
    pub async fn set_totp_step(&self, name: &UserName, step: u64) -> Result<bool, RegistryError> { todo!() }
    /// # Errors
    pub async fn users(&self) -> Result<Vec<(UserName, Role)>, RegistryError> { todo!() }
    /// # Errors
    pub async fn grant(&self, user: &UserName, subject: &SubjectPseudonym, now: Timestamp) -> Result<(), RegistryError> { todo!() }
    /// # Errors
    pub async fn grants_of(&self, user: &UserName, now: Timestamp) -> Result<Vec<SubjectPseudonym>, RegistryError> { todo!() }
    /// # Errors
    pub async fn put_token(&self, sha256: [u8; 32], user: &UserName, expires_at: Timestamp) -> Result<(), RegistryError> { todo!() }
    /// # Errors
    pub async fn token(&self, sha256: [u8; 32]) -> Result<Option<(UserName, Role, Timestamp)>, RegistryError> { todo!() }
    /// # Errors
    pub async fn put_incident(&self, id: &str, json: &str, now: Timestamp) -> Result<(), RegistryError> { todo!() }
    /// # Errors
    pub async fn incident(&self, id: &str) -> Result<Option<String>, RegistryError> { todo!() }
    /// # Errors
    pub async fn incidents(&self) -> Result<Vec<String>, RegistryError> { todo!() }
}
