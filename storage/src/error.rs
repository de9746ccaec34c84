//! What a store could not do, why, and what to do about it. Never what was measured, a name, a key or a password.

use std::error::Error;
use std::io;
use std::num::TryFromIntError;
use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use tokio::task::JoinError;
use vitalseal_crypto::{BackendError, KeyEpoch};

use crate::catalog::SnapshotId;
use crate::chunk::ChunkError;
use crate::durable::FileError;
use crate::files::FilesError;
use crate::inbox::InboxError;
use crate::keys::{JoinRefused, KeyError, RootError};
use crate::ports::AuditError;
use crate::registry::RegistryError;

/// A store could not be made, opened, flushed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is a store already.
    #[error("{0} holds a store already; choose another directory, or start it as it is")]
    Exists(PathBuf),
    /// The directory is somebody else's.
    #[error("{0} is not empty; a new store needs a directory of its own")]
    NotEmpty(PathBuf),
    /// A new store must not be planted beside the root keys of another.
    #[error(
        "{place} holds root keys already (epochs {epochs}); a new store needs an empty directory for its own"
    )]
    RootKeysExist {
        /// The root provider.
        place: String,
        /// The epochs that are there.
        epochs: String,
    },
    /// There is none.
    #[error("{0} holds no store; make one with `vitalseal init`")]
    NotFound(PathBuf),
    /// Making it was interrupted.
    #[error(
        "{0} holds a store that was never completed, or lost its registry: if it was ever used, restore it from a \
         backup; if not, remove the directory and its root keys, and make it again"
    )]
    Incomplete(PathBuf),
    /// A database is missing or damaged.
    #[error(
        "opening {file}, a part of the store; if it is gone or damaged, restore it from a backup"
    )]
    Unusable {
        /// The database.
        file: PathBuf,
        /// Why it cannot be used.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// Made by another version.
    #[error("{place} has tables of version {found}, this program reads version {expected}")]
    Version {
        /// The database.
        place: String,
        /// Its version.
        found: i64,
        /// The version that this program reads.
        expected: i64,
    },
    /// The server of the registry is not there.
    #[error(
        "connecting to the registry at {registry}: see that the server runs and that [registry] in the configuration \
         names it, with user, password and database"
    )]
    Unreachable {
        /// Its address.
        registry: String,
        /// Why it cannot be used.
        #[source]
        cause: sqlx::Error,
    },
    /// A new registry must not be planted among somebody's tables.
    #[error("there are tables at {0} already; a new store needs an empty schema of its own")]
    RegistryTaken(String),
    /// The inbox is from another day than the registry: its next messages would pass for flushed.
    #[error(
        "{0} is older than the registry, which knows of messages that came later: a message that is taken now could be \
         lost; restore both from one backup"
    )]
    InboxBehind(PathBuf),
    /// The registry is from another day than the inbox, which handed its messages over to files since.
    #[error(
        "the registry went back: it ends with change {found} of the data files, and the inbox knows of {noted}; nothing \
         was removed and nothing is read: bring back a later copy of the registry, or restore registry and data \
         directory from one backup"
    )]
    RegistryBehind {
        /// The last change that the registry has.
        found: SnapshotId,
        /// The last one that the inbox has.
        noted: SnapshotId,
        /// Why what is between them could not be made up for.
        #[source]
        cause: WentBack,
    },
    /// Another server has the registry open.
    #[error("the registry at {0} is in use by another vitalseal process; stop that one first")]
    RegistryInUse(String),
    /// Another process has it open.
    #[error(
        "{0} is in use by another vitalseal process; stop that one first (its lock file need not be removed)"
    )]
    Locked(PathBuf),
    /// The root key that everything here is wrapped under does not exist (any more).
    #[error(
        "root key of epoch {epoch} is needed to open {data} and does not exist: if this is a copy from before an \
         erasure, that root was destroyed with it and nothing in the copy can be decrypted by anyone, except joined \
         with a later key snapshot; looked for one in {looked}, and there is none; name a place that has one under \
         [keys] snapshots, open the present data directory instead, or name the right directory of root keys"
    )]
    RootMissing {
        /// The epoch that the registry needs.
        epoch: KeyEpoch,
        /// The data directory.
        data: PathBuf,
        /// The places for key snapshots.
        looked: String,
        /// Where it was looked for and what is there.
        #[source]
        cause: RootError,
    },
    /// The registry is older than the newest key snapshot of its store, or holds no keys, and was not joined with one.
    #[error("joining {data} with the newest key snapshot of its store; nothing in it is served")]
    Join {
        /// The data directory.
        data: PathBuf,
        /// Why it failed.
        #[source]
        cause: JoinRefused,
    },
    /// A database could not be used.
    #[error("using the store's databases")]
    Sql(#[from] sqlx::Error),
    /// A file that is to be merged or rewritten is damaged.
    #[error(
        "reading {file}, to merge or rewrite it: it stays as it is, and the others go on; `vitalseal store check` \
         tells what is damaged, and with --repair sets it aside"
    )]
    Input {
        /// The file.
        file: String,
        /// Why it cannot be used.
        #[source]
        cause: Box<StoreError>,
    },
    /// The rows of a file are not in the order that every file has.
    #[error("its rows are not sorted by patient and time")]
    Unsorted,
    /// What was written does not hold what it was to hold.
    #[error(
        "a new file does not read back as it was to be: it counts nowhere, and what it was to replace stays; if this \
         happens again, look at the memory and the disk of this machine"
    )]
    NotTheSame,
    /// A chunk could not be made or read.
    #[error("making or reading a sealed chunk")]
    Chunk(#[from] ChunkError),
    /// What was to be recorded was not, and did not happen.
    #[error("recording what is to happen to files")]
    Audit(#[from] AuditError),
    /// The inbox failed.
    #[error("using the inbox")]
    Inbox(#[from] InboxError),
    /// The key store failed.
    #[error("using the key store")]
    Key(#[from] KeyError),
    /// The registry failed.
    #[error("using the registry")]
    Registry(#[from] RegistryError),
    /// A Parquet file could not be written or read.
    #[error("writing or reading a Parquet file")]
    Parquet(#[from] ParquetError),
    /// Rows could not be laid out in columns.
    #[error("laying out rows in columns")]
    Arrow(#[from] ArrowError),
    /// The object store could not be set up.
    #[error("using the object store")]
    ObjectStore(#[from] object_store::Error),
    /// The random source failed.
    #[error("drawing a file name")]
    Random(#[from] BackendError),
    /// A count that does not fit.
    #[error("counting")]
    Count(#[from] TryFromIntError),
    /// The file system failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A data file could not be written or read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A repair would not know what to leave out.
    #[error(
        "more is damaged than can be listed, so nothing was set aside: restore a backup, and look for what damages the disk"
    )]
    TooDamaged,
    /// A file was to begin that was not planned.
    #[error("{0} was not planned, or begins already; nothing has changed")]
    NotPlanned(String),
    /// A file was to end that did already.
    #[error(
        "{0} was replaced meanwhile; nothing has changed, and the next compaction takes up what is left"
    )]
    NotLive(String),
    /// A step of a flush was abandoned.
    #[error("flushing the inbox")]
    Flush(#[from] io::Error),
    /// A task ended before its time.
    #[error("a task of the store ended early")]
    Task(#[from] JoinError),
}

/// Why a registry that went back was not given again what it lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WentBack {
    /// It had changes since that the inbox does not know.
    #[error(
        "it went on without this inbox, or this inbox is an old copy: what the inbox knows last is none of its changes, \
         or one from before the week for which it keeps them"
    )]
    Elsewhere,
    /// From before a change that the inbox did not note whole.
    #[error("the inbox does not know all that changed since then")]
    TooFar,
    /// It happened between two looks.
    #[error("it went back in this moment; the next flush makes up for it, if that can be")]
    Meanwhile,
    /// A file cannot be read.
    #[error("reading {file}, of which the registry does not know any more")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        #[source]
        cause: FilesError,
    },
    /// A file is not what it was.
    #[error("{0}, of which the registry does not know any more, is not as it was written")]
    Changed(String),
}
