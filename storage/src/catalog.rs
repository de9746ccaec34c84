//! Which files there are, from when to when each counts, up to where the inbox is in them, and how much is held of whom.
//!
//! | Table | What it says |
//! |---|---|
//! | `snapshots` | every change of the set of files, numbered; the highest is the present |
//! | `data_files` | every file: planned, live or ended, with its ranges and the snapshots in which it begins and ends |
//! | `watermarks` | up to which row an inbox is in files |
//! | `tombstones` | the erased, and when the last byte of their ciphertext went |
//! | `losses` | what was damaged and set aside |
//!
//! A file is written, then one transaction makes it count; a reader holds the snapshot that it began with, and what ended
//! since stays in its place until nobody can hold it any more. No list of a directory or bucket is ever taken for the
//! truth. What a registry that goes back loses of it stands in the inbox as well: see `settle`. Nothing here opens an
//! envelope.

mod change;
mod extent;
mod file;
mod garbage;
mod holdings;
mod losses;
mod noted;
mod settle;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use self::change::{Change, ChangeId, ChangeKind, Plan};
pub(crate) use self::extent::Extent;
pub use self::file::{DataFile, FileKind, MAX_LEVEL, TableKind};
pub use self::garbage::{EndedFile, Tombstone};
pub use self::holdings::Holding;
pub(crate) use self::losses::EVIDENCE_LOST;
pub use self::losses::{Loss, Unproven};
pub use self::settle::Mended;
use self::settle::Newest;
pub(crate) use self::settle::Settled;
use crate::database::{Database, number};
use crate::files::SealedFiles;
use crate::inbox::Inbox;
use crate::store::StoreError;

/// Numbers the states of the set of files; 0 is the empty one that a store begins with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SnapshotId(pub u64);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The set of files at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its number.
    pub id: SnapshotId,
    /// Every live file, oldest first.
    pub files: Arc<[DataFile]>,
    /// Everything that was lost to damage until then, in the order in which it was found.
    pub losses: Arc<[Loss]>,
    /// Inbox rows up to this one are in the files.
    pub(crate) high: i64,
}

/// Handle on the catalog; clones share it.
#[derive(Clone)]
pub struct Catalog {
    db: Database,
    inbox: Inbox,
    data: SealedFiles,
    /// The last snapshot that was read and agreed on: one never changes, so nothing of it is read again.
    known: Arc<Mutex<Option<Snapshot>>>,
    /// What registry and journal last agreed on, and the turn to see to it.
    agreed: Arc<Mutex<Newest>>,
    settling: Arc<tokio::sync::Mutex<()>>,
    /// What was made again, until the audit log has it.
    mended: Arc<Mutex<Option<Mended>>>,
    /// Every snapshot that somebody may still hold.
    handed: Arc<Mutex<Vec<Weak<[DataFile]>>>>,
    /// What living [`Plan`]s name.
    writing: Arc<Mutex<HashSet<String>>>,
}

impl Catalog {
    pub(crate) fn new(db: Database, inbox: Inbox, data: SealedFiles) -> Self {
        Self {
            db,
            inbox,
            data,
            known: Arc::default(),
            agreed: Arc::default(),
            settling: Arc::default(),
            mended: Arc::default(),
            handed: Arc::default(),
            writing: Arc::default(),
        }
    }

    /// The present set of files.
    ///
    /// # Errors
    /// When the registry cannot be read; [`StoreError::RegistryBehind`] when it went back and cannot be brought forward.
    pub async fn current(&self) -> Result<Snapshot, StoreError> {
        // What was agreed on before it is read has to be in it: rows that went to those files are in the inbox no more.
        let agreed = self.agreed();
        if let Some(snapshot) = self.read(&agreed).await? {
            return Ok(snapshot);
        }
        let agreed = self.settle().await?.newest().clone();
        let snapshot = self.read(&agreed).await?;
        snapshot.ok_or_else(|| agreed.gone())
    }

    /// The present set of files, if the registry has all that was agreed on.
    async fn read(&self, agreed: &Newest) -> Result<Option<Snapshot>, StoreError> {
        let known = self.known().clone();
        // When nothing has changed, one statement is all that this costs.
        let newest = Newest::of(&mut *self.db.pool().acquire().await?).await?;
        let is_known = |known: &&Snapshot| newest == *agreed && known.id == newest.id;
        if let Some(known) = known.as_ref().filter(is_known) {
            return Ok(Some(known.clone()));
        }
        let mut tx = self.db.pool().begin().await?;
        let newest = Newest::of(&mut tx).await?;
        if !newest.follows(agreed, &mut tx).await? {
            return Ok(None);
        }
        let id = newest.id;
        let high: Option<i64> = sqlx::query_scalar("SELECT high FROM watermarks WHERE inbox = $1")
            .bind(change::INBOX)
            .fetch_optional(&mut *tx)
            .await?;
        let live: Vec<String> =
            sqlx::query_scalar("SELECT file FROM data_files WHERE state = 'live'")
                .fetch_all(&mut *tx)
                .await?;
        let after = match &known {
            Some(known) => number(known.id.0)?,
            None => -1,
        };
        let new = sqlx::query(
            "SELECT * FROM data_files WHERE state = 'live' AND begin_snapshot > $1 ORDER BY begin_snapshot, file",
        )
        .bind(after)
        .fetch_all(&mut *tx)
        .await?;
        let losses = losses::up_to_now(known.as_ref().map(|known| &known.losses), &mut tx).await?;
        tx.rollback().await?;
        let live: HashSet<String> = live.into_iter().collect();
        let kept = known.iter().flat_map(|known| known.files.iter());
        let mut files: Vec<DataFile> = kept
            .filter(|file| live.contains(file.path.as_ref()))
            .cloned()
            .collect();
        for row in &new {
            files.push(DataFile::read(row)?);
        }
        let snapshot = Snapshot {
            id,
            files: files.into(),
            losses,
            high: high.unwrap_or(0),
        };
        let mut known = self.known();
        // Another reader may be ahead. What is not agreed on may be lost yet, and another change get its number.
        if newest == *agreed && known.as_ref().is_none_or(|known| known.id < id) {
            *known = Some(snapshot.clone());
        }
        let mut handed = self.handed();
        handed.retain(|files| files.strong_count() > 0);
        handed.push(Arc::downgrade(&snapshot.files));
        drop(handed);
        Ok(Some(snapshot))
    }

    /// Every live file, oldest first.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn files(&self) -> Result<Arc<[DataFile]>, StoreError> {
        Ok(self.current().await?.files)
    }

    /// The names of all files, planned, live and ended.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn names(&self) -> Result<Vec<String>, sqlx::Error> {
        let names = sqlx::query_scalar("SELECT file FROM data_files");
        names.fetch_all(self.db.pool()).await
    }

    /// Files of every snapshot that somebody holds, the present one among them.
    pub(crate) async fn read_now(&self) -> Result<HashSet<String>, StoreError> {
        // Nothing is held by what is remembered but the present.
        let present = self.current().await?;
        let held: Vec<_> = self.handed().iter().filter_map(Weak::upgrade).collect();
        let held = held.iter().chain([&present.files]);
        let files = held.flat_map(|files| files.iter());
        Ok(files.map(|file| file.path.to_string()).collect())
    }

    fn handed(&self) -> MutexGuard<'_, Vec<Weak<[DataFile]>>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Option<Snapshot>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written_now(&self) -> MutexGuard<'_, HashSet<String>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}
