//! One change of the set of files: some begin, some end, the watermark moves, all in one transaction.
//!
//! ```text
//! plan(names) ──▶ PUT each ──▶ commit(change) ──▶ grace ──▶ garbage
//!   planned         durable      live / ended                 removed
//! ```
//!
//! A crash before the commit leaves planned files, which nobody reads and the next start removes; after it nothing is
//! left to do but the removal. A commit that is repeated, because its answer got lost, finds its own id and does nothing.
//! Each is noted in the inbox too, before anything is removed for it: see [`super::settle`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use object_store::path::Path;
use vitalseal_crypto::{Backend, BackendError};

use super::settle::Settled;
use super::{Catalog, DataFile, Loss, SnapshotId, losses};
use crate::catalog::file::own;
use crate::database::{Connection, at, count, number, us};
use crate::store::StoreError;

/// The inbox whose rows the watermark counts. Nodes that share a registry would have one each.
pub(super) const INBOX: &str = "1";

/// Tells a change from every other, so that it is made once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeId(String);

impl ChangeId {
    /// 128 random bits.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn draw(backend: &dyn Backend) -> Result<Self, BackendError> {
        let mut id = [0; 16];
        backend.fill_random(&mut id)?;
        Ok(Self(hex::encode(id)))
    }

    /// Of a change that was made.
    pub(super) fn noted(id: String) -> Self {
        Self(id)
    }

    /// As it is stored.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why the set of files changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// Rows of the inbox went to files.
    Flush,
    /// Files were merged.
    Compaction,
    /// Rows of erased patients were left out.
    Vacuum,
    /// Files outlived their retention.
    Retention,
    /// A damaged file was set aside.
    Repair,
}

impl ChangeKind {
    /// All.
    pub(super) const ALL: [Self; 5] = [
        Self::Flush,
        Self::Compaction,
        Self::Vacuum,
        Self::Retention,
        Self::Repair,
    ];

    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Vacuum => "vacuum",
            Self::Retention => "retention",
            Self::Repair => "repair",
        }
    }
}

/// What `Catalog::commit` does in one transaction.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its own.
    pub id: ChangeId,
    /// Why.
    pub what: ChangeKind,
    /// Files that begin: planned, and durable by now.
    pub add: Vec<DataFile>,
    /// Files that end: live so far.
    pub end: Vec<Path>,
    /// Rows of the inbox up to this number are in a file.
    pub watermark: Option<i64>,
    /// What is lost with it, to damage.
    pub losses: Vec<Loss>,
}

/// Names that are being written. While it lives, nobody takes them for leftovers of a crash.
#[derive(Debug)]
pub struct Plan {
    names: Vec<String>,
    writing: Arc<Mutex<HashSet<String>>>,
}

impl Drop for Plan {
    fn drop(&mut self) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            writing.remove(name);
        }
    }
}

