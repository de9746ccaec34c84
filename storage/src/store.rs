//! A whole store: made, opened, flushed, read at one instant, closed.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use vitalseal_crypto::{KeyEpoch, SubjectPseudonym, default_backend};
use zeroize::Zeroizing;

use crate::backup;
use crate::catalog::{Catalog, DataFile, Loss, SnapshotId};
use crate::crash::CrashHook;
use crate::database::{self, Database, parsed, us};
use crate::durable;
pub use crate::error::StoreError;
use crate::files::SealedFiles;
use crate::flush::{self, FlushReport};
use crate::inbox::Inbox;
use crate::inbox::rows;
use crate::keys::tree::Tree;
use crate::keys::{
    KeyCustody, KeyError, KeySlot, KeyStore, RootError, epochs, secrets, snapshot, store_keys,
};
use crate::lock::StoreLock;
use crate::opening;
use crate::paths::StorePaths;
use crate::ports::Authorized;
use crate::registry::Registry;
use crate::space::Space;
use crate::upkeep::Upkeep;

/// One consistent cut: every admitted row of an authorized patient is in `hot` or in one of
/// `files`, never in both.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The set of files that this is a cut of.
    pub snapshot: SnapshotId,
    /// Rows that are in no file yet, of authorized patients only, in the columns of
    /// [`crate::schema::sealed_rows`].
    pub hot: RecordBatch,
    /// All files. They hold rows of other patients too: the reader selects by `subject`.
    pub files: Arc<[DataFile]>,
    /// Everything that was lost to damage, of other patients too.
    pub losses: Arc<[Loss]>,
}

/// An open store. Clones share it; it closes with the last, or by [`Store::close`].
#[derive(Clone)]
pub struct Store {
    /// Patients, devices, people, incidents.
    pub registry: Registry,
    /// Durable intake and hot tier.
    pub inbox: Inbox,
    /// Key tree and secrets.
    pub keys: KeyStore,
    /// Which files there are.
    pub catalog: Catalog,
    /// What is in them.
    pub files: SealedFiles,
    /// Whether there is room for messages.
    pub space: Space,
    shared: Arc<Shared>,
}

struct Shared {
    paths: StorePaths,
    db: Database,
    flushing: Arc<Mutex<()>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    crash: CrashHook,
    upkeep: Upkeep,
}

impl Store {
    /// Makes a new store: directories, those for key snapshots among them, databases, root epoch 0, service and
    /// quarantine page.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], [`StoreError::Exists`], [`StoreError::RootKeysExist`] and
    /// [`StoreError::Locked`] before anything was made; others when something could not be made
    /// durable.
    pub async fn create(
        paths: &StorePaths,
        custody: impl Into<KeyCustody>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let custody = custody.into();
        let data = paths.data();
        refuse_strangers(paths)?;
        durable::create_dir(data)?;
        let lock = lock(paths)?;
        if paths.registry().exists() || paths.inbox().exists() {
            return Err(StoreError::Exists(data.to_path_buf()));
        }
        let roots = &custody.roots;
        let slots = roots.slots().map_err(KeyError::from)?;
        if let Some(first) = slots.first() {
            let epochs = epochs(*first, &slots);
            return Err(StoreError::RootKeysExist {
                place: roots.name().to_owned(),
                epochs,
            });
        }
        durable::create_dir(&paths.parquet())?;
        for place in &custody.snapshots {
            durable::create_dir(place)?;
        }
        Inbox::create(&paths.inbox()).await?;
        let db = opening::create(paths).await?;
        let root = roots
            .create(KeySlot::Root(KeyEpoch(0)), default_backend())
            .map_err(KeyError::from)?;
        // Tables and first keys in one transaction: without its version number it is no store.
        let mut tx = db.begin().await?;
        database::lay_out(opening::SCHEMA, opening::VERSION, tx.connection()).await?;
        let mut store_id = [0; 16];
        default_backend().fill_random(&mut store_id)?;
        sqlx::query("INSERT INTO store (id, store_id, created_at_us) VALUES (1, $1, $2)")
            .bind(hex::encode(store_id))
            .bind(us(now))
            .execute(tx.connection())
            .await?;
        let tree = Tree::plant(root, roots.name(), default_backend(), tx.connection(), now).await?;
        let mut secret = Zeroizing::new([0; 32]);
        default_backend().fill_random(secret.as_mut_slice())?;
        secrets::write(
            backup::SECRET,
            secret.as_slice(),
            &tree.service,
            tx.connection(),
        )
        .await?;
        tx.commit().await?;
        match Self::assemble(paths, custody, db, tree, lock).await {
            Ok(store) => store.with_place().await,
            Err(error) => {
                opening::remove(paths).await;
                Err(error)
            }
        }
    }

