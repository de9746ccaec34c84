//! Who keeps what the key tree cannot keep itself.

use std::path::PathBuf;
use std::sync::Arc;

use super::RootProvider;

/// The holder of root keys, and the places for key snapshots.
#[derive(Clone, Debug)]
pub struct KeyCustody {
    /// Holds the root keys, outside the data directory.
    pub roots: Arc<dyn RootProvider>,
    /// Directories, outside the data directory and best on other disks, that get a snapshot of the key tree before an
    /// old root is destroyed. With none, copies of the data directory from before an erasure open for nobody.
    pub snapshots: Vec<PathBuf>,
}

impl<P: RootProvider + 'static> From<Arc<P>> for KeyCustody {
    /// Without key snapshots.
    fn from(roots: Arc<P>) -> Self {
        Self {
            roots,
            snapshots: Vec::new(),
        }
    }
}

impl From<Arc<dyn RootProvider>> for KeyCustody {
    /// Without key snapshots.
    fn from(roots: Arc<dyn RootProvider>) -> Self {
        Self {
            roots,
            snapshots: Vec::new(),
        }
    }
}
