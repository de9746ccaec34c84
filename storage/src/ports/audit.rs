//! What the audit log is told.
//!
//! A record holds ids, counts, times, hashes and reasons that an operator typed. Never a reading, a
//! name, a literal of a query or a secret: the log outlives every erasure.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use vitalseal_crypto::{DeviceId, KeyEpoch, Kid, SubjectPseudonym, Subscriber, Thumbprint};

use super::{Purpose, QuarantineReason, Role, UserName, Ward};

/// For how long the record of a query that lists its scope may stand for the scope of others. Whoever reads the log from
/// an instant on begins so much earlier, and finds every list.
pub const SCOPE_HOLDS: SignedDuration = SignedDuration::from_mins(10);

/// Takes audit records.
#[async_trait]
pub trait AuditSink: Send + Sync + fmt::Debug {
    /// Returns after the record is durable.
    ///
    /// # Errors
    /// When it is not; what was to be recorded must then not happen.
    async fn record(&self, record: AuditRecord) -> Result<(), AuditError>;
}

/// A record could not be made durable.
#[derive(Debug, thiserror::Error)]
#[error("writing the audit record")]
pub struct AuditError(#[source] Box<dyn Error + Send + Sync>);

impl AuditError {
    /// Wraps the cause.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// One thing that was done: when, by whom, what.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
    /// What.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// Who did it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Actor {
    /// vitalseal itself.
    System,
    /// A device, known by its certificate.
    Device(DeviceId),
    /// A display or a service, known by its certificate.
    Subscriber(Subscriber),
    /// A person who logged in.
    User(UserName),
    /// An administrator on the local socket.
    Local {
        /// User id that the kernel vouched for.
        uid: u32,
    },
}

/// How a query ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryOutcome {
    /// Every row was handed out.
    Completed,
    /// An error ended it.
    Failed,
    /// The asker, a deadline or a shutdown ended it.
    Cancelled,
}

