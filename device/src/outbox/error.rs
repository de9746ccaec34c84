//! Why an outbox could not be used. Never with content.

use std::io;
use std::path::{Path, PathBuf};

use vitalseal_crypto::KeyError;

use super::{MAX_PENDING, Position};

/// Why the outbox could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// Another process has it open.
    #[error("the outbox {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file with the boot counter does not hold a number.
    #[error("the boot counter in {} is damaged; write a number into it that is higher than any boot of this device", path.display())]
    BootCounter {
        /// The file.
        path: PathBuf,
    },
    /// As many messages wait as may.
    #[error(
        "{MAX_PENDING} messages wait in the outbox; the server has not acknowledged any for long"
    )]
    Full,
    /// A message with this boot and sequence is there already.
    #[error("message {position} is in the outbox already")]
    Occupied {
        /// Which one.
        position: Position,
    },
    /// The key that content keys wait under could not be drawn, read or used.
    #[error(
        "using the key in {}; if that file is damaged, remove it: what waits then reaches the server only while the \
         server keeps the key that it was sealed for",
        path.display()
    )]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: KeyError,
    },
    /// The disk refused.
    #[error("{attempt} {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Attaches attempt and path to an I/O error.
pub(super) fn at(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutboxError {
    move |cause| OutboxError::Io {
        attempt,
        path: path.to_owned(),
        cause,
    }
}
