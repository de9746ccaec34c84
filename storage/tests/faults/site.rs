//! A store on its own ground, as a process that is to be struck finds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use vitalseal_storage::{FileRootProvider, KeyCustody, Store, StorePaths};

use crate::files::copy_tree;

/// A directory with a data directory, its root keys and a place for key snapshots.
pub(crate) struct Site(pub(crate) PathBuf);

impl Site {
    /// The one that the parent gave.
    pub(crate) fn of_child() -> Self {
        Self(std::env::var_os("VS_FAULT_DIR").unwrap().into())
    }

    pub(crate) fn below(dir: &Path) -> Self {
        fs::create_dir(dir).unwrap();
        Self(dir.to_path_buf())
    }

    pub(crate) fn paths(&self) -> StorePaths {
        StorePaths::new(&self.0.join("data"), None)
    }

    pub(crate) fn roots(&self) -> FileRootProvider {
        FileRootProvider::new(self.paths().root_keys())
    }

    pub(crate) fn custody(&self) -> KeyCustody {
        KeyCustody {
            roots: Arc::new(self.roots()),
            snapshots: vec![self.paths().default_snapshots()],
        }
    }

    pub(crate) async fn open(&self) -> Result<Store, vitalseal_storage::StoreError> {
        Store::open(&self.paths(), self.custody(), at(100)).await
    }

    pub(crate) fn copy(&self, dir: &Path) -> Self {
        fs::create_dir(dir).unwrap();
        let copy = Self(dir.join("site"));
        copy_tree(&self.0, &copy.0);
        copy
    }

    /// SQLite's shared index lives in memory: a power cut takes it, and it is rebuilt from the log.
    pub(crate) fn forget_shared_memory(&self) {
        for entry in fs::read_dir(self.paths().data()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with("-shm") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());
    &RUNTIME
}

/// Seconds after some instant of 2026.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + seconds).unwrap()
}
