//! A whole store, as its users drive it: intake, flush, erasure, opening; and the moments at which
//! power may fail.
//!
//! A kill is a copy: the directories are copied while the abandoned store is still there, and the
//! copy is opened, as a machine finds its disk after a power cut. (What was written but not synced
//! cannot be lost this way.)

mod assignments;
mod backup;
mod behind;
mod bound;
mod chain;
mod check;
mod compact;
mod cut;
mod data_model;
mod erasure;
#[path = "../../tests/common/errors.rs"]
mod errors;
#[path = "../../tests/common/files.rs"]
mod files;
mod flips;
mod flush;
mod intake;
mod join;
mod opening;
mod order;
mod peers;
mod people;
mod places;
#[path = "../../tests/common/postgres.rs"]
mod postgres;
mod recipients;
mod regain;
mod restore;
mod review;
mod rotation;
mod sealed;
mod snapshot;
mod standing;
mod subscribers;
mod vacuum;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;
use vitalseal_crypto::{DeviceId, MessageId, SubjectPseudonym};

use errors::chain;
use files::{copy_tree, files_below, make_private};
use postgres::Schema;

use crate::database::{Database, PostgresPlace, RegistryPlace};
use crate::inbox::{Admission, Required};
use crate::keys::{FileRootProvider, KeySlot, RootProvider};
use crate::paths::StorePaths;
use crate::ports::Authorized;
use crate::store::{Store, StoreError};

/// A directory with a data directory and its root keys; and a schema, if the registry is on a server.
struct Site {
    dir: TempDir,
    schema: Option<Schema>,
}

impl Site {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            schema: Schema::new(),
        }
    }

    /// With a registry on a server in any case.
    fn on_server() -> Self {
        Self {
            schema: Some(Schema::required()),
            ..Self::with_file()
        }
    }

    /// With a registry that is a file in any case.
    fn with_file() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            schema: None,
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn roots_dir(&self) -> PathBuf {
        self.dir.path().join("data.root")
    }

    fn paths(&self) -> StorePaths {
        StorePaths::new(&self.data(), None).with_registry(self.registry())
    }

    fn roots(&self) -> Arc<dyn RootProvider> {
        Arc::new(FileRootProvider::new(self.roots_dir()))
    }

    async fn create(&self) -> Store {
        Store::create(&self.paths(), self.roots(), at(0))
            .await
            .unwrap()
    }

    async fn open(&self) -> Result<Store, StoreError> {
        Store::open(&self.paths(), self.roots(), at(1_000)).await
    }

    fn registry(&self) -> RegistryPlace {
        match &self.schema {
            Some(schema) => place_at(&schema.address()),
            None => RegistryPlace::File,
        }
    }

    /// The registry's database, beside a store that may have it open.
    async fn database(&self) -> Database {
        let place = self.paths().registry_place();
        Database::connect(place).await.unwrap()
    }

    /// What the disk would hold if the power failed now.
    fn power_cut(&self) -> Self {
        let copy = Self::new();
        self.copy_data(&copy);
        copy_tree(&self.roots_dir(), &copy.roots_dir());
        copy
    }

    /// Copies the data directory, and the registry with it.
    fn copy_data(&self, to: &Self) {
        copy_tree(&self.data(), &to.data());
        if self.schema.is_some() {
            let from = self.paths().registry_place();
            let to = to.paths().registry_place();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            // Tests have a runtime already, and it is not theirs to wait in.
            let copying = std::thread::spawn(move || {
                runtime.block_on(crate::opening::copy(&from, &to)).unwrap();
            });
            copying.join().unwrap();
        }
    }

    fn root_files(&self) -> Vec<String> {
        names(&self.roots_dir())
    }

    /// Data files, and what is left of some.
    fn parquet_files(&self) -> Vec<String> {
        let mut names = names(&self.data().join("parquet"));
        names.retain(|name| name != "owner");
        names
    }
}

fn place_at(address: &str) -> RegistryPlace {
    RegistryPlace::Postgres(PostgresPlace::new(address, None).unwrap())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Seconds after some instant of 2026.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + seconds).unwrap()
}

fn device(n: u32) -> DeviceId {
    format!("monitor-{n}").parse().unwrap()
}

fn message(sequence: u64) -> MessageId {
    MessageId {
        device: device(1),
        boot: 1,
        sequence,
    }
}

/// A message of 3 readings. Storage never looks into an envelope, so any bytes do.
fn admission(subject: &SubjectPseudonym, sequence: u64) -> Admission {
    let seconds = i64::try_from(sequence).unwrap();
    Admission {
        message: message(sequence),
        signed_hash: [u8::try_from(sequence % 251).unwrap(); 32],
        previous: None,
        introduced: None,
        subject: subject.clone(),
        issued_at: at(seconds),
        required: Required::default(),
        received_at: at(seconds + 1),
        first_at: at(seconds - 60),
        last_at: at(seconds),
        readings: 3,
        envelope: vec![0xd8; 600],
    }
}

async fn patient(store: &Store) -> SubjectPseudonym {
    store
        .registry
        .add_patient(Some("Nomen Nescio"), Some("MRN-0042"), at(1))
        .await
        .unwrap()
}

fn authorized(subjects: &[&SubjectPseudonym]) -> Authorized {
    Authorized::new(
        subjects
            .iter()
            .map(|s| (*s).clone())
            .collect::<BTreeSet<_>>(),
    )
}

/// All files under a directory with their bytes.
fn every_file(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files_below(dir).into_iter();
    files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
