//! Why a data file could not be written or read.

use std::path::PathBuf;

use vitalseal_crypto::Kid;

use crate::durable::FileError;

/// A data file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The object store's settings cannot be used.
    #[error("setting up the object store: {0}")]
    Settings(String),
    /// The object store failed.
    #[error("{what} {name} in {place}")]
    Object {
        /// What was attempted.
        what: &'static str,
        /// The file.
        name: String,
        /// Where, without credentials.
        place: String,
        /// Why it failed, the attempts of the client included.
        #[source]
        cause: Box<object_store::Error>,
    },
    /// A file is not there.
    #[error("there is no {name} in {place}; restore it from a backup")]
    Missing {
        /// The file.
        name: String,
        /// Where.
        place: String,
    },
    /// The place does not show that it is this store's.
    #[error(
        "{place} does not hold the file `owner` that this store put there: is its disk mounted, is it the right bucket and \
         prefix? Nothing is written or removed there. If it is the right place, and was emptied or restored, put a copy of \
         {owner} there under the name `owner`"
    )]
    Away {
        /// Where.
        place: String,
        /// What must be there.
        owner: PathBuf,
    },
    /// The place is somebody else's.
    #[error(
        "{place} belongs to another store, or to another copy of this one: nothing is written or removed there. Each needs a \
         place of its own; if the other is gone for good, replace the file `owner` there by a copy of {owner}"
    )]
    Foreign {
        /// Where.
        place: String,
        /// What would be there.
        owner: PathBuf,
    },
    /// The local disk failed.
    #[error(transparent)]
    Local(#[from] FileError),
    /// Something else has the name. Names are random, so it is no accident.
    #[error("{name} exists in {place} with another content; nothing was overwritten")]
    Exists {
        /// The name.
        name: String,
        /// Where.
        place: String,
    },
    /// A file would not fit into memory.
    #[error("a data file grew beyond {limit} bytes; give it fewer rows")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The key metadata could not be written.
    #[error("naming the key of a data file")]
    KeyMetadata(#[source] serde_json::Error),
    /// The file's key is wrapped under a store key that is not here.
    #[error(
        "{name} is sealed under store key {kid}, which this store does not hold; it belongs to another store, or the \
         registry is older than it: restore the newest backup of the registry"
    )]
    UnknownKey {
        /// The file.
        name: String,
        /// The store key.
        kid: Kid,
    },
    /// Bytes are not those that were written.
    #[error(
        "{name} is damaged: {what}; `vitalseal store check` tells what it costs, a backup has the bytes"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Where or how.
        what: String,
    },
}
