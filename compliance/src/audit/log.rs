//! The handle to the log: everybody else's view of it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tlog_tiles::tlog::{prove_record, record_hash, stored_hash_count};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use vitalseal_crypto::RemoteSigner;
use vitalseal_storage::ports::{AuditError, AuditRecord, AuditSink};
use zeroize::Zeroizing;

use super::identity::{AuditIdentity, AuditKey, KeyMalformed};
use super::proof::InclusionProof;
use super::tree::{Frontier, WantedHashes, tree_error};
use super::verify::{AuditVerification, verify};
use super::writer::{Job, QUEUE, Writer};
use super::{AuditEntry, AuditLogError, SignedCheckpoint, checkpoint, database};

/// Entries read at a time where a whole log may be asked for.
const PAGE: u32 = 1000;

/// A cloneable handle to one audit log.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    identity: AuditIdentity,
    readers: SqlitePool,
    /// `None` once the log was closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog")
            .field("key", self.identity.key())
            .finish_non_exhaustive()
    }
}

/// A new log, and the keys that were drawn for it.
#[derive(Debug)]
pub struct CreatedLog {
    /// The log, empty.
    pub log: AuditLog,
    /// Signer key: for the key store, never for a file in clear.
    pub skey: Zeroizing<String>,
    /// Verifier key: for whoever wants to check the log.
    pub vkey: String,
}

impl AuditLog {
    /// Creates an empty log at `path` under the name `origin` (a host and path, as `c2sp.org/tlog-checkpoint` asks) and
    /// draws its signing key.
    ///
    /// # Errors
    ///
    /// When a log exists there, the origin can not name a key, or the file can not be written.
    pub async fn create(path: &Path, origin: &str) -> Result<CreatedLog, AuditLogError> {
        let (identity, skey) = AuditIdentity::generate(origin)?;
        let log = Self::create_for(path, identity).await?;
        let vkey = log.key().as_str().to_owned();
        Ok(CreatedLog { log, skey, vkey })
    }

    /// Creates an empty log whose Ed25519 key is somewhere else.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::create`], and when that key does not sign.
    pub async fn create_remote(
        path: &Path,
        origin: &str,
        signer: Arc<dyn RemoteSigner>,
    ) -> Result<Self, AuditLogError> {
        Self::create_for(path, AuditIdentity::of_remote(origin, signer)?).await
    }

    async fn create_for(path: &Path, identity: AuditIdentity) -> Result<Self, AuditLogError> {
        if tokio::fs::try_exists(path).await.unwrap_or(true) {
            return Err(AuditLogError::Exists(path.display().to_string()));
        }
        let frontier = Frontier::empty();
        let note = checkpoint::sign(&identity, 0, frontier.root()?)?;
        database::create_file(path).await?;
        let mut conn = database::connect(path).await?;
        database::create_schema(&mut conn).await?;
        sqlx::query("INSERT INTO head (id, note) VALUES (0, $1)")
            .bind(note)
            .execute(&mut conn)
            .await
            .map_err(AuditLogError::database("creating"))?;
        Self::start(path, conn, identity, frontier).await
    }

    /// Opens the log at `path`. What is checked here is quick (signature of the head, counts, the root over the stored
    /// hashes); [`AuditLog::verify`] looks at every record.
    ///
    /// # Errors
    ///
    /// When there is no log, the keys do not fit, or the stored head does not describe what is stored: whoever changed the
    /// file must not get our signature under the change.
    pub async fn open(path: &Path, skey: &str, vkey: &str) -> Result<Self, AuditLogError> {
        Self::open_for(path, || AuditIdentity::parse(skey, vkey)).await
    }

    /// Opens a log whose Ed25519 key is somewhere else.
    ///
    /// # Errors
    ///
    /// As [`AuditLog::open`].
    pub async fn open_remote(
        path: &Path,
        signer: Arc<dyn RemoteSigner>,
        vkey: &str,
    ) -> Result<Self, AuditLogError> {
        Self::open_for(path, || AuditIdentity::remote(signer, vkey)).await
    }

    async fn open_for(
        path: &Path,
        identity: impl FnOnce() -> Result<AuditIdentity, KeyMalformed>,
    ) -> Result<Self, AuditLogError> {
        if !tokio::fs::try_exists(path).await.unwrap_or(false) {
            return Err(AuditLogError::Absent(path.display().to_string()));
        }
        let identity = identity()?;
        let mut conn = database::connect(path).await?;
        let frontier = check_head(&mut conn, identity.key()).await?;
        Self::start(path, conn, identity, frontier).await
    }

