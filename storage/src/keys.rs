//! The key tree at rest: root → page → patient's KEK, and how a patient is forgotten.
//!
//! ```text
//! root key, epoch e          RootProvider, outside the data directory
//!   ├─ page key (service)    seals the secrets: CA, audit, TOTP, the store's keys over its files
//!   ├─ page key (quarantine) seals refused bodies
//!   └─ page key 1, 2, …      one per about 1,000 patients
//!        └─ KEK              random; wraps the patient's content keys, seals the identity
//!
//! cover, epoch r             RootProvider, outside the data directory
//!   └─ envelope key          of the server, private part; both end with the epoch
//! ```
//!
//! Every arrow is an AES key wrap stored in the registry. No key stands in it, or in any file of
//! the data directory, unwrapped. Keys in memory are boxed, zeroized when dropped, and blank in
//! `Debug`.

mod age;
mod cache;
mod custody;
mod erasure;
mod ledger;
mod recipients;
mod root;
pub(crate) mod secrets;
pub(crate) mod snapshot;
pub(crate) mod store_keys;
pub(crate) mod tree;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Row as _;
use tokio::sync::{Mutex, MutexGuard, OnceCell, RwLock, RwLockReadGuard};
use tokio::task::JoinError;
use vitalseal_crypto::{
    Backend, KeyEpoch, PatientKeys, RecipientKeyRing, RootKey, SubjectPseudonym,
};

use self::age::{Age, Marks};
use self::cache::PatientKeyCache;
pub use self::custody::KeyCustody;
pub use self::ledger::{KeyErasure, LedgerRow};
pub use self::recipients::RecipientRow;
pub(crate) use self::root::epochs;
pub use self::root::{FileRootProvider, KeySlot, NewRoot, RootError, RootProvider};
pub use self::snapshot::{
    JoinRefused, Joined, SnapshotError, SnapshotId, SnapshotPlace, SnapshotReport,
};
pub use self::store_keys::StoreKeys;
use self::tree::Tree;
use crate::crash::CrashHook;
use crate::database::{Database, at, count};
use crate::inbox::{Inbox, InboxError};

/// The key store failed. No text here holds key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key tables could not be read or written.
    #[error("using the key tables of the registry")]
    Sql(#[from] sqlx::Error),
    /// The root provider failed.
    #[error("using the root key")]
    Root(#[from] RootError),
    /// Something did not unwrap or open: damaged, or the root belongs to another store.
    #[error(
        "opening or sealing a stored key; if nothing is damaged, these root keys belong to another store"
    )]
    Crypto(#[from] vitalseal_crypto::keys::KeyError),
    /// The patient's rows could not be taken out of the inbox.
    #[error("deleting an erased patient's rows from the inbox")]
    Inbox(#[from] InboxError),
    /// There is no such patient.
    #[error("there is no patient {0}")]
    UnknownPatient(SubjectPseudonym),
    /// The patient was erased before.
    #[error("patient {0} was erased before")]
    AlreadyErased(SubjectPseudonym),
    /// The secrets lack the key that files are written under.
    #[error(
        "the registry holds no key for the store's files; it was changed by hand, so restore a backup"
    )]
    NoStoreKey,
    /// What was written does not read back. The old root still exists, so nothing is lost.
    #[error(
        "the erasure is stored but did not read back, so the old root key was kept: {0}; keep a copy of the data \
         directory and look at its disk; a running server tries again each minute"
    )]
    ReadBack(&'static str),
    /// A place for key snapshots did not take one. No root was destroyed.
    #[error(
        "writing a key snapshot to {place}: no root key was destroyed, and what an erasure or a rotation began is not \
         final; make the place available again, or take it out of [keys] snapshots"
    )]
    Snapshot {
        /// The place.
        place: PathBuf,
        /// Why it did not.
        #[source]
        cause: Box<SnapshotError>,
    },
    /// Another copy of this store goes on in its place.
    #[error(
        "another copy of this store turned the key tree, or the root keys are not where they were; no root was \
         destroyed: stop this server, and serve the data directory of that copy alone"
    )]
    Overtaken(#[source] Box<SnapshotError>),
    /// The provider said that it destroyed a key and still has it.
    #[error(
        "the {0} is still there after its provider destroyed it, so what it was to end is not final: look at the \
         provider (rights to the directory, the token); a running server tries again each minute"
    )]
    RootSurvived(KeySlot),
    /// A file could not be used.
    #[error("working on the key tree")]
    Io(#[from] io::Error),
    /// A task ended before its time.
    #[error("the key store's task ended early")]
    Task(#[from] JoinError),
}

/// What a change of root without an erasure did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootRotation {
    /// Root that is gone.
    pub root_epoch_destroyed: KeyEpoch,
    /// Root that took its place.
    pub root_epoch: KeyEpoch,
    /// Pages wrapped anew.
    pub pages_rewrapped: u64,
}

