//! The end of files that nobody reads any more, and what can be said of the erased once theirs are gone.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::SubjectPseudonym;

use super::file::own;
use super::{Catalog, SnapshotId};
use crate::database::{self, Connection, at, at_opt, count, number, parsed, us};
use crate::store::StoreError;

/// A file that ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndedFile {
    /// Name in the store's object store.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// When it ended; a query that began before may still read it.
    pub ended_at: Timestamp,
}

/// What is left of an erased patient's ciphertext.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tombstone {
    /// The patient.
    pub subject: SubjectPseudonym,
    /// When the keys went.
    pub erased_at: Timestamp,
    /// As of this snapshot no live file holds a row of theirs.
    pub cleared: Option<SnapshotId>,
    /// When the last file that held one was gone.
    pub dropped_at: Option<Timestamp>,
}

impl Catalog {
    /// Files that ended and are still there, oldest first.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn ended(&self) -> Result<Vec<EndedFile>, sqlx::Error> {
        ended(&mut *self.db.pool().acquire().await?).await
    }

    /// The same, for whoever removes them: what ended in a registry that took the place of ours may be live in ours.
    ///
    /// # Errors
    /// When the registry cannot be read, or went back and cannot be brought forward.
    pub(crate) async fn removable(&self) -> Result<Vec<EndedFile>, StoreError> {
        let settled = self.settle().await?;
        let mut tx = self.db.pool().begin().await?;
        settled.check(&mut tx).await?;
        Ok(ended(&mut tx).await?)
    }

    /// Everybody who was erased, in the order of erasure.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn tombstones(&self) -> Result<Vec<Tombstone>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT subject, erased_at_us, cleared, dropped_at_us FROM tombstones ORDER BY erased_at_us, subject",
        )
        .fetch_all(self.db.pool())
        .await?;
        let read = |row: &database::Row| {
            let cleared: Option<i64> = row.try_get("cleared")?;
            Ok(Tombstone {
                subject: parsed(row.try_get("subject")?)?,
                erased_at: at(row.try_get("erased_at_us")?)?,
                cleared: cleared.map(count).transpose()?.map(SnapshotId),
                dropped_at: at_opt(row.try_get("dropped_at_us")?)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Erased patients of whom a live file may still hold a row. Whoever's erasure is not over may still have rows on
    /// their way.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn uncleared(&self) -> Result<BTreeSet<SubjectPseudonym>, sqlx::Error> {
        let subjects: Vec<String> = sqlx::query_scalar(
            "SELECT t.subject FROM tombstones t JOIN erasure_ledger l ON l.subject = t.subject \
             WHERE t.cleared IS NULL AND l.completed_at_us IS NOT NULL",
        )
        .fetch_all(self.db.pool())
        .await?;
        subjects.iter().map(|subject| parsed(subject)).collect()
    }

    /// Forgets an ended file after it was removed.
    pub(crate) async fn forget(&self, file: &str) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin().await?;
        sqlx::query("DELETE FROM data_files WHERE file = $1 AND state = 'ended'")
            .bind(file)
            .execute(tx.connection())
            .await?;
        tx.commit().await
    }

    /// Notes that no live file of this snapshot holds a row of this patient.
    pub(crate) async fn clear(
        &self,
        subject: &SubjectPseudonym,
        as_of: SnapshotId,
    ) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "UPDATE tombstones SET cleared = $1 WHERE subject = $2 AND dropped_at_us IS NULL",
        )
        .bind(number(as_of.0)?)
        .bind(subject.as_str())
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }

    /// Erased patients of whom no file holds a row any more, and of whom that was not noted yet.
    pub(crate) async fn gone(&self) -> Result<Vec<Tombstone>, StoreError> {
        // A bucket may still complete a write that was given up.
        if !self.left_planned().await?.is_empty() {
            return Ok(Vec::new());
        }
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT MIN(end_snapshot) FROM data_files WHERE state = 'ended'")
                .fetch_one(self.db.pool())
                .await?;
        let oldest = oldest.map(count).transpose()?.map(SnapshotId);
        let mut gone = self.tombstones().await?;
        gone.retain(|stone| {
            let cleared = stone.cleared.filter(|_| stone.dropped_at.is_none());
            cleared.is_some_and(|cleared| oldest.is_none_or(|oldest| oldest > cleared))
        });
        Ok(gone)
    }

    /// Notes that nothing of this patient is left in any file.
    pub(crate) async fn note_dropped(
        &self,
        subject: &SubjectPseudonym,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "UPDATE tombstones SET dropped_at_us = $1 WHERE subject = $2 AND cleared IS NOT NULL",
        )
        .bind(us(now))
        .bind(subject.as_str())
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }

    /// Forgets changes from before this instant, which nobody repeats any more, but the last two: the journal of the inbox
    /// ends with one of them.
    pub(crate) async fn forget_changes(&self, before: Timestamp) -> Result<(), sqlx::Error> {
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "DELETE FROM snapshots WHERE at_us < $1 AND id < (SELECT MAX(id) - 1 FROM snapshots)",
        )
        .bind(us(before))
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }
}

async fn ended(conn: &mut Connection) -> Result<Vec<EndedFile>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT file, size, ended_at_us FROM data_files WHERE state = 'ended' ORDER BY ended_at_us, file",
    )
    .fetch_all(conn)
    .await?;
    let read = |row: &database::Row| {
        Ok(EndedFile {
            file: own(row.try_get("file")?)?,
            size: count(row.try_get("size")?)?,
            ended_at: at(row.try_get("ended_at_us")?)?,
        })
    };
    rows.iter().map(read).collect()
}
