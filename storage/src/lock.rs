//! One process at a time: two writers to one inbox, or an erasure under a running server, would
//! break every promise.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::durable::{FileError, failed};

/// The lock file, locked for as long as this lives. The kernel lets go of it when the process dies,
/// however it dies.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// `Ok(None)` when another process (or another `Store` here) holds it.
    pub(crate) fn acquire(path: &Path) -> Result<Option<Self>, FileError> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(path).map_err(failed("locking", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(failed("locking", path)(e)),
        }
    }
}