/// What was done. Serialized with its name in `event` and the fields beside it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the fields are named after the glossary's terms"
)]
pub enum AuditEvent {
    /// The store was created.
    StoreInitialized {},
    /// The server began to serve.
    ServerStarted { version: String },
    /// The server stopped in order.
    ServerStopped {},
    /// The settings were read again: the names of those that changed.
    ConfigurationReloaded {
        applied: Vec<String>,
        needs_restart: Vec<String>,
    },
    /// They were read again and are wrong; nothing was changed.
    ConfigurationRefused {},
    /// A patient got a pseudonym and a key.
    PatientAdded { patient: SubjectPseudonym },
    /// A pseudonym was resolved to a person.
    IdentityResolved { patient: SubjectPseudonym },
    /// A certificate was issued to a device.
    DeviceEnrolled {
        device: DeviceId,
        certificate: Thumbprint,
    },
    /// A device measures this patient from an instant on; records from before that was kept mean their own.
    DeviceAssigned {
        device: DeviceId,
        patient: SubjectPseudonym,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// A device may not connect any more.
    DeviceRevoked { device: DeviceId, reason: String },
    /// A device may not connect until it is reinstated.
    DeviceSuspended { device: DeviceId, reason: String },
    /// A suspended device may connect again.
    DeviceReinstated { device: DeviceId, reason: String },
    /// A device is told something on its own topic when it comes.
    DownlinkQueued {
        device: DeviceId,
        message: u64,
        bytes: u64,
        expires_at: Timestamp,
    },
    /// A device's key seems to be in two hands; the signal says what shows it.
    CloneSuspected { device: DeviceId, signal: String },
    /// A person got a login.
    UserAdded { user: UserName, role: Role },
    /// A person may see a patient.
    AccessGranted {
        user: UserName,
        patient: SubjectPseudonym,
    },
    /// A display or a service got a certificate; no wards stands for every ward.
    SubscriberEnrolled {
        subscriber: Subscriber,
        certificate: Thumbprint,
        wards: Vec<Ward>,
    },
    /// It may not connect any more.
    SubscriberRevoked {
        subscriber: Subscriber,
        reason: String,
    },
    /// A person may hear a ward's alerts.
    WardGranted { user: UserName, ward: Ward },
    /// Every device was told something; `sha256` is of the text.
    NoticeSent { sha256: String, bytes: u64 },
    /// Displays were sent an alert to see whether it arrives.
    AlertTested { ward: Ward },
    /// Password and second factor were right.
    LoginSucceeded { user: UserName },
    /// They were not.
    LoginFailed { user: UserName },
    /// A short-lived token was handed out.
    TokenIssued {
        user: UserName,
        expires_at: Timestamp,
    },
    /// A peer was turned away at a door.
    ConnectionRefused {
        door: String,
        peer: Option<String>,
        reason: String,
    },
    /// A message was kept aside.
    MessageQuarantined {
        device: DeviceId,
        boot: Option<u64>,
        sequence: Option<u64>,
        reason: QuarantineReason,
        detail: String,
    },
    /// A message contradicts a stored one, and both are signed with the device's key: it was cloned. The counters are
    /// the refused message's.
    ForkDetected {
        device: DeviceId,
        boot: u64,
        sequence: u64,
    },
    /// Somebody ordered that a message that was kept aside be stored, and overruled what it was refused for.
    QuarantineReleaseOrdered {
        quarantine: i64,
        device: DeviceId,
        boot: Option<u64>,
        sequence: Option<u64>,
        overruled: QuarantineReason,
        reason: String,
    },
    /// It is stored.
    QuarantineReleased {
        quarantine: i64,
        device: DeviceId,
        boot: Option<u64>,
        sequence: Option<u64>,
    },
    /// A message that was kept aside was given up.
    QuarantineDropped {
        quarantine: i64,
        device: DeviceId,
        boot: Option<u64>,
        sequence: Option<u64>,
        refused: QuarantineReason,
        reason: String,
    },
    /// A query was let through; `patients` is the authorized scope, or `scope_of` the query, at most [`SCOPE_HOLDS`] before,
    /// whose record lists the same one. Literals are redacted from `sql`.
    QueryStarted {
        query: String,
        user: UserName,
        purpose: Purpose,
        patients: Vec<SubjectPseudonym>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope_of: Option<String>,
        sql: String,
    },
    /// A query ended; `patients` are those whose rows were opened, `identities` counts entries that were read with a name
    /// or medical record number.
    QueryFinished {
        query: String,
        outcome: QueryOutcome,
        patients: Vec<SubjectPseudonym>,
        messages: u64,
        readings: u64,
        first_at: Option<Timestamp>,
        last_at: Option<Timestamp>,
        /// Left out when zero: records from before it was counted keep their bytes, and so their hash.
        #[serde(default, skip_serializing_if = "is_zero")]
        identities: u64,
    },
    /// A query was not let through.
    QueryRefused { user: UserName, reason: String },
    /// Rows went from the inbox to a file.
    ReadingsFlushed {
        file: String,
        messages: u64,
        readings: u64,
    },
    /// Data files were merged into others, message for message.
    FilesCompacted {
        files_in: u64,
        files_out: u64,
        messages: u64,
        readings: u64,
    },
    /// Damaged data files were set aside, and what could be read of them was written anew; `losses` counts the rows and
    /// files that could not.
    DamageSetAside { files: Vec<String>, losses: u64 },
    /// A new envelope key of the server.
    RecipientEpochStarted { epoch: KeyEpoch, kid: Kid },
    /// The private part of an ended envelope key is gone.
    RecipientKeyDestroyed { epoch: KeyEpoch, kid: Kid },
    /// Everything was moved under a new root, and the old one destroyed.
    RootRotated {
        root_epoch_destroyed: KeyEpoch,
        root_epoch: KeyEpoch,
        pages: u64,
    },
    /// A patient's new messages are wrapped under a new key.
    KekRotated {
        patient: SubjectPseudonym,
        retired: Kid,
        kid: Kid,
    },
    /// Ciphertext was copied, and a key snapshot was written to every place; `backup` is the SHA-256 of its description.
    BackupTaken {
        backup: String,
        root_epoch: KeyEpoch,
        files: u64,
        bytes: u64,
    },
    /// Older data was joined with a newer key snapshot: from the backup of this id, or a directory copied by hand.
    /// What was done since that copy was made is not in this log.
    StoreRestored {
        backup: Option<String>,
        root_epoch: KeyEpoch,
        patients: u64,
        erasures_replayed: u64,
    },
    /// The registry went back: it ended with the change `found` of the data files, and `noted` was the last. Where they are
    /// the same it lacked keys. Users, grants and devices that were changed since are as they were: whoever was shut out
    /// may have been let in again.
    RegistryWentBack { found: u64, noted: u64 },
    /// An erasure was ordered.
    ErasureStarted {
        patient: SubjectPseudonym,
        reason: String,
    },
    /// The patient's key is gone and the old root with it.
    ErasureCompleted {
        patient: SubjectPseudonym,
        erasure: String,
        root_epoch_destroyed: u64,
        root_epoch: u64,
        rewrapped: u64,
    },
    /// The last files with ciphertext of these erased patients were removed: so many at once, of so many bytes.
    CiphertextDropped {
        patients: Vec<SubjectPseudonym>,
        files: u64,
        bytes: u64,
    },
    /// What came before this instant outlived its retention and ended: messages in files, or refused ones.
    RetentionEnforced {
        class: String,
        before: Timestamp,
        files: u64,
        messages: u64,
    },
    /// An incident was opened; `aware_at` starts the 72 hours.
    IncidentOpened {
        incident: String,
        kind: String,
        aware_at: Timestamp,
    },
    /// A version of the report was produced.
    IncidentReported {
        incident: String,
        version: u32,
        sha256: String,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_names_its_event() {
        let record = AuditRecord {
            at: Timestamp::UNIX_EPOCH,
            actor: Actor::Local { uid: 1000 },
            event: AuditEvent::ErasureCompleted {
                patient: "p0123456789abcdef0123456789abcdef".parse().unwrap(),
                erasure: "e1".into(),
                root_epoch_destroyed: 1,
                root_epoch: 2,
                rewrapped: 3,
            },
        };
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.contains(r#""event":"erasure_completed""#), "{json}");
        assert_eq!(serde_json::from_str::<AuditRecord>(&json).unwrap(), record);
        let started = AuditRecord {
            event: AuditEvent::StoreInitialized {},
            ..record
        };
        let json = serde_json::to_string(&started).unwrap();
        assert_eq!(serde_json::from_str::<AuditRecord>(&json).unwrap(), started);
    }

    #[test]
    fn a_query_end_from_before_identities_were_counted_reads_back_to_its_own_bytes() {
        let old = r#"{"event":"query_finished","query":"q","outcome":"completed","patients":[],"messages":1,"readings":2,"first_at":null,"last_at":null}"#;
        let event: AuditEvent = serde_json::from_str(old).unwrap();
        assert!(matches!(
            event,
            AuditEvent::QueryFinished { identities: 0, .. }
        ));
        assert_eq!(serde_json::to_string(&event).unwrap(), old);
    }
}
