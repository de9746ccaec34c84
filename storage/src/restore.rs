//! From a backup to a store that may serve: shown to be genuine, unpacked, joined with the newest key snapshot, proved
//! readable.
//!
//! | # | Step | What it refuses |
//! |---|---|---|
//! | 1 | `backup.json` is read, and held against `backup.mac` under a secret from the newest key snapshot | no snapshot, no root; a backup that somebody rewrote: nothing else of it was opened |
//! | 2 | every file that it names is copied, and the *copy* is held against its size and digest | a damaged or incomplete directory |
//! | 3 | the copy is opened: the newest key snapshot replaces the key tree, and its erasure ledger is replayed | a patient without a key |
//! | 4 | rows of every erased patient are deleted from the inbox, whatever the copied ledger says of it | – |
//! | 5 | of each patient, in the inbox and in every file, the first envelope is opened | ciphertext that its key does not open |
//! | 6 | erasures that the ledger leaves open are finished: a key snapshot to every place, then the end of older roots | a place that does not take it |
//!
//! Where root keys and snapshots are is for the caller to say, and never taken from the backup. Until 6 they are only
//! read: a restore that fails leaves them as they were.
//!
//! All of it happens in a directory that nobody serves from; the caller gives it its name when the last step held, and
//! removes it otherwise. What is opened in step 5 is looked at by nobody and leaves no trace.

mod received;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::SubjectPseudonym;

pub(crate) use self::received::{Authentic, Received};
use crate::backup;
use crate::database::{at_opt, parsed};
use crate::durable::{self, FileError};
use crate::keys::{JoinRefused, KeyCustody};
use crate::opening;
use crate::paths::StorePaths;
use crate::registry::PatientState;
use crate::store::{Store, StoreError};
use crate::stored::{SampleError, StoredSample};

/// What a restored store holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The backup, as the audit log names it.
    pub backup: String,
    /// When it was taken: what was acknowledged before is there.
    pub taken_at: Timestamp,
    /// Patients whose keys are there; of each of those with readings, stored envelopes were opened.
    pub patients: u64,
    /// Envelopes that were opened.
    pub opened: u64,
    /// Erased patients: they stay gone.
    pub erased: u64,
    /// Erasures that the backup did not know of.
    pub erasures_replayed: u64,
    /// Messages.
    pub messages: u64,
    /// When the newest of them arrived.
    pub newest_at: Option<Timestamp>,
}

/// A backup was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The directory is no backup.
    #[error("{0} is no whole backup of this version of vitalseal")]
    NotABackup(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Written by another version.
    #[error(
        "{path} is a backup of format {found}, this program reads format {}",
        backup::FORMAT
    )]
    Format {
        /// The backup.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It names a file that could lie anywhere.
    #[error("the backup names a file outside itself: {0}; it was not written by vitalseal")]
    Outside(String),
    /// A file is not what it was.
    #[error(
        "{0} is not what the backup wrote: size or digest differ; take another copy of the backup"
    )]
    Damaged(PathBuf),
    /// Without a key snapshot nobody can tell who wrote it.
    #[error("finding out by a key snapshot of its store who wrote {0}")]
    Keys(PathBuf, #[source] JoinRefused),
    /// `backup.json` was rewritten.
    #[error(
        "{0} was not written by the store whose key snapshot was found: somebody changed it, or parts of two \
         backups were mixed; nothing else of it was read; take another copy of the backup"
    )]
    Forged(PathBuf),
    /// The newest key snapshot lacks a patient of the backup.
    #[error(
        "the key snapshots that were found do not know every patient of the backup: they are older than it, or from a \
         copy of the store that went its own way; name a place whose snapshots are newer than the backup"
    )]
    KeysBehind(#[source] Box<StoreError>),
    /// The restored store does not open.
    #[error("opening the restored store")]
    Store(#[source] Box<StoreError>),
    /// A patient whom nobody knows.
    #[error(
        "{place} holds messages of patient {subject}, whom neither the registry nor the key snapshot knows"
    )]
    Unknown {
        /// The patient.
        subject: SubjectPseudonym,
        /// The file.
        place: String,
    },
    /// A stored message does not open.
    #[error(
        "a message of patient {subject} in {place} does not open under the keys of the key snapshot"
    )]
    Unopened {
        /// The patient.
        subject: SubjectPseudonym,
        /// The file.
        place: String,
        /// Why.
        #[source]
        cause: SampleError,
    },
    /// The file system failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<StoreError> for RestoreError {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause.into())
    }
}

impl Store {
    /// Makes the store of the backup `from` in the new directory of `paths`, and proves that every patient in it is
    /// either readable or erased.
    ///
    /// # Errors
    /// When the backup is not the store's own, or it cannot hold both; the text says for whom and why. Nothing may be
    /// served from `paths` then.
    pub async fn restore(
        from: &Path,
        paths: &StorePaths,
        custody: impl Into<KeyCustody>,
        now: Timestamp,
    ) -> Result<(Self, Restored), RestoreError> {
        let custody = custody.into();
        let (from, keys, data) = (from.to_owned(), custody.clone(), paths.data().to_owned());
        let unpack = move || {
            let backup = Received::read(&from)?.authenticate(&keys)?;
            backup.unpack(&data)?;
            Ok::<_, RestoreError>(backup)
        };
        let backup = tokio::task::spawn_blocking(unpack).await;
        let backup = backup.map_err(StoreError::from)??;
        opening::bring_in(paths).await?;
        let store = match Self::open_alone(paths, custody, now).await {
            Ok(store) => store,
            Err(cause) => {
                opening::remove(paths).await;
                return Err(refused(cause));
            }
        };
        match finish(&store, backup, now).await {
            Ok(restored) => Ok((store, restored)),
            Err(error) => {
                store.abandon().await;
                Err(error)
            }
        }
    }

