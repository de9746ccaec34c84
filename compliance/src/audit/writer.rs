//! The one task that adds to the log.
//!
//! Callers send a record and wait. The task takes what has gathered meanwhile, hashes it into the tree, signs the new
//! head, and commits rows, hashes and head in one transaction whose commit is fsynced; only then are the callers answered.
//! Many waiting callers share one fsync.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use vitalseal_storage::ports::AuditRecord;

use super::identity::AuditIdentity;
use super::tree::Frontier;
use super::{AuditLogError, SignedCheckpoint, canonical_leaf, checkpoint, database};

/// Records that may wait. Each is under a few kilobytes, so a full queue is a few megabytes; whoever comes later waits
/// for room, which slows the product down rather than losing a record.
pub(super) const QUEUE: usize = 1024;

/// Records in one commit: half the queue, so that one batch gathers while another is written.
const BATCH: usize = 512;

/// A record and the caller that waits for its number.
pub(super) struct Job {
    pub(super) record: AuditRecord,
    pub(super) done: oneshot::Sender<Result<u64, AuditLogError>>,
}

/// The state that the task owns.
pub(super) struct Writer {
    path: PathBuf,
    identity: AuditIdentity,
    /// None after a write that failed, until what is there has been looked at anew.
    end: Option<End>,
}

/// The end of the log, where the next record goes.
struct End {
    conn: SqliteConnection,
    frontier: Frontier,
}

impl Writer {
    pub(super) fn new(
        path: &Path,
        conn: SqliteConnection,
        identity: AuditIdentity,
        frontier: Frontier,
    ) -> Self {
        Self {
            path: path.to_path_buf(),
            identity,
            end: Some(End { conn, frontier }),
        }
    }

    /// Runs until every handle is gone and the queue is empty.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            self.write(&mut batch).await;
        }
        self.let_go().await;
    }

    /// Writes a batch and answers its callers. After a failure the batch may or may not be on disk, and the connection's
    /// driver may take for open what SQLite has ended, and put later records, acknowledged, into a transaction that
    /// nobody commits. So the next batch looks for the end of the log with a connection of its own: the log goes on when
    /// the disk does.
    async fn write(&mut self, batch: &mut Vec<Job>) {
        let mut encoded = Vec::with_capacity(batch.len());
        let mut waiting = Vec::with_capacity(batch.len());
        for job in batch.drain(..) {
            match canonical_leaf(&job.record) {
                Ok(leaf) => {
                    encoded.push((job.record.at.as_microsecond(), leaf));
                    waiting.push(job.done);
                }
                Err(cause) => {
                    drop(job.done.send(Err(AuditLogError::Encode(Arc::new(cause)))));
                }
            }
        }
        if encoded.is_empty() {
            return;
        }
        match self.commit(&encoded).await {
            Ok(first) => {
                for (seq, done) in (first..).zip(waiting) {
                    drop(done.send(Ok(seq)));
                }
            }
            Err(cause) => {
                self.let_go().await;
                tracing::error!(
                    error = &cause as &dyn std::error::Error,
                    records = waiting.len(),
                    "the audit log could not be written"
                );
                let cause = Arc::new(cause);
                for done in waiting {
                    drop(done.send(Err(AuditLogError::Write(Arc::clone(&cause)))));
                }
            }
        }
    }

    /// The number of the first record.
    async fn commit(&mut self, batch: &[(i64, String)]) -> Result<u64, sqlx::Error> {
        // An end that is not ours and bugs of ours travel as a database error, so that callers see one kind.
        let ours = |error: AuditLogError| sqlx::Error::Encode(Box::new(error));
        let end = match &mut self.end {
            Some(end) => end,
            none => none.insert(End::look(&self.path, &self.identity).await.map_err(ours)?),
        };
        let first = end.frontier.size();
        let mut frontier = end.frontier.clone();
        let mut hashes = Vec::with_capacity(2 * batch.len());
        for (_, leaf) in batch {
            let (index, new) = frontier.append(leaf.as_bytes()).map_err(ours)?;
            hashes.extend((index..).zip(new));
        }
        let root = frontier.root().map_err(ours)?;
        let note = checkpoint::sign(&self.identity, frontier.size(), root).map_err(ours)?;
        database::append(&mut end.conn, first, batch, &hashes, &note).await?;
        end.frontier = frontier;
        Ok(first)
    }

    async fn let_go(&mut self) {
        if let Some(end) = self.end.take()
            && let Err(error) = end.conn.close().await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "closing the audit log"
            );
        }
    }
}

impl End {
    /// What is there now; nothing is appended to a head that is not signed by this log.
    async fn look(path: &Path, identity: &AuditIdentity) -> Result<Self, AuditLogError> {
        let mut conn = database::connect(path).await?;
        let note = database::head(&mut conn).await?;
        let head =
            SignedCheckpoint::open(&note, identity.key()).map_err(AuditLogError::HeadSignature)?;
        let frontier = database::frontier(&mut conn, head.size).await?;
        Ok(Self { conn, frontier })
    }
}
