//! A fault at every single write: whatever a process was doing to the keys, the next one finds the patient or the
//! erasure, and never a broken tree.
//!
//! Each run works on a fresh copy of a prepared store, in a child process whose file calls go through
//! `faults/interpose.c`. The n-th of them kills it, cuts the power (what was not synced is lost), or fails; then this
//! process opens the store as the next start would. n counts up until an operation ends unharmed, so no call is left
//! out. `VITALSEAL_FAULTS=all` tries every call in every way; without it, the kinds of failure that leave the process
//! alive are tried at every third.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test argues with panics"
)]

#[path = "../../tests/common/errors.rs"]
mod errors;
#[path = "../../tests/common/files.rs"]
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use errors::chain;
use files::copy_tree;
use jiff::Timestamp;
use tempfile::TempDir;
use vitalseal_crypto::{CertificateAuthority, KeyEpoch, Kid, SubjectPseudonym, default_backend};
use vitalseal_storage::{
    FileRootProvider, KeyCustody, KeySlot, PatientState, RootProvider as _, Store, StorePaths,
};

/// What the child does, and what the parent then looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Erase,
    RotateRoot,
    RotateKek,
    AddPatient,
    EndEpoch,
    Snapshot,
    /// Opening a copy of the data directory from before an erasure.
    Join,
}

const OPERATIONS: [Operation; 7] = [
    Operation::Erase,
    Operation::RotateRoot,
    Operation::RotateKek,
    Operation::AddPatient,
    Operation::EndEpoch,
    Operation::Snapshot,
    Operation::Join,
];

/// `interpose.c` says what each does.
const MODES: [&str; 4] = ["kill", "powercut", "eio", "full"];

#[test]
fn a_fault_at_any_write_leaves_the_patient_or_the_erasure() {
    if let Ok(operation) = std::env::var("VS_CHILD") {
        return child(&operation);
    }
    let ground = TempDir::new().unwrap();
    let library = compile(ground.path());
    let prepared = Site::below(&ground.path().join("prepared"));
    let ward = runtime().block_on(prepare(&prepared));
    let old_copy = runtime().block_on(old_copy(&prepared, &ward, ground.path()));
    let everything = std::env::var("VITALSEAL_FAULTS").is_ok_and(|v| v == "all");

    let mut points = BTreeMap::new();
    for operation in OPERATIONS {
        for mode in MODES {
            let ends = matches!(mode, "kill" | "powercut");
            let stride = if ends || everything { 1 } else { 3 };
            let trial = Trial {
                operation,
                mode,
                library: &library,
                prepared: match operation {
                    Operation::Join => &old_copy,
                    _ => &prepared,
                },
                ward: &ward,
                ground: ground.path(),
            };
            points.insert(format!("{operation:?} {mode}"), trial.at_every(stride));
        }
    }
    println!("faults tried: {points:#?}");
    // An operation that the library did not see would pass without a word.
    for (trial, tried) in &points {
        assert!(*tried >= 3, "{trial}: {tried}");
    }
}

struct Trial<'a> {
    operation: Operation,
    mode: &'static str,
    library: &'a Path,
    prepared: &'a Site,
    ward: &'a Ward,
    ground: &'a Path,
}

impl Trial<'_> {
    /// Two at a time, from the first call on, until one ends unharmed. Returns how many were struck.
    fn at_every(&self, stride: usize) -> usize {
        let (next, beyond) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let struck = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let call = 1 + next.fetch_add(stride, Ordering::SeqCst);
                        if call >= beyond.load(Ordering::SeqCst) {
                            return;
                        }
                        if self.at(call) {
                            struck.fetch_add(1, Ordering::SeqCst);
                        } else {
                            beyond.fetch_min(call, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        struck.into_inner()
    }

    /// Whether the operation came as far as this call.
    fn at(&self, call: usize) -> bool {
        let Self {
            operation, mode, ..
        } = self;
        let dir = self.ground.join(format!("{operation:?}-{mode}-{call}"));
        let site = self.prepared.copy(&dir);
        let hit = dir.join("hit");
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_fault_at_any_write_leaves_the_patient_or_the_erasure",
            ])
            .env("LD_PRELOAD", self.library)
            .env("VS_CHILD", format!("{operation:?}"))
            .env("VS_PATIENT", self.ward.ada.as_str())
            .env("VS_FAULT_DIR", &site.0)
            .env("VS_FAULT_AT", call.to_string())
            .env("VS_FAULT_MODE", mode)
            .env("VS_FAULT_HIT", &hit)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let struck = hit.exists();
        let killed = child.status.code() == Some(99);
        let expected = struck && matches!(*mode, "kill" | "powercut");
        let said = String::from_utf8_lossy(&child.stdout);
        assert_eq!(killed, expected, "{operation:?} {mode} {call}: {said}");
        assert!(
            killed || child.status.success(),
            "{operation:?} {mode} {call}: {said}"
        );
        if *mode == "powercut" && struck {
            site.forget_shared_memory();
        }
        let context = format!("{operation:?}, {mode} at call {call}");
        runtime().block_on(judge(&site, self.ward, *operation, !struck, &context));
        fs::remove_dir_all(&dir).unwrap();
        struck
    }
}

