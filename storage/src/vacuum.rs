//! The physical end of shredded ciphertext.
//!
//! | # | Step | What a crash right after it leaves |
//! |---|---|---|
//! | 1 | an erasure leaves a tombstone, in the transaction that takes the keys | ciphertext that opens for nobody |
//! | 2 | each live file with rows of the erased is rewritten without them; the old one ends | some files done; the next vacuum goes on |
//! | 3 | the tombstone: as of this snapshot no live file holds a row of theirs | the files that ended are still there |
//! | 4 | after the grace, [`Store::collect_garbage`] removes them, records it in the audit log, and notes when | – |
//!
//! Nothing brings a row back: the inbox is purged and takes nothing more of the erased before 2, flushes and compactions
//! that began before are over when 2 looks, and later ones leave out whoever has a tombstone.

use std::collections::BTreeSet;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use vitalseal_crypto::SubjectPseudonym;

use crate::catalog::{ChangeKind, DataFile};
use crate::columns;
use crate::compact::unusable;
use crate::flush;
use crate::progress::Progress;
use crate::schema;
use crate::store::{Store, StoreError};

/// Rows whose pseudonyms are read at once.
const SUBJECTS: usize = 8192;

/// Rows that are copied at once.
const ROWS: usize = 64;

/// What a vacuum did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VacuumReport {
    /// Erased patients of whom no live file holds a row from now on.
    pub erasures: Vec<SubjectPseudonym>,
    /// Files that ended.
    pub files_in: u64,
    /// Files that took their place.
    pub files_out: u64,
    /// Bytes of the former.
    pub bytes_in: u64,
    /// Bytes of the latter.
    pub bytes_out: u64,
    /// Messages that were left out.
    pub messages: u64,
}

impl Store {
    /// Rewrites the files that hold rows of erased patients without them. Their bytes are gone once the files that end
    /// here are: see [`Store::collect_garbage`].
    ///
    /// # Errors
    /// When a file cannot be read or written: the others are done all the same, and whoever cannot have rows in that one is
    /// through with it. The next vacuum goes on.
    pub async fn vacuum(
        &self,
        now: Timestamp,
        progress: &dyn Progress,
    ) -> Result<VacuumReport, StoreError> {
        let _alone = self.upkeep_alone().await;
        let erased = self.catalog.uncleared().await?;
        let mut report = VacuumReport::default();
        if erased.is_empty() {
            return Ok(report);
        }
        let files = {
            // A flush that read the inbox before it was purged is over then.
            let _quiet = self.hold_flushes().await;
            flush::clear_planned(&self.catalog, &self.files, now).await?;
            self.catalog.files().await?
        };
        let suspects: Vec<&DataFile> = files
            .iter()
            .filter(|file| erased.iter().any(|subject| file.may_hold_of(subject)))
            .collect();
        let mut failed = Vec::new();
        for (done, file) in (0..).zip(&suspects) {
            progress.step(done, suspects.len() as u64, file.path.as_ref());
            if let Err(error) = self.vacuum_file(file, &erased, now, &mut report).await {
                failed.push((*file, error));
            }
        }
        let cleared = self.catalog.current().await?.id;
        for subject in erased {
            // The others need not wait for a file that cannot be read.
            if !failed.iter().any(|(file, _)| file.may_hold_of(&subject)) {
                self.catalog.clear(&subject, cleared).await?;
                report.erasures.push(subject);
            }
        }
        match failed.pop() {
            Some((file, cause)) => Err(unusable(file, cause)),
            None => Ok(report),
        }
    }

    async fn vacuum_file(
        &self,
        file: &DataFile,
        erased: &BTreeSet<SubjectPseudonym>,
        now: Timestamp,
        report: &mut VacuumReport,
    ) -> Result<(), StoreError> {
        if self.subjects_of(file).await?.is_disjoint(erased) {
            return Ok(());
        }
        let kept = self.rows_of(file, |subject| !erased.contains(subject));
        let written = self
            .rewrite(file, kept, ChangeKind::Vacuum, Vec::new(), now)
            .await?;
        report.files_in += 1;
        report.bytes_in += file.size;
        report.files_out += written.len() as u64;
        report.bytes_out += written.iter().map(|file| file.size).sum::<u64>();
        let left: u64 = written.iter().map(|file| file.messages).sum();
        report.messages += file.messages.saturating_sub(left);
        Ok(())
    }

    /// Everybody of whom a file has rows.
    pub(crate) async fn subjects_of(
        &self,
        file: &DataFile,
    ) -> Result<BTreeSet<SubjectPseudonym>, StoreError> {
        let mut found = BTreeSet::new();
        let mut batches = self
            .files
            .batches(file, &[schema::SUBJECT], SUBJECTS)
            .boxed();
        while let Some(batch) = batches.try_next().await? {
            let mut last = None;
            for subject in columns::text(&batch, schema::SUBJECT)?.iter().flatten() {
                // Sorted by patient: as many are parsed as there are.
                if last != Some(subject) {
                    found.insert(crate::database::parsed(subject)?);
                    last = Some(subject);
                }
            }
        }
        Ok(found)
    }

    /// The rows of a file whose patient is to be kept.
    pub(crate) fn rows_of<K>(
        &self,
        file: &DataFile,
        keep: K,
    ) -> impl Stream<Item = Result<RecordBatch, StoreError>> + Send + use<K>
    where
        K: Fn(&SubjectPseudonym) -> bool + Send,
    {
        let schema = file.kind.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let batches = self.files.batches(file, &columns, ROWS);
        batches.map(move |batch| {
            let batch = batch?;
            let kept = columns::text(&batch, schema::SUBJECT)?
                .iter()
                .map(|subject| {
                    let subject = crate::database::parsed(subject.unwrap_or_default())?;
                    Ok(Some(keep(&subject)))
                });
            let kept = kept.collect::<Result<BooleanArray, sqlx::Error>>()?;
            Ok(filter_record_batch(&batch, &kept)?)
        })
    }
}
