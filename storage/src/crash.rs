//! Places where a test abandons an operation as a power cut would. In the product every one is a
//! no-op.

use std::io;
#[cfg(test)]
use std::sync::{Arc, Mutex};

/// Named moments inside erasure, flush and the work on files; the tables in `keys::erasure`, `flush` and `compact` say what each
/// leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    RootCreated,
    TreeCommitted,
    InboxPurged,
    ReadBack,
    SnapshotWritten,
    RootDestroyed,
    FlushPlanned,
    FileHalfWritten,
    FileRenamed,
    FlushCatalogued,
    SetAside,
    UpkeepPlanned,
    UpkeepWritten,
    UpkeepProved,
    UpkeepCommitted,
    GarbageRemoved,
}

/// Armed by a test with one [`CrashPoint`].
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashHook {
    #[cfg(test)]
    armed: Arc<Mutex<Option<CrashPoint>>>,
}

impl CrashHook {
    /// Fails when a test armed this very point.
    #[cfg(test)]
    pub(crate) fn reached(&self, point: CrashPoint) -> io::Result<()> {
        if *self.armed.lock().unwrap() == Some(point) {
            return Err(io::Error::other(format!("abandoned at {point:?}")));
        }
        Ok(())
    }

    /// Nothing in the product ever arms a point.
    #[cfg(not(test))]
    pub(crate) fn reached(&self, _: CrashPoint) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn arm(&self, point: CrashPoint) {
        *self.armed.lock().unwrap() = Some(point);
    }
}