/// The child: opens the store, does one thing, and ends; what that gave is for the parent to find out.
fn child(operation: &str) {
    let site = Site(std::env::var_os("VS_FAULT_DIR").unwrap().into());
    let ada: SubjectPseudonym = std::env::var("VS_PATIENT").unwrap().parse().unwrap();
    let operation = OPERATIONS
        .into_iter()
        .find(|known| format!("{known:?}") == operation)
        .unwrap();
    runtime().block_on(async {
        let Ok(store) = site.open().await else { return };
        let (keys, registry) = (&store.keys, &store.registry);
        let said = match operation {
            Operation::Erase => said(keys.erase(&ada, "e1", at(50)).await),
            Operation::RotateRoot => said(keys.rotate_root(at(50)).await),
            Operation::RotateKek => said(registry.rotate_kek(&ada, at(50)).await),
            Operation::AddPatient => said(registry.add_patient(Some("Third"), None, at(50)).await),
            Operation::EndEpoch => said(keys.destroy_recipients_ended_before(at(2_000_000)).await),
            Operation::Snapshot => said(keys.snapshot(at(50)).await),
            Operation::Join => Ok(()),
        };
        println!("{said:?}");
        store.close().await;
    });
}

fn said<T>(result: Result<T, impl std::error::Error>) -> Result<(), String> {
    result.map(drop).map_err(|error| chain(&error))
}

/// Opens the store as the next start does, and holds it against what may be there.
async fn judge(site: &Site, ward: &Ward, operation: Operation, unharmed: bool, context: &str) {
    let store = site
        .open()
        .await
        .unwrap_or_else(|e| panic!("{context}: {}", chain(&e)));
    // Everybody else is as before.
    let grace = store.keys.patient_keys(&ward.grace).await.unwrap().unwrap();
    let opened = grace.current().open(b"test", &ward.of_grace).unwrap();
    assert_eq!(*opened, b"grace", "{context}");
    let row = store.registry.patient(&ward.grace).await.unwrap().unwrap();
    assert_eq!(
        row.identity.unwrap().name.as_deref(),
        Some("Grace"),
        "{context}"
    );
    let secret = store.keys.secret("audit").await.unwrap().unwrap();
    assert_eq!(*secret, b"signing key", "{context}");

    // The patient, whole, or the erasure, whole.
    let row = store.registry.patient(&ward.ada).await.unwrap().unwrap();
    let ledger = store.keys.erasure_ledger().await.unwrap();
    match store.keys.patient_keys(&ward.ada).await.unwrap() {
        Some(keys) => {
            assert!(
                ledger.is_empty() && row.state == PatientState::Active,
                "{context}"
            );
            let kek = keys.find(&ward.kid).expect(context);
            assert_eq!(
                *kek.open(b"test", &ward.of_ada).unwrap(),
                b"ada",
                "{context}"
            );
            assert_eq!(
                row.identity.unwrap().name.as_deref(),
                Some("Ada"),
                "{context}"
            );
            let gone = operation == Operation::Join || unharmed && operation == Operation::Erase;
            assert!(!gone, "{context}");
        }
        None => {
            let may_be = matches!(operation, Operation::Erase | Operation::Join);
            assert!(may_be, "{context}");
            assert_eq!(
                (row.state, row.identity),
                (PatientState::Erased, None),
                "{context}"
            );
            assert_eq!(ledger.len(), 1, "{context}");
            assert!(
                ledger[0].completed_at.is_some(),
                "{context}: open finishes it"
            );
        }
    }
    let status = store.keys.status().await.unwrap();
    assert_eq!(
        (status.roots_retiring, status.erasures_unfinished),
        (0, 0),
        "{context}"
    );

    // What nothing struck was done.
    if unharmed && operation != Operation::Join {
        let turned = matches!(operation, Operation::RotateRoot | Operation::Erase);
        let retired = operation == Operation::RotateKek;
        let patients = 2 + usize::from(operation == Operation::AddPatient);
        assert_eq!(
            (status.root_epoch.0, status.keks_retired),
            (turned.into(), retired.into()),
            "{context}"
        );
        let known = store.registry.patients().await.unwrap();
        assert_eq!(known.len(), patients, "{context}");
    }

    // Of the roots there is the one in use, and at most one that was drawn and never used.
    let slots = site.roots().slots().unwrap();
    let roots: Vec<_> = slots
        .iter()
        .filter(|s| matches!(s, KeySlot::Root(_)))
        .collect();
    assert!(
        roots.contains(&&KeySlot::Root(status.root_epoch)),
        "{context}: {slots:?}"
    );
    let unused = roots
        .iter()
        .filter(|slot| slot.epoch() > status.root_epoch)
        .count();
    assert_eq!(roots.len(), 1 + unused, "{context}: {slots:?}");
    assert!(unused <= 1, "{context}: {slots:?}");
    for place in store.keys.snapshots().await.unwrap() {
        let newest = place.newest.expect(context);
        let written = newest.is_some() || !unharmed || operation != Operation::Snapshot;
        assert!(written, "{context}");
    }
    if operation == Operation::EndEpoch {
        // Ended or not, the store knows which, and can end it now.
        store
            .keys
            .destroy_recipients_ended_before(at(2_000_000))
            .await
            .unwrap();
        let left = store.keys.recipients().await.unwrap();
        assert!(left.iter().all(|key| !key.held), "{context}");
        let covers = site.roots().slots().unwrap();
        assert!(
            covers.iter().all(|s| matches!(s, KeySlot::Root(_))),
            "{context}: {covers:?}"
        );
    }

    // And the store still works: the same order again ends as if nothing had been.
    store.keys.erase(&ward.ada, "e1", at(60)).await.unwrap();
    assert!(
        store.keys.patient_keys(&ward.ada).await.unwrap().is_none(),
        "{context}"
    );
    store.close().await;
}

