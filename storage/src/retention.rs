//! The end of what was kept long enough.
//!
//! What counts is when the server took a message, by its own clock, never what a device says. A file ends whole, once the
//! last message in it is old enough: files of two days are never merged, so a message goes at most a day late, or as much
//! later as it waited in the inbox of a server that did not flush. The bytes go as those of all ended files do.
//!
//! Nothing ends unless it is said how long to keep it, and nothing of a patient who is held.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{SubjectPseudonym, default_backend};

use crate::catalog::{Change, ChangeKind, DataFile, TableKind};
use crate::database::us;
use crate::inbox::{QuarantineState, Settled};
use crate::ports::{Actor, AuditEvent, AuditRecord, AuditSink};
use crate::store::{Store, StoreError};

/// How long to keep what; `None`: for ever.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// Messages of single values.
    pub vitals: Option<SignedDuration>,
    /// Messages of waveforms.
    pub waveforms: Option<SignedDuration>,
    /// What was refused and is kept sealed.
    pub quarantine: Option<SignedDuration>,
    /// Patients of whom nothing ends: a legal hold.
    pub held: BTreeSet<SubjectPseudonym>,
}

/// What a retention ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetentionReport {
    /// Files that ended.
    pub files: u64,
    /// Of these, files that others took the place of, with the rows of whoever is held.
    pub rewritten: u64,
    /// Bytes of the former.
    pub bytes: u64,
    /// Messages that are gone.
    pub messages: u64,
    /// Refused messages that were dropped, their bodies with them.
    pub quarantined: u64,
}

impl Retention {
    /// How long messages of a file are kept; one of version 3 has rows of both tables, and both must be old enough.
    fn of(&self, file: &DataFile) -> Option<SignedDuration> {
        let of = |table| match table {
            TableKind::Vitals => self.vitals,
            TableKind::Waveforms => self.waveforms,
        };
        if file.encrypted {
            return of(file.table);
        }
        self.vitals.zip(self.waveforms).map(|(a, b)| a.max(b))
    }
}

impl Store {
    /// Ends what was kept long enough; it is recorded first.
    ///
    /// # Errors
    /// When it cannot be recorded, or a file cannot be read or written. What was done so far stays done, and the next time
    /// goes on.
    pub async fn enforce_retention(
        &self,
        now: Timestamp,
        retention: &Retention,
        by: Actor,
        audit: &dyn AuditSink,
    ) -> Result<RetentionReport, StoreError> {
        let _alone = self.upkeep_alone().await;
        let mut report = RetentionReport::default();
        let record = async |class: &str, before, files, messages| {
            let event = AuditEvent::RetentionEnforced {
                class: class.to_owned(),
                before,
                files,
                messages,
            };
            let by = by.clone();
            audit
                .record(AuditRecord {
                    at: now,
                    actor: by,
                    event,
                })
                .await
        };
        let files = self.catalog.files().await?;
        for table in TableKind::ALL {
            let (mut whole, mut before) = (Vec::new(), Timestamp::MIN);
            for file in files.iter().filter(|file| file.table == table) {
                let kept = retention
                    .of(file)
                    .and_then(|kept| now.checked_sub(kept).ok());
                let Some(until) = kept.filter(|until| file.received_last_at < *until) else {
                    continue;
                };
                before = before.max(until);
                let held = self.held_in(file, retention).await?;
                if held.is_empty() {
                    whole.push(file);
                    continue;
                }
                let kept = self.rows_of(file, |subject| held.contains(subject));
                let kept: Vec<RecordBatch> = kept.try_collect().await?;
                let rows: usize = kept.iter().map(RecordBatch::num_rows).sum();
                if rows as u64 == file.rows {
                    continue;
                }
                record(table.as_str(), until, 1, file.messages).await?;
                let kept = futures::stream::iter(kept.into_iter().map(Ok));
                let written = self
                    .rewrite(file, kept, ChangeKind::Retention, Vec::new(), now)
                    .await?;
                let left: u64 = written.iter().map(|file| file.messages).sum();
                report.files += 1;
                report.rewritten += 1;
                report.bytes += file.size;
                report.messages += file.messages.saturating_sub(left);
            }
            if whole.is_empty() {
                continue;
            }
            let messages: u64 = whole.iter().map(|file| file.messages).sum();
            record(table.as_str(), before, whole.len() as u64, messages).await?;
            let end = whole.iter().map(|file| file.path.clone()).collect();
            let change = Change::new(ChangeKind::Retention, &[], end, default_backend())?;
            self.commit(change, Vec::new(), now).await?;
            report.files += whole.len() as u64;
            report.bytes += whole.iter().map(|file| file.size).sum::<u64>();
            report.messages += messages;
        }
        if let Some(before) = retention
            .quarantine
            .and_then(|kept| now.checked_sub(kept).ok())
        {
            let expired = self.refused_before(before, &retention.held).await?;
            if !expired.is_empty() {
                record("quarantine", before, 0, expired.len() as u64).await?;
            }
            for id in expired {
                let settled = Settled {
                    at: now,
                    by: "retention".to_owned(),
                    reason: format!("kept until {before}"),
                };
                let dropped = self
                    .inbox
                    .settle(id, QuarantineState::Dropped, settled)
                    .await?;
                report.quarantined += u64::from(dropped);
            }
        }
        Ok(report)
    }

    /// Refused messages that came before this instant, wait for somebody to look at them, and are of nobody who is held.
    async fn refused_before(
        &self,
        before: Timestamp,
        held: &BTreeSet<SubjectPseudonym>,
    ) -> Result<Vec<i64>, StoreError> {
        let rows: Vec<(i64, Option<String>)> = sqlx::query_as(
            "SELECT id, subject FROM quarantine WHERE state = 'held' AND received_at_us < $1",
        )
        .bind(us(before))
        .fetch_all(self.inbox.database().pool())
        .await?;
        let is_held = |subject: &str| held.iter().any(|held| held.as_str() == subject);
        let rows = rows.into_iter();
        let free = rows.filter(|(_, subject)| !subject.as_deref().is_some_and(is_held));
        Ok(free.map(|(id, _)| id).collect())
    }

    /// Who of those who are held has rows in a file.
    async fn held_in(
        &self,
        file: &DataFile,
        retention: &Retention,
    ) -> Result<BTreeSet<SubjectPseudonym>, StoreError> {
        if !retention
            .held
            .iter()
            .any(|subject| file.may_hold_of(subject))
        {
            return Ok(BTreeSet::new());
        }
        let mut found = self.subjects_of(file).await?;
        found.retain(|subject| retention.held.contains(subject));
        Ok(found)
    }
}