    /// Opens a store, and first finishes an erasure or a flush that was interrupted; an erasure that waits for a place of
    /// key snapshots goes on waiting. A copy of the data directory from before an erasure is joined with the newest key
    /// snapshot of its store: the erased are gone from it then.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NotFound`], [`StoreError::Incomplete`],
    /// [`StoreError::Version`]; [`StoreError::RootMissing`] when the root key that the registry
    /// needs does not exist, which is how a copy from before an erasure answers where there is no key snapshot;
    /// [`StoreError::Join`] when there is one and it cannot be joined; others when
    /// something cannot be read or a recovery cannot be finished.
    pub async fn open(
        paths: &StorePaths,
        custody: impl Into<KeyCustody>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let store = Self::open_alone(paths, custody, now).await?;
        match store.keys.resume(now).await {
            Ok(()) => {}
            // Nobody comes back by it, and devices wait: whoever serves tries again.
            Err(error @ KeyError::Snapshot { .. }) => tracing::error!(
                error = &error as &dyn Error,
                "an erasure or rotation stays unfinished and its old root key still exists"
            ),
            Err(error) => {
                store.close().await;
                return Err(error.into());
            }
        }
        Ok(store)
    }

    /// Opens a store and touches nothing outside of its directory: no place gets a snapshot, no root is destroyed.
    pub(crate) async fn open_alone(
        paths: &StorePaths,
        custody: impl Into<KeyCustody>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let custody = custody.into();
        let data = paths.data();
        if !opening::is_there(paths) {
            return Err(StoreError::NotFound(data.to_path_buf()));
        }
        let lock = lock(paths)?;
        let db = opening::open(paths).await?;
        snapshot::join(&db, &custody, now)
            .await
            .map_err(|cause| StoreError::Join {
                data: data.to_path_buf(),
                cause,
            })?;
        let mut conn = db.pool().acquire().await?;
        let tree = Tree::open(custody.roots.as_ref(), &mut conn)
            .await
            .map_err(|e| match e {
                KeyError::Root(cause @ RootError::Missing { slot, .. }) => {
                    StoreError::RootMissing {
                        epoch: slot.epoch(),
                        data: data.to_path_buf(),
                        looked: snapshot::places(&custody),
                        cause,
                    }
                }
                e => e.into(),
            })?;
        drop(conn);
        Self::assemble(paths, custody, db, tree, lock).await
    }

    async fn assemble(
        paths: &StorePaths,
        custody: KeyCustody,
        db: Database,
        tree: Tree,
        lock: StoreLock,
    ) -> Result<Self, StoreError> {
        let erased: Vec<String> =
            sqlx::query_scalar("SELECT subject FROM patients WHERE state = 'erased'")
                .fetch_all(db.pool())
                .await?;
        let erased = erased
            .iter()
            .map(|s| parsed(s))
            .collect::<Result<HashSet<SubjectPseudonym>, _>>()?;
        store_keys::ensure(&tree, &db).await?;
        let quarantine = Arc::clone(&tree.quarantine);
        let space = Space::new(paths);
        let (file, lock) = (paths.inbox(), Arc::new(lock));
        let inbox = Inbox::connect(&file).await?;
        // Until the audit log knows of a join, and that is after this.
        if snapshot::is_joined(&db).await? {
            Inbox::forget_peers(&file).await?;
        }
        let opened = Inbox::open(inbox, &file, quarantine, erased, space.clone(), lock).await;
        let (inbox, writer) = opened.map_err(|cause| unusable(&file, cause))?;
        let crash = CrashHook::default();
        let keys = KeyStore::new(
            db.clone(),
            custody,
            default_backend(),
            tree,
            inbox.clone(),
            crash.clone(),
        );
        let (files, catalog) = match recover(paths, &db, &inbox, &keys, &crash).await {
            Ok(opened) => opened,
            Err(error) => {
                // The inbox's writer holds the store's lock: whoever is told may try again at once.
                inbox.close().await;
                let _ = writer.await;
                return Err(error);
            }
        };
        let registry = Registry::new(db.clone(), keys.clone());
        let shared = Shared {
            paths: paths.clone(),
            db,
            flushing: Arc::default(),
            writer: Mutex::new(Some(writer)),
            crash,
            upkeep: Upkeep::default(),
        };
        Ok(Self {
            registry,
            inbox,
            keys,
            catalog,
            files,
            space,
            shared: Arc::new(shared),
        })
    }