/// What the prepared store holds.
struct Ward {
    ada: SubjectPseudonym,
    grace: SubjectPseudonym,
    kid: Kid,
    of_ada: Vec<u8>,
    of_grace: Vec<u8>,
}

async fn prepare(site: &Site) -> Ward {
    let store = Store::create(&site.paths(), site.custody(), at(0))
        .await
        .unwrap();
    let ada = store
        .registry
        .add_patient(Some("Ada"), None, at(1))
        .await
        .unwrap();
    let grace = store
        .registry
        .add_patient(Some("Grace"), None, at(1))
        .await
        .unwrap();
    store
        .keys
        .put_secret("audit", b"signing key")
        .await
        .unwrap();
    let made = CertificateAuthority::create(at(0)).unwrap();
    let authority = authority(&made);
    let key = authority
        .issue_recipient(KeyEpoch(0), at(0), at(86_400), default_backend())
        .unwrap();
    store
        .keys
        .put_recipient(&key, KeyEpoch(0), at(0), at(86_400))
        .await
        .unwrap();
    let keys = store.keys.patient_keys(&ada).await.unwrap().unwrap();
    let of_grace = store.keys.patient_keys(&grace).await.unwrap().unwrap();
    let ward = Ward {
        of_ada: keys.current().seal(b"test", b"ada").unwrap(),
        of_grace: of_grace.current().seal(b"test", b"grace").unwrap(),
        kid: keys.current().kid().clone(),
        ada,
        grace,
    };
    store.close().await;
    ward
}

/// The data of before an erasure beside the roots and key snapshots of after it.
async fn old_copy(prepared: &Site, ward: &Ward, ground: &Path) -> Site {
    let site = prepared.copy(&ground.join("old-copy"));
    let store = site.open().await.unwrap();
    store.keys.erase(&ward.ada, "e1", at(20)).await.unwrap();
    store.close().await;
    fs::remove_dir_all(site.paths().data()).unwrap();
    copy_tree(prepared.paths().data(), site.paths().data());
    site
}

fn authority(made: &vitalseal_crypto::NewAuthority) -> CertificateAuthority {
    CertificateAuthority::open(
        &made.issuing_key_pem,
        &made.issuing_cert_pem,
        &made.root_cert_pem,
    )
    .unwrap()
}

/// A directory with a data directory, its root keys and a place for key snapshots.
struct Site(PathBuf);

impl Site {
    fn below(dir: &Path) -> Self {
        fs::create_dir(dir).unwrap();
        Self(dir.to_path_buf())
    }

    fn paths(&self) -> StorePaths {
        StorePaths::new(&self.0.join("data"), None)
    }

    fn roots(&self) -> FileRootProvider {
        FileRootProvider::new(self.paths().root_keys())
    }

    fn custody(&self) -> KeyCustody {
        KeyCustody {
            roots: Arc::new(self.roots()),
            snapshots: vec![self.paths().default_snapshots()],
        }
    }

    async fn open(&self) -> Result<Store, vitalseal_storage::StoreError> {
        Store::open(&self.paths(), self.custody(), at(100)).await
    }

    fn copy(&self, dir: &Path) -> Self {
        fs::create_dir(dir).unwrap();
        let copy = Self(dir.join("site"));
        copy_tree(&self.0, &copy.0);
        copy
    }

    /// SQLite's shared index lives in memory: a power cut takes it, and it is rebuilt from the log.
    fn forget_shared_memory(&self) {
        for entry in fs::read_dir(self.paths().data()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with("-shm") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

fn compile(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/interpose.c");
    let library = dir.join("interpose.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .arg(&library)
        .arg(source)
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("a C compiler, which the dependencies need too");
    assert!(built.success());
    library
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());
    &RUNTIME
}

/// Seconds after some instant of 2026.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + seconds).unwrap()
}