/// Figures of the key tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyStatus {
    /// Present root.
    pub root_epoch: KeyEpoch,
    /// Since when.
    pub root_since: Timestamp,
    /// Roots that nothing needs any more and that still exist: an erasure or rotation is unfinished.
    pub roots_retiring: u64,
    /// Who holds it.
    pub root_provider: String,
    /// Pages, those of the service and the quarantine among them.
    pub pages: u64,
    /// Patients' KEKs, retired ones among them.
    pub keks: u64,
    /// KEKs that a rotation retired.
    pub keks_retired: u64,
    /// Erasures so far.
    pub erasures: u64,
    /// Of these, those whose old root may still exist.
    pub erasures_unfinished: u64,
}

/// Handle on the key tree; clones share it.
#[derive(Clone)]
pub struct KeyStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    db: Database,
    roots: Arc<dyn RootProvider>,
    /// Where key snapshots go.
    places: Vec<PathBuf>,
    backend: &'static dyn Backend,
    inbox: Inbox,
    crash: CrashHook,
    /// Read while rows and keys of one epoch are used together, written while the root turns.
    tree: RwLock<Tree>,
    /// One erasure at a time, from its first step to its last.
    turning: Mutex<()>,
    patients: PatientKeyCache,
    ring: Mutex<Option<Arc<RecipientKeyRing>>>,
    store_keys: OnceCell<Arc<StoreKeys>>,
    /// The tree as far as this process saw it.
    seen: Mutex<Age>,
    /// What every place has.
    snapshotted: Mutex<Option<Marks>>,
}

impl Inner {
    /// Runs a provider's call where it may block.
    async fn with_roots<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn RootProvider) -> Result<T, RootError> + Send + 'static,
    ) -> Result<T, KeyError> {
        let roots = Arc::clone(&self.roots);
        Ok(tokio::task::spawn_blocking(move || call(roots.as_ref())).await??)
    }

    /// Destroys a key of the provider, and sees that it is gone.
    async fn destroy(&self, slot: KeySlot) -> Result<(), KeyError> {
        self.with_roots(move |roots| roots.destroy(slot)).await?;
        match self.with_roots(move |roots| roots.load(slot, &[])).await {
            Err(KeyError::Root(RootError::Missing { .. })) => Ok(()),
            _ => Err(KeyError::RootSurvived(slot)),
        }
    }

    /// The current root as the registry names it, anew: the one in memory would outlive its end by another copy.
    async fn load_current_root(&self, epoch: KeyEpoch, blob: Vec<u8>) -> Result<RootKey, KeyError> {
        let load = move |roots: &dyn RootProvider| roots.load(KeySlot::Root(epoch), &blob);
        self.with_roots(load).await.map_err(|error| match error {
            KeyError::Root(cause @ RootError::Missing { .. }) => {
                KeyError::Overtaken(Box::new(cause.into()))
            }
            error => error,
        })
    }
}

impl KeyStore {
    pub(crate) fn new(
        db: Database,
        custody: KeyCustody,
        backend: &'static dyn Backend,
        tree: Tree,
        inbox: Inbox,
        crash: CrashHook,
    ) -> Self {
        let (tree, turning) = (RwLock::new(tree), Mutex::default());
        let (patients, ring) = (PatientKeyCache::default(), Mutex::default());
        Self {
            inner: Arc::new(Inner {
                db,
                roots: custody.roots,
                places: custody.snapshots,
                backend,
                inbox,
                crash,
                tree,
                turning,
                patients,
                ring,
                store_keys: OnceCell::new(),
                seen: Mutex::default(),
                snapshotted: Mutex::default(),
            }),
        }
    }

    /// The patient's keys; `None` when there never were any or they were erased.
    ///
    /// # Errors
    /// When the registry cannot be read or a stored key does not unwrap.
    pub async fn patient_keys(
        &self,
        subject: &SubjectPseudonym,
    ) -> Result<Option<Arc<PatientKeys>>, KeyError> {
        if let Some(keys) = self.inner.patients.find(subject) {
            return Ok(Some(keys));
        }
        // Seldom, so in a box: whoever asks for keys that are in memory carries no query along.
        Box::pin(self.read_patient_keys(subject)).await
    }