    async fn start(
        path: &Path,
        conn: SqliteConnection,
        identity: AuditIdentity,
        frontier: Frontier,
    ) -> Result<Self, AuditLogError> {
        let readers = database::readers(path).await?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(Writer::new(path, conn, identity.clone(), frontier).run(queue));
        Ok(Self(Arc::new(Inner {
            identity,
            readers,
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(writer)),
        })))
    }

    /// Adds a record and returns its number once it is durable under a signed head.
    ///
    /// # Errors
    ///
    /// When it is not in the log; what was to be recorded must then not happen.
    pub async fn append(&self, record: AuditRecord) -> Result<u64, AuditLogError> {
        let jobs = lock(&self.0.jobs).clone().ok_or(AuditLogError::Closed)?;
        let (done, answer) = oneshot::channel();
        jobs.send(Job { record, done })
            .await
            .map_err(|_| AuditLogError::Stopped)?;
        answer.await.map_err(|_| AuditLogError::Stopped)?
    }

    /// The key that checks this log's checkpoints and certificates.
    pub fn key(&self) -> &AuditKey {
        self.0.identity.key()
    }

    /// The signed head as of now: worth keeping somewhere else.
    ///
    /// # Errors
    ///
    /// When the database can not be read.
    pub async fn checkpoint(&self) -> Result<String, AuditLogError> {
        let mut conn = self.read().await?;
        database::head(&mut conn).await
    }

    /// The last `n` records, oldest first.
    ///
    /// # Errors
    ///
    /// When the database or a record can not be read.
    pub async fn tail(&self, n: u32) -> Result<Vec<AuditEntry>, AuditLogError> {
        let mut conn = self.read().await?;
        database::last(&mut conn, n).await
    }

    /// The records with `from <= seq < to`.
    ///
    /// # Errors
    ///
    /// When the database or a record can not be read.
    pub async fn entries(&self, from: u64, to: u64) -> Result<Vec<AuditEntry>, AuditLogError> {
        let mut conn = self.read().await?;
        entries(&mut conn, from, to).await
    }

    /// Everything from the first record at or after `since` up to the present head, and that head: the evidence that a
    /// report counts from. One transaction: what is returned is what was hashed against the head a moment before.
    ///
    /// # Errors
    ///
    /// When the database can not be read, or [`AuditLogError::Unsound`].
    pub(crate) async fn evidence_since(&self, since: Timestamp) -> Result<Evidence, AuditLogError> {
        let read = AuditLogError::database("reading");
        let mut tx = self.0.readers.begin().await.map_err(read)?;
        let verification = verify(&mut tx, self.key(), None).await?;
        if let Some(fault) = verification.faults.first() {
            return Err(AuditLogError::Unsound(fault.to_string()));
        }
        let note = database::head(&mut tx).await?;
        let head =
            SignedCheckpoint::open(&note, self.key()).map_err(AuditLogError::HeadSignature)?;
        let first = database::first_since(&mut tx, since)
            .await?
            .unwrap_or(head.size);
        let entries = entries(&mut tx, first, head.size).await?;
        Ok(Evidence {
            entries,
            first,
            head,
            note,
        })
    }

    /// Proves that record `seq` is below the present head.
    ///
    /// # Errors
    ///
    /// When there is no such record or the database can not be read.
    pub async fn prove(&self, seq: u64) -> Result<InclusionProof, AuditLogError> {
        let read = AuditLogError::database("reading");
        let mut tx = self.0.readers.begin().await.map_err(&read)?;
        let note = database::head(&mut tx).await?;
        let head =
            SignedCheckpoint::open(&note, self.key()).map_err(AuditLogError::HeadSignature)?;
        let size = head.size;
        let row = database::rows(&mut tx, seq, seq.saturating_add(1), 1)
            .await?
            .pop();
        let Some(row) = row.filter(|_| seq < size) else {
            return Err(AuditLogError::NoSuchRecord { seq, size });
        };
        // The first run only says which hashes it wants: see `WantedHashes`. A tree of one record wants none.
        let wanted = WantedHashes::default();
        let path = match prove_record(size, seq, &wanted) {
            Ok(path) => path,
            Err(_) => {
                let hashes = database::hashes(&mut tx, &wanted.into_indexes()).await?;
                prove_record(size, seq, &hashes).map_err(tree_error)?
            }
        };
        Ok(InclusionProof::new(
            seq,
            record_hash(row.leaf.as_bytes()),
            &path,
            note,
        ))
    }

    /// Recomputes everything from the stored rows. `outside` is a checkpoint of this log that was kept elsewhere: with it,
    /// a log that was cut, replaced by an older copy, or rewritten with the stolen key is found out too.
    ///
    /// # Errors
    ///
    /// When the database can not be read. What is wrong with the *log* is in the answer, not an error.
    pub async fn verify(&self, outside: Option<&str>) -> Result<AuditVerification, AuditLogError> {
        let mut tx = self
            .0
            .readers
            .begin()
            .await
            .map_err(AuditLogError::database("reading"))?;
        verify(&mut tx, self.key(), outside).await
    }

    /// Checks a log file that no server has open, or that no signing key is at hand for.
    ///
    /// # Errors
    ///
    /// When there is no log at `path`, `vkey` is malformed, or the database can not be read.
    pub async fn verify_file(
        path: &Path,
        vkey: &str,
        outside: Option<&str>,
    ) -> Result<AuditVerification, AuditLogError> {
        if !tokio::fs::try_exists(path).await.unwrap_or(false) {
            return Err(AuditLogError::Absent(path.display().to_string()));
        }
        let key = AuditKey::parse(vkey)?;
        let readers = database::readers(path).await?;
        let mut tx = readers
            .begin()
            .await
            .map_err(AuditLogError::database("reading"))?;
        let verification = verify(&mut tx, &key, outside).await;
        drop(tx);
        readers.close().await;
        verification
    }

    /// Signs a text that is not a checkpoint; see the module docs of `identity` for why the two never mix.
    pub(crate) fn sign(&self, text: &str) -> Result<String, AuditLogError> {
        self.0.identity.sign(text)
    }

    /// Waits for the queue to be written and closes the file. Records that come later are refused.
    pub async fn close(&self) {
        // Readers first: the last connection to close folds SQLite's write-ahead log into the file, and only the
        // writer's may write.
        self.0.readers.close().await;
        drop(lock(&self.0.jobs).take());
        let writer = lock(&self.0.writer).take();
        let Some(writer) = writer else { return };
        if let Err(error) = writer.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the audit writer ended badly"
            );
        }
    }

    async fn read(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Sqlite>, AuditLogError> {
        self.0
            .readers
            .acquire()
            .await
            .map_err(AuditLogError::database("reading"))
    }
}

