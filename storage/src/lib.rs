//! Where vitalseal keeps things: registry, key store, inbox, sealed rows in Parquet, and the
//! catalog of those files.
//!
//! ```text
//!            admit (group commit, fsync)          flush (file, catalog, delete)
//!  ingest ───────────────▶ Inbox ───────────────────────▶ Parquet  ◀── Catalog
//!                            │                              │
//!                            └──────────── Cut ─────────────┘ ──▶ query
//!  RootProvider ─▶ root ─▶ pages ─▶ KEKs   (KeyStore; erased with their root)
//! ```
//!
//! What stands here is ciphertext and metadata. A measured value never does: not in a table, a
//! file, a log line, an error or a `Debug` text. A key stands here only wrapped; the root that
//! unwraps it is outside the data directory.

mod backup;
pub mod catalog;
pub mod check;
pub mod chunk;
mod columns;
mod compact;
mod crash;
mod database;
mod durable;
mod error;
pub mod files;
mod flush;
pub mod inbox;
pub mod keys;
mod lock;
mod opening;
pub mod paths;
pub mod pkcs11;
pub mod ports;
mod progress;
pub mod registry;
mod restore;
mod retention;
pub mod schema;
mod space;
mod store;
mod stored;
#[cfg(test)]
mod tests;
mod upkeep;
mod vacuum;

pub use backup::{Backup, BackupError, BackupFile, BackupManifest};
pub use catalog::{Catalog, DataFile, FileKind, Holding, Loss, Mended, TableKind};
pub use check::{CheckOptions, CheckReport, Cost, Damage, RepairReport, SetAside};
pub use compact::{CompactionReport, CompactionSettings, Due};
pub use database::{PlaceError, PostgresPlace, RegistryPlace};
pub use durable::FileError;
pub use error::WentBack;
pub use files::{
    FilesError, MAX_FILE_BYTES, ObjectsPlace, S3Place, SealedFileReader, SealedFiles, WrittenFile,
};
pub use flush::{FlushReport, FlushedFile};
pub use inbox::{
    Admission, BootChain, DownlinkError, DownlinkRow, Fork, Inbox, InboxError, Judgement,
    KeptProof, KeptSession, Listener, MAX_DOWNLINK_BYTES, MAX_DOWNLINK_WAITING, NewQuarantine,
    Place, QuarantineFilter, QuarantineRow, QuarantineState, Required, Senders, SessionChange,
    Settled,
};
pub use keys::{
    FileRootProvider, JoinRefused, Joined, KeyCustody, KeyErasure, KeyError, KeySlot, KeyStatus,
    KeyStore, LedgerRow, NewRoot, RecipientRow, RootError, RootProvider, RootRotation,
    SnapshotError, SnapshotId, SnapshotPlace, SnapshotReport, StoreKeys,
};
pub use paths::StorePaths;
pub use pkcs11::{
    Pkcs11RootProvider, Pkcs11Signer, SigningPurpose, Token, TokenError, TokenSettings,
};
pub use ports::{
    AccessPolicy, Actor, AuditError, AuditEvent, AuditRecord, AuditSink, Authenticated,
    AuthenticationError, Authenticator, Authorized, Clock, Identity, ParseError, PolicyError,
    Purpose, QuarantineReason, QueryOutcome, Role, SystemClock, UserName, Ward, Wards,
};
pub use progress::{Progress, Unwatched};
pub use registry::{
    Assignment, DeviceRecord, DeviceRow, DeviceState, KekRotation, NewUser, PatientIdentity,
    PatientRow, PatientState, Registry, RegistryError, SubscriberRow, UserRow,
};
pub use restore::{RestoreError, Restored};
pub use retention::{Retention, RetentionReport};
pub use space::{NoRoom, Space};
pub use store::{Cut, Store, StoreError};
pub use stored::{SampleError, StoredSample};
pub use upkeep::{GRACE, GarbageReport};
pub use vacuum::VacuumReport;
