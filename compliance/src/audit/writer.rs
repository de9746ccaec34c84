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
    conn: SqliteConnection,
    identity: AuditIdentity,
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
            conn,
            identity,
            frontier,
        }
    }

    /// Runs until every handle is gone and the queue is empty.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            if let Err(error) = self.write(&mut batch).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the audit log stopped"
                );
                jobs.close();
                while let Some(job) = jobs.recv().await {
                    drop(job.done.send(Err(AuditLogError::Stopped)));
                }
            }
        }
        if let Err(error) = self.conn.close().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "closing the audit log"
            );
        }
    }

    /// Writes a batch and answers its callers. An error means that what is on disk is unknown.
    async fn write(&mut self, batch: &mut Vec<Job>) -> Result<(), AuditLogError> {
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
            return Ok(());
        }
        match self.commit(&encoded).await {
            Ok((first, frontier)) => {
                self.frontier = frontier;
                for (seq, done) in (first..).zip(waiting) {
                    drop(done.send(Ok(seq)));
                }
                Ok(())
            }
            Err(cause) => {
                let cause = Arc::new(cause);
                for done in waiting {
                    drop(done.send(Err(AuditLogError::Write(Arc::clone(&cause)))));
                }
                self.recover().await
            }
        }
    }

    async fn commit(&mut self, batch: &[(i64, String)]) -> Result<(u64, Frontier), sqlx::Error> {
        // Anything but a database error here would be a bug of ours; it travels as one so that callers see one kind.
        let ours = |error: AuditLogError| sqlx::Error::Encode(Box::new(error));
        let first = self.frontier.size();
        let mut frontier = self.frontier.clone();
        let mut tx = self.conn.begin().await?;
        for (at_us, leaf) in batch {
            let seq = database::to_sql(frontier.size());
            let (index, hashes) = frontier.append(leaf.as_bytes()).map_err(ours)?;
            sqlx::query("INSERT INTO record (seq, at_us, leaf) VALUES ($1, $2, $3)")
                .bind(seq)
                .bind(at_us)
                .bind(leaf)
                .execute(&mut *tx)
                .await?;
            for (index, hash) in (index..).zip(hashes) {
                sqlx::query("INSERT INTO hash (idx, hash) VALUES ($1, $2)")
                    .bind(database::to_sql(index))
                    .bind(hash.0.as_slice())
                    .execute(&mut *tx)
                    .await?;
            }
        }
        let root = frontier.root().map_err(ours)?;
        let note = checkpoint::sign(&self.identity, frontier.size(), root).map_err(ours)?;
        sqlx::query("UPDATE head SET note = $1 WHERE id = 0")
            .bind(note)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok((first, frontier))
    }

    /// After a failed commit the batch may or may not be on disk: look, and go on from what is there. With another
    /// connection: this one's driver may take for open what SQLite has ended, and then put later records, already
    /// acknowledged, into a transaction that nobody commits.
    async fn recover(&mut self) -> Result<(), AuditLogError> {
        self.conn = database::connect(&self.path).await?;
        let note = database::head(&mut self.conn).await?;
        let head = SignedCheckpoint::open(&note, self.identity.key())
            .map_err(AuditLogError::HeadSignature)?;
        self.frontier = database::frontier(&mut self.conn, head.size).await?;
        Ok(())
    }
}