#[async_trait]
impl AuditSink for AuditLog {
    async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
        self.append(record).await.map(drop).map_err(AuditError::new)
    }
}

/// A consistent stretch of the log and the head over it.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) entries: Vec<AuditEntry>,
    pub(crate) first: u64,
    pub(crate) head: SignedCheckpoint,
    pub(crate) note: String,
}

/// The records with `from <= seq < to`.
async fn entries(
    conn: &mut SqliteConnection,
    from: u64,
    to: u64,
) -> Result<Vec<AuditEntry>, AuditLogError> {
    let mut entries = Vec::new();
    let mut next = from;
    while next < to {
        let rows = database::rows(conn, next, to, PAGE).await?;
        let Some(last) = rows.last() else { break };
        next = last.seq + 1;
        for row in rows {
            entries.push(AuditEntry::decode(row.seq, &row.leaf)?);
        }
    }
    Ok(entries)
}

/// The quick check of `open`; returns the frontier to go on from.
async fn check_head(
    conn: &mut SqliteConnection,
    key: &AuditKey,
) -> Result<Frontier, AuditLogError> {
    let note = database::head(conn).await?;
    let head = SignedCheckpoint::open(&note, key).map_err(AuditLogError::HeadSignature)?;
    let (records, hashes) = database::counts(conn).await?;
    if records != head.size {
        return Err(AuditLogError::HeadMismatch(format!(
            "it says {} records, {records} are stored",
            head.size
        )));
    }
    if hashes != stored_hash_count(head.size) {
        return Err(AuditLogError::HeadMismatch(
            "stored hashes are missing or too many".into(),
        ));
    }
    let frontier = database::frontier(conn, head.size).await?;
    match frontier.root() {
        Ok(root) if root.0 == head.root => Ok(frontier),
        _ => Err(AuditLogError::HeadMismatch(
            "the root over the stored hashes is another".into(),
        )),
    }
}

/// A poisoned lock only means that another thread panicked between two moves of an `Option`.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
