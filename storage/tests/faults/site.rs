//! A store on its own ground, as a process that is to be struck finds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use vitalseal_storage::{FileRootProvider, KeyCustody, Store, StorePaths};

use crate::files::copy_tree;
use crate::postgres::Schema;
use crate::registry;

/// A directory with a data directory, its root keys and a place for key snapshots; and a schema, if the registry is on a
/// server.
pub(crate) struct Site {
    pub(crate) dir: PathBuf,
    /// The registry's address on the server.
    pub(crate) address: Option<String>,
    /// Whose it is: not the child's.
    schema: Option<Schema>,
}

impl Site {
    /// The one that the parent gave.
    pub(crate) fn of_child() -> Self {
        Self {
            dir: std::env::var_os("VS_FAULT_DIR").unwrap().into(),
            address: std::env::var("VS_REGISTRY").ok(),
            schema: None,
        }
    }

    pub(crate) fn below(dir: &Path) -> Self {
        fs::create_dir(dir).unwrap();
        Self::with(dir.to_path_buf(), Schema::new())
    }

    fn with(dir: PathBuf, schema: Option<Schema>) -> Self {
        Self {
            dir,
            address: schema.as_ref().map(Schema::address),
            schema,
        }
    }

    pub(crate) fn paths(&self) -> StorePaths {
        StorePaths::new(&self.dir.join("data"), None)
            .with_registry(registry::place(self.address.clone()))
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
        copy_tree(&self.dir, &dir.join("site"));
        Self::with(dir.join("site"), self.schema.as_ref().map(Schema::copy))
    }

    /// Puts back the data and the registry of an earlier copy.
    pub(crate) fn set_back(self, to: &Self) -> Self {
        fs::remove_dir_all(self.paths().data()).unwrap();
        copy_tree(to.paths().data(), self.paths().data());
        Self::with(self.dir, to.schema.as_ref().map(Schema::copy))
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