    /// Keeps every flush waiting while the guard lives: what is counted meanwhile is in the inbox or in
    /// a file of the catalog, and not on its way between them.
    pub async fn hold_flushes(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.shared.flushing).lock_owned().await
    }

    /// Moves what is in the inbox to one Parquet file; see the steps in the source of `flush`. One
    /// at a time.
    ///
    /// # Errors
    /// When a step fails. Nothing is lost or doubled: the next flush or [`Store::open`] takes it
    /// up.
    pub async fn flush(&self, now: Timestamp) -> Result<FlushReport, StoreError> {
        let store = self.clone();
        // A task of its own: a caller that goes away must not leave it between two steps while the
        // store lives on.
        let flushed = tokio::spawn(async move {
            let _alone = store.shared.flushing.lock().await;
            let (inbox, catalog, files) = (&store.inbox, &store.catalog, &store.files);
            let (backend, crash) = (default_backend(), &store.shared.crash);
            flush::flush(inbox, catalog, files, backend, crash, now).await
        });
        flushed.await?
    }

    /// The rows that these patients have at one instant: hot ones, and the files in which the
    /// others are.
    ///
    /// # Errors
    /// When inbox or catalog cannot be read, or more than 2 GiB of envelopes are hot: flush first.
    pub async fn cut(&self, who: &Authorized) -> Result<Cut, StoreError> {
        // First the inbox, then the catalog: what is flushed in between is then in both and dropped
        // here, never in neither.
        let mut hot = rows::of_subjects(who.patients(), self.inbox.database().pool()).await?;
        let now = self.catalog.current().await?;
        hot.retain(|row| row.id > now.high);
        Ok(Cut {
            snapshot: now.id,
            hot: rows::record_batch(&hot)?,
            files: now.files,
            losses: now.losses,
        })
    }

    /// Where this store lives.
    #[must_use]
    pub fn paths(&self) -> &StorePaths {
        &self.shared.paths
    }

    /// Admits nothing from now on; the store is to be closed.
    pub async fn refuse_messages(&self) {
        self.inbox.close().await;
    }

    /// Answers what is queued, then closes the databases and lets go of the lock. Other clones only
    /// get errors from then on.
    pub async fn close(self) {
        let _flushed = self.shared.flushing.lock().await;
        self.inbox.close().await;
        self.shared.db.close().await;
        if let Some(writer) = self.shared.writer.lock().await.take() {
            // A writer that panicked has nothing left to close.
            let _ = writer.await;
        }
    }

    pub(crate) fn crash(&self) -> &CrashHook {
        &self.shared.crash
    }

    pub(crate) fn upkeep(&self) -> &Upkeep {
        &self.shared.upkeep
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("data", &self.shared.paths.data())
            .finish_non_exhaustive()
    }
}

/// Anything in the directory that is not a store's.
fn refuse_strangers(paths: &StorePaths) -> Result<(), StoreError> {
    let data = paths.data();
    let names = durable::names(data)?;
    if names.iter().all(|name| paths.is_ours(&data.join(name))) {
        Ok(())
    } else {
        Err(StoreError::NotEmpty(data.to_path_buf()))
    }
}

/// The data files and their catalog, once it agrees with the inbox and what an interrupted flush left is done.
async fn recover(
    paths: &StorePaths,
    db: &Database,
    inbox: &Inbox,
    keys: &KeyStore,
    crash: &CrashHook,
) -> Result<(SealedFiles, Catalog), StoreError> {
    let files = SealedFiles::open(paths, keys.store_keys().await?, crash.clone())?;
    let catalog = Catalog::new(db.clone(), inbox.clone(), files.clone());
    if inbox.last_number().await? < catalog.current().await?.high {
        return Err(StoreError::InboxBehind(paths.inbox()));
    }
    flush::recover(inbox, &catalog, &files).await?;
    Ok((files, catalog))
}

fn unusable(file: &Path, cause: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::Unusable {
        file: file.to_path_buf(),
        cause: cause.into(),
    }
}

fn lock(paths: &StorePaths) -> Result<StoreLock, StoreError> {
    StoreLock::acquire(&paths.lock())?.ok_or_else(|| StoreError::Locked(paths.data().to_path_buf()))
}
