//! Who and what there is: patients, devices with their certificates and assignments, people,
//! incidents.
//!
//! A patient's name and record number stand here sealed under the patient's own KEK, so that they
//! go with it. TOTP secrets are sealed under the service page key. A device's record is answered
//! from memory on the hot path; every write here renews it and tells whoever subscribed.

mod assignments;
mod devices;
mod incidents;
mod patients;
mod rotation;
mod standing;
mod subscribers;
mod users;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};
use vitalseal_crypto::{BackendError, DeviceId, SubjectPseudonym, Subscriber};

pub use self::assignments::Assignment;
use self::devices::DeviceCache;
pub use self::devices::{DeviceRecord, DeviceRow};
pub use self::patients::{PatientIdentity, PatientRow, PatientState, PatientStateRow};
pub use self::rotation::KekRotation;
pub use self::standing::DeviceState;
pub use self::subscribers::SubscriberRow;
pub use self::users::{NewUser, UserRow};
use crate::database::Database;
use crate::keys::{KeyError, KeyStore};
use crate::ports::UserName;

/// Changes of devices that may wait for a slow subscriber before it is told that it missed some.
const CHANGES: usize = 1024;

/// The registry failed. No text here holds a name, a reading or a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The database could not be read or written.
    #[error("using the registry")]
    Sql(#[from] sqlx::Error),
    /// A key could not be made, stored or opened.
    #[error("using the keys of the registry")]
    Key(#[from] KeyError),
    /// A sealed value did not open or could not be sealed.
    #[error("sealing or opening a value of the registry")]
    Seal(#[from] vitalseal_crypto::keys::KeyError),
    /// The random source failed.
    #[error("drawing a pseudonym")]
    Random(#[from] BackendError),
    /// There is no such patient.
    #[error("there is no patient {0}")]
    UnknownPatient(SubjectPseudonym),
    /// The patient was erased.
    #[error("patient {0} was erased")]
    PatientErased(SubjectPseudonym),
    /// There is no such device.
    #[error("there is no device {0}; enrol it first")]
    UnknownDevice(DeviceId),
    /// The device is suspended.
    #[error("device {0} is suspended; reinstate it first")]
    DeviceSuspended(DeviceId),
    /// The device is not suspended.
    #[error("device {0} is not suspended (`vitalseal device list`)")]
    DeviceActive(DeviceId),
    /// The device was revoked, which is for ever.
    #[error("device {0} was revoked; enrol it under a new id")]
    DeviceRevoked(DeviceId),
    /// There is no such display or service.
    #[error("there is no {0} (`vitalseal display list`)")]
    UnknownSubscriber(Subscriber),
    /// The name is taken, or was.
    #[error("{0} was enrolled already; choose another name")]
    SubscriberExists(Subscriber),
    /// The device measured another patient after the instant from which it was to be assigned.
    #[error(
        "device {device} was assigned otherwise until {free_from}; assign it from then on (`vitalseal device assignments`)"
    )]
    AssignedOtherwise {
        /// Device.
        device: DeviceId,
        /// The earliest instant at which another assignment may begin.
        free_from: Timestamp,
    },
    /// There is no such user.
    #[error("there is no user {0} (`vitalseal user list`)")]
    UnknownUser(UserName),
    /// The name is taken.
    #[error("there is a user {0} already")]
    UserExists(UserName),
}

/// Handle on the registry; clones share it.
#[derive(Clone)]
pub struct Registry {
    db: Database,
    keys: KeyStore,
    devices: Arc<DeviceCache>,
    changes: broadcast::Sender<DeviceId>,
    listeners: watch::Sender<()>,
}

impl Registry {
    pub(crate) fn new(db: Database, keys: KeyStore) -> Self {
        let (changes, _) = broadcast::channel(CHANGES);
        Self {
            db,
            keys,
            devices: Arc::default(),
            changes,
            listeners: watch::Sender::new(()),
        }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