impl Catalog {
    /// Notes that files are about to be written: a crash leaves their names, so that they can be cleared away.
    ///
    /// # Errors
    /// When the registry cannot be written, or has such a name already.
    pub(crate) async fn plan(
        &self,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<Plan, sqlx::Error> {
        let plan = Plan {
            names,
            writing: Arc::clone(&self.writing),
        };
        self.written_now().extend(plan.names.iter().cloned());
        let mut tx = self.db.begin().await?;
        for name in &plan.names {
            sqlx::query(
                "INSERT INTO data_files (file, state, written_at_us) VALUES ($1, 'planned', $2)",
            )
            .bind(name)
            .bind(us(now))
            .execute(tx.connection())
            .await?;
        }
        tx.commit().await?;
        Ok(plan)
    }

    /// Makes a change, once, and sees that the inbox notes it: what begins is read from now on, what ends only by whoever
    /// reads it already. When this returns, what is in the files that begin may leave the inbox.
    ///
    /// # Errors
    /// [`StoreError::NotPlanned`] and [`StoreError::NotLive`] when another change came first; then, and when the
    /// registry cannot be written or went back, nothing has changed. When the inbox cannot note it, it was made, and
    /// nothing may be removed for it yet.
    pub(crate) async fn commit(
        &self,
        change: &Change,
        now: Timestamp,
    ) -> Result<SnapshotId, StoreError> {
        let settled = self.settle().await?;
        let made = match self.make(change, &settled, now).await {
            // Perhaps its answer got lost and not the change: asked again, it finds its own id.
            Err(StoreError::Sql(_)) => self.make(change, &settled, now).await,
            made => made,
        }?;
        self.note(settled, made, change, now).await?;
        Ok(made)
    }

    async fn make(
        &self,
        change: &Change,
        settled: &Settled,
        now: Timestamp,
    ) -> Result<SnapshotId, StoreError> {
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        let made: Option<i64> = sqlx::query_scalar("SELECT id FROM snapshots WHERE change = $1")
            .bind(&change.id.0)
            .fetch_optional(&mut *conn)
            .await?;
        if let Some(made) = made {
            return Ok(SnapshotId(count(made)?));
        }
        settled.check(&mut *conn).await?;
        let snapshot = SnapshotId(settled.newest().id.0 + 1);
        apply(snapshot, change, now, conn).await?;
        tx.commit().await?;
        Ok(snapshot)
    }

    /// Files that were planned by whoever did not come to an end, and when.
    ///
    /// # Errors
    /// When the registry cannot be read, or went back: what it has as planned may be live then.
    pub(crate) async fn left_planned(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let settled = self.settle().await?;
        let planned =
            sqlx::query_as("SELECT file, written_at_us FROM data_files WHERE state = 'planned'");
        // In the writers' turn: a commit whose answer got lost is over before it, and what it made live is not listed.
        let mut tx = self.db.begin().await?;
        settled.check(tx.connection()).await?;
        let planned: Vec<(String, i64)> = planned.fetch_all(tx.connection()).await?;
        drop(tx);
        let mut left = Vec::with_capacity(planned.len());
        for (name, planned_at) in planned {
            if !self.written_now().contains(&name) {
                left.push((own(name)?, at(planned_at)?));
            }
        }
        Ok(left)
    }

    /// Forgets a planned file after it was removed.
    pub(crate) async fn unplan(&self, file: &str) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin().await?;
        sqlx::query("DELETE FROM data_files WHERE file = $1 AND state = 'planned'")
            .bind(file)
            .execute(tx.connection())
            .await?;
        tx.commit().await
    }
}

/// A change, in the caller's transaction.
pub(super) async fn apply(
    snapshot: SnapshotId,
    change: &Change,
    now: Timestamp,
    conn: &mut Connection,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO snapshots (id, change, kind, at_us) VALUES ($1, $2, $3, $4)")
        .bind(number(snapshot.0)?)
        .bind(&change.id.0)
        .bind(change.what.as_str())
        .bind(us(now))
        .execute(&mut *conn)
        .await?;
    for file in &change.add {
        if !file.go_live(snapshot, &mut *conn).await? {
            return Err(StoreError::NotPlanned(file.path.to_string()));
        }
    }
    for path in &change.end {
        let ended = sqlx::query(
            "UPDATE data_files SET state = 'ended', end_snapshot = $1, ended_at_us = $2 \
             WHERE file = $3 AND state = 'live'",
        )
        .bind(number(snapshot.0)?)
        .bind(us(now))
        .bind(path.as_ref())
        .execute(&mut *conn)
        .await?;
        if ended.rows_affected() != 1 {
            return Err(StoreError::NotLive(path.to_string()));
        }
    }
    if let Some(high) = change.watermark {
        sqlx::query(
            "INSERT INTO watermarks (inbox, high) VALUES ($1, $2) \
             ON CONFLICT (inbox) DO UPDATE SET high = excluded.high \
             WHERE watermarks.high < excluded.high",
        )
        .bind(INBOX)
        .bind(high)
        .execute(&mut *conn)
        .await?;
    }
    Ok(losses::note(&change.losses, conn).await?)
}