    async fn read_patient_keys(
        &self,
        subject: &SubjectPseudonym,
    ) -> Result<Option<Arc<PatientKeys>>, KeyError> {
        let ticket = self.inner.patients.ticket();
        let tree = self.inner.tree.read().await;
        let rows = sqlx::query(
            "SELECT k.page, k.kid, k.wrapped AS kek, k.retired_at_us, p.wrapped AS page_wrap \
             FROM keks k JOIN key_pages p ON p.page = k.page WHERE k.subject = $1",
        )
        .bind(subject.as_str())
        .fetch_all(self.inner.db.pool())
        .await?;
        let Some(keys) = tree.patient_keys(&rows)?.map(Arc::new) else {
            return Ok(None);
        };
        self.inner
            .patients
            .insert(ticket, subject.clone(), Arc::clone(&keys));
        Ok(Some(keys))
    }

    /// The keys of several patients; those without any are left out.
    ///
    /// # Errors
    /// As [`KeyStore::patient_keys`].
    pub async fn keys_of<'a>(
        &self,
        subjects: impl Iterator<Item = &'a SubjectPseudonym> + Send,
    ) -> Result<HashMap<SubjectPseudonym, Arc<PatientKeys>>, KeyError> {
        let mut found = HashMap::new();
        for subject in subjects {
            if let Some(keys) = self.patient_keys(subject).await? {
                found.insert(subject.clone(), keys);
            }
        }
        Ok(found)
    }

    /// Erases the patient's key, and with it everything sealed under it, for ever; see the steps in
    /// the source of `keys::erasure`. Goes on even if the caller stops waiting.
    ///
    /// # Errors
    /// [`KeyError::UnknownPatient`], [`KeyError::AlreadyErased`] and [`KeyError::Overtaken`] before anything was changed.
    /// After any other, the next erasure or [`crate::Store::open`] finishes what was begun; calling
    /// again with the same id gives the answer that was missed.
    pub async fn erase(
        &self,
        subject: &SubjectPseudonym,
        erasure_id: &str,
        now: Timestamp,
    ) -> Result<KeyErasure, KeyError> {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(erasure::erase(
            inner,
            subject.clone(),
            erasure_id.to_owned(),
            now,
        ))
        .await?
    }

    /// Moves the tree under a new root and destroys the old one.
    ///
    /// # Errors
    /// When a step fails; the next one or [`crate::Store::open`] finishes it.
    pub async fn rotate_root(&self, now: Timestamp) -> Result<RootRotation, KeyError> {
        tokio::spawn(erasure::rotate(Arc::clone(&self.inner), now)).await?
    }

    /// Takes up an erasure or a rotation that could not be finished: a crash, or a place for key snapshots that was
    /// away.
    ///
    /// # Errors
    /// When it still cannot be finished; [`KeyError::Overtaken`], whether there is anything to finish or not.
    pub async fn resume(&self, now: Timestamp) -> Result<(), KeyError> {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let _alone = inner.turning.lock().await;
            erasure::catch_up(&inner).await?;
            snapshot::refuse_if_overtaken(&inner).await?;
            erasure::finish(&inner, now).await
        })
        .await?
    }

    /// Figures of the key tree.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn status(&self) -> Result<KeyStatus, KeyError> {
        let row = sqlx::query(
            "SELECT epoch, started_at_us, \
             (SELECT COUNT(*) FROM root_epochs WHERE state = 'retiring') AS retiring, \
             (SELECT COUNT(*) FROM key_pages) AS pages, (SELECT COUNT(*) FROM keks) AS keks, \
             (SELECT COUNT(*) FROM keks WHERE retired_at_us IS NOT NULL) AS retired, \
             (SELECT COUNT(*) FROM erasure_ledger) AS erasures, \
             (SELECT COUNT(*) FROM erasure_ledger WHERE completed_at_us IS NULL) AS unfinished \
             FROM root_epochs WHERE state = 'current'",
        )
        .fetch_one(self.inner.db.pool())
        .await?;
        Ok(KeyStatus {
            root_epoch: KeyEpoch(count(row.try_get("epoch")?)?),
            root_since: at(row.try_get("started_at_us")?)?,
            roots_retiring: count(row.try_get("retiring")?)?,
            root_provider: self.inner.roots.name().to_owned(),
            pages: count(row.try_get("pages")?)?,
            keks: count(row.try_get("keks")?)?,
            keks_retired: count(row.try_get("retired")?)?,
            erasures: count(row.try_get("erasures")?)?,
            erasures_unfinished: count(row.try_get("unfinished")?)?,
        })
    }

    /// The open tree, for whoever writes keys in a transaction of its own.
    pub(crate) async fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.inner.tree.read().await
    }

    /// Keeps erasures and rotations waiting while the guard lives.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.inner.turning.lock().await
    }

    /// Drops a patient's opened keys, and whatever set of them is being loaded right now.
    pub(crate) fn forget(&self, subject: &SubjectPseudonym) {
        self.inner.patients.purge(subject);
    }

    pub(crate) fn backend(&self) -> &'static dyn Backend {
        self.inner.backend
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").finish_non_exhaustive()
    }
}
