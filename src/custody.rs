//! Who keeps the root keys of a store, and where snapshots of its key tree go: from the configuration to
//! [`KeyCustody`].

use std::sync::Arc;

use vitalseal_storage::{FileRootProvider, KeyCustody};

use crate::config::Config;

/// As the configuration says.
pub(crate) fn open(config: &Config) -> KeyCustody {
    KeyCustody {
        roots: Arc::new(FileRootProvider::new(&config.root_keys)),
        snapshots: config.keys.snapshots.clone(),
    }
}