    /// A store that was only just made, once its files have a place that nobody else has.
    pub(crate) async fn with_place(self) -> Result<Self, StoreError> {
        match self.files.claim(&[]).await {
            Ok(()) => Ok(self),
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
        }
    }

    /// Closes a store that was only just made, by [`Store::create`] or [`Store::restore`], and that is not to be: what
    /// it put on a server or into a bucket is removed. The directories are left to the caller, who made them.
    pub async fn abandon(self) {
        let paths = self.paths().clone();
        if let Err(error) = self.files.give_up().await {
            tracing::error!(%error, "emptying the bucket of a store that was not completed");
        }
        self.close().await;
        opening::remove(&paths).await;
    }
}

async fn finish(
    store: &Store,
    backup: Authentic,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    bring_in_files(store).await?;
    let restored = prove(store, backup).await?;
    store.keys.resume(now).await.map_err(StoreError::from)?;
    Ok(restored)
}

/// Moves the unpacked data files to the bucket, if the store is to have them in one: into an empty one, since what is in
/// any other may be the newer part of a store that lives.
async fn bring_in_files(store: &Store) -> Result<(), StoreError> {
    if store.files.is_local() {
        return Ok(());
    }
    store.files.claim(&[]).await?;
    for file in store.catalog.files().await?.iter() {
        let unpacked = store.paths().parquet().join(file.path.as_ref());
        let bytes = durable::read(&unpacked)?;
        store
            .files
            .put_bytes(file.path.as_ref(), bytes.into())
            .await?;
        durable::remove(&unpacked)?;
    }
    Ok(())
}

fn refused(cause: StoreError) -> RestoreError {
    match cause {
        StoreError::Join {
            cause: JoinRefused::Unreadable { .. },
            ..
        } => RestoreError::KeysBehind(cause.into()),
        _ => cause.into(),
    }
}

async fn prove(store: &Store, backup: Authentic) -> Result<Restored, RestoreError> {
    let states: HashMap<SubjectPseudonym, PatientState> = store
        .registry
        .patient_states()
        .await
        .map_err(StoreError::from)?
        .into_iter()
        .map(|patient| (patient.subject, patient.state))
        .collect();
    for (subject, _) in states
        .iter()
        .filter(|(_, state)| **state == PatientState::Erased)
    {
        store.inbox.purge(subject).await.map_err(StoreError::from)?;
    }
    let count = |state| states.values().filter(|s| **s == state).count() as u64;
    let erased = count(PatientState::Erased);
    let mut restored = Restored {
        backup: backup.id,
        taken_at: backup.manifest.taken_at,
        patients: count(PatientState::Active),
        opened: 0,
        erased,
        erasures_replayed: erased.saturating_sub(backup.manifest.erasures),
        messages: 0,
        newest_at: None,
    };
    open_hot(store, &states, &mut restored).await?;
    for file in store.catalog.files().await?.iter() {
        restored.messages += file.messages;
        restored.newest_at = restored.newest_at.max(Some(file.received_last_at));
        let place = format!("{}/{}", store.files.place(), file.path);
        for (subject, sample) in store.firsts_of(file).await? {
            restored.opened += open(store, &states, subject, &sample, &place).await?;
        }
    }
    Ok(restored)
}

/// What is in no file yet: one envelope of each patient, and the count.
async fn open_hot(
    store: &Store,
    states: &HashMap<SubjectPseudonym, PatientState>,
    restored: &mut Restored,
) -> Result<(), RestoreError> {
    let place = store.paths().inbox().display().to_string();
    let pool = store.inbox.database().pool();
    let newest: Option<i64> = sqlx::query_scalar("SELECT MAX(received_at_us) FROM inbox")
        .fetch_one(pool)
        .await
        .map_err(StoreError::from)?;
    restored.newest_at = at_opt(newest).map_err(StoreError::from)?;
    restored.messages = store.inbox.pending().await.map_err(StoreError::from)?.0;
    let mut rows = sqlx::query(
        "SELECT subject, envelope FROM inbox WHERE id IN (SELECT MIN(id) FROM inbox GROUP BY subject)",
    )
    .fetch(pool);
    while let Some(row) = rows.try_next().await.map_err(StoreError::from)? {
        let subject = row.try_get("subject").map_err(StoreError::from)?;
        let subject = parsed(subject).map_err(StoreError::from)?;
        let envelope = row.try_get("envelope").map_err(StoreError::from)?;
        let sample = StoredSample::Envelope(envelope);
        restored.opened += open(store, states, subject, &sample, &place).await?;
    }
    Ok(())
}

/// Opens what is stored of a patient, and counts it; that of an erased patient is not looked at.
async fn open(
    store: &Store,
    states: &HashMap<SubjectPseudonym, PatientState>,
    subject: SubjectPseudonym,
    sample: &StoredSample,
    place: &str,
) -> Result<u64, RestoreError> {
    let place = || place.to_owned();
    match states.get(&subject) {
        Some(PatientState::Erased) => return Ok(0),
        Some(PatientState::Active) => {}
        None => {
            let place = place();
            return Err(RestoreError::Unknown { subject, place });
        }
    }
    let keys = store
        .keys
        .patient_keys(&subject)
        .await
        .map_err(StoreError::from)?;
    let Some(keys) = keys else {
        let place = place();
        return Err(RestoreError::Unknown { subject, place });
    };
    match sample.open(&keys) {
        Ok(()) => Ok(1),
        Err(cause) => {
            let place = place();
            Err(RestoreError::Unopened {
                subject,
                place,
                cause,
            })
        }
    }
}
