//! Compaction: messages become sealed chunks, and chunks of quarters become chunks of hours and days.
//!
//! ```text
//!   rows files     merge by (patient, time)    group by bucket      seal             write, read back     one transaction
//!   chunks files ─────────────────────────────▶───────────────────▶────────────────▶────────────────────▶ new begin, old end
//!                  a batch of each in memory    one patient's         as columns       one file at a time
//! ```
//!
//! | # | Step | What a crash right after it leaves | What the next start does |
//! |---|---|---|---|
//! | 1 | a name planned in the catalog | a plan without a file | forgets it |
//! | 2 | the file written, and read back | a file that nobody reads | removes it, forgets the plan |
//! | 3 | 1 and 2 for every file of the job | as 2 | as 2 |
//! | 4 | one transaction: the new files live, the old ones ended | files that queries from before may still read | after the grace: removes them |
//!
//! Until 4 commits every message is in the old files only, from then on in the new ones only; a reader holds the one set
//! or the other. A message that does not open stays as it is, in a file of rows, and is counted; one of an erased patient
//! is left out. Nothing is written that a query could not do without: a compaction that fails changes nothing.
//!
//! Never here: a key that outlives its group, a value outside of one, a choice by what was measured.

mod bucket;
mod content;
mod merge;
mod seal;
mod select;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use tokio::task::spawn_blocking;
use vitalseal_crypto::{PatientKeys, SubjectPseudonym, default_backend};

use self::bucket::{Bucket, Rates};
use self::merge::{Merge, Row};
use self::seal::{Group, Outcome, Sealer};
use self::select::Job;
pub use self::select::{CompactionSettings, Due};
use crate::catalog::{Change, ChangeKind, DataFile, FileKind, TableKind};
use crate::chunk::ChunkRow;
use crate::columns;
use crate::crash::CrashPoint;
use crate::database::{count, parsed};
use crate::files::FilesError;
use crate::inbox::rows::{self, SealedRow};
use crate::progress::Progress;
use crate::schema;
use crate::store::{Store, StoreError};
use crate::upkeep::Written;

pub(crate) use self::bucket::BUCKETS;
pub(crate) use self::merge::unusable;
pub(crate) use self::seal::{context, open_evidence};

/// Bytes of chunks that become one file.
const FILE_BYTES: usize = 64 * 1024 * 1024;

/// Chunks, or messages, that are laid out at a time.
const ROWS: usize = 64;

/// Limits of one chunk, below what its format takes: a bucket that holds more becomes several.
const CHUNK_BYTES: usize = 32 * 1024 * 1024;
const CHUNK_READINGS: u64 = 1 << 22;
const CHUNK_MESSAGES: u64 = 1 << 18;

/// Rows whose sizes are read at once.
const COUNTED: usize = 8192;

/// What a compaction did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CompactionReport {
    /// Files that ended; none when nothing was due.
    pub files_in: u64,
    /// Files that took their place.
    pub files_out: u64,
    /// Bytes of the former.
    pub bytes_in: u64,
    /// Bytes of the latter.
    pub bytes_out: u64,
    /// Messages in the new files.
    pub messages: u64,
    /// Readings in them.
    pub readings: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Of the messages, those that did not open or decode: they are as they were.
    pub sealed: u64,
    /// Messages of erased patients, which were left out.
    pub dropped: u64,
    /// There is more to do.
    pub more: bool,
}

impl Store {
    /// What [`Store::compact`] would do now.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn compaction_due(
        &self,
        now: Timestamp,
        settings: &CompactionSettings,
    ) -> Result<Option<Due>, StoreError> {
        let files = self.catalog.files().await?;
        let job = select::next(&files, &self.upkeep().shunned(now), settings, now);
        Ok(job.map(|job| job.due()))
    }

    /// Merges the files that are due next, if any are. Queries and flushes go on meanwhile.
    ///
    /// # Errors
    /// When a file cannot be read or written, or what was written does not read back as it should; then nothing has
    /// changed. [`StoreError::Input`] names a file that is damaged: it is left out for an hour, and the others go on.
    pub async fn compact(
        &self,
        now: Timestamp,
        settings: &CompactionSettings,
        progress: &dyn Progress,
    ) -> Result<CompactionReport, StoreError> {
        let _alone = self.upkeep_alone().await;
        let files = self.catalog.files().await?;
        let Some(job) = select::next(&files, &self.upkeep().shunned(now), settings, now) else {
            return Ok(CompactionReport::default());
        };
        let done = self.carry_out(&job, now, progress).await;
        match &done {
            Err(StoreError::Input { file, .. }) => {
                self.upkeep().shun([file.as_str().into()], now);
            }
            // Whichever file it is: the others must not wait for it.
            Err(error) if is_of_the_files(error) => {
                let all = job.files.iter().map(|file| file.path.clone());
                self.upkeep().shun(all, now);
            }
            _ => {}
        }
        let report = done?;
        let more = self.compaction_due(now, settings).await?.is_some();
        Ok(CompactionReport { more, ..report })
    }

    async fn carry_out(
        &self,
        job: &Job,
        now: Timestamp,
        progress: &dyn Progress,
    ) -> Result<CompactionReport, StoreError> {
        let rates = self.rates(job).await?;
        let erased = self.catalog.tombstones().await?;
        let erased: BTreeSet<_> = erased.into_iter().map(|stone| stone.subject).collect();
        let mut merge = Merge::of(&job.files, &self.files).await?;
        let mut outputs = Outputs::of(self, job, now);
        let expected: u64 = job.files.iter().map(|file| file.messages).sum();
        let mut report = CompactionReport::default();
        let (mut done, what) = (0, format!("{} level {}", job.table.as_str(), job.level));
        while let Some(group) = next_group(&mut merge, &rates, job).await? {
            progress.step(done, expected, &what);
            let messages: u64 = group.rows.iter().map(Row::messages).sum();
            done += messages;
            if erased.contains(&group.subject) {
                report.dropped += messages;
                continue;
            }
            let keys = self.keys.patient_keys(&group.subject).await?;
            let outcome = self.seal(group, keys).await?;
            report.sealed += outcome.refused;
            outputs.take(outcome).await?;
        }
        let written = outputs.finish().await?;
        self.crash().reached(CrashPoint::UpkeepProved)?;
        let sum = |of: fn(&DataFile) -> u64| written.iter().map(|w| of(&w.file)).sum::<u64>();
        report.files_in = job.files.len() as u64;
        report.bytes_in = job.due().bytes;
        report.files_out = written.len() as u64;
        report.bytes_out = sum(|file| file.size);
        report.messages = sum(|file| file.messages);
        report.readings = sum(|file| file.readings);
        report.chunks = sum(|file| {
            if file.kind == FileKind::Chunks {
                file.rows
            } else {
                0
            }
        });
        if report.messages + report.dropped != expected {
            return Err(StoreError::NotTheSame);
        }
        let end = job.files.iter().map(|file| file.path.clone()).collect();
        let change = Change::new(ChangeKind::Compaction, &written, end, default_backend())?;
        self.commit(change, written, now).await?;
        Ok(report)
    }

    async fn seal(
        &self,
        group: Group,
        keys: Option<Arc<PatientKeys>>,
    ) -> Result<Outcome, StoreError> {
        let Some(patient) = keys else {
            // No tombstone, and no key: nothing is dropped for that.
            let mut outcome = Outcome::default();
            for row in group.rows {
                outcome.refuse(group.table, row);
            }
            return Ok(outcome);
        };
        let sealer = Sealer {
            store_keys: self.keys.store_keys().await?,
            patient,
            backend: default_backend(),
        };
        Ok(spawn_blocking(move || sealer.seal(group)).await?)
    }

    /// What each patient brings to a job, read from the metadata alone. On the first level there is nothing to choose.
    async fn rates(&self, job: &Job) -> Result<Rates, StoreError> {
        let mut rates = Rates::default();
        if job.level < 2 {
            return Ok(rates);
        }
        for file in &job.files {
            let start = match file.kind {
                FileKind::Rows => schema::FIRST_AT,
                FileKind::Chunks => schema::BUCKET_START,
            };
            let mut wanted = vec![schema::SUBJECT, start, schema::READINGS];
            if file.kind == FileKind::Chunks {
                wanted.push(schema::BUCKET_SECONDS);
            }
            let mut batches = self.files.batches(file, &wanted, COUNTED).boxed();
            while let Some(batch) = batches.try_next().await.map_err(|e| unusable(file, e))? {
                let subjects = columns::text(&batch, schema::SUBJECT)?;
                let starts = columns::numbers::<TimestampMicrosecondType>(&batch, start)?;
                for row in 0..batch.num_rows() {
                    let (seconds, readings) = match file.kind {
                        FileKind::Rows => {
                            let readings = columns::numbers::<Int32Type>(&batch, schema::READINGS)?;
                            (0, i64::from(readings.value(row)))
                        }
                        FileKind::Chunks => {
                            let width =
                                columns::numbers::<Int32Type>(&batch, schema::BUCKET_SECONDS)?;
                            let readings = columns::numbers::<Int64Type>(&batch, schema::READINGS)?;
                            (u32::try_from(width.value(row))?, readings.value(row))
                        }
                    };
                    rates.add(
                        subjects.value(row),
                        starts.value(row),
                        seconds,
                        count(readings)?,
                    );
                }
            }
        }
        Ok(rates)
    }
}

/// Whether a job that failed so would fail again: it is not the disk, the bucket or the registry.
fn is_of_the_files(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotTheSame
            | StoreError::Chunk(_)
            | StoreError::Arrow(_)
            | StoreError::Count(_)
            | StoreError::Files(FilesError::TooLarge { .. })
    )
}

/// The rows of the next patient and bucket.
async fn next_group(
    merge: &mut Merge,
    rates: &Rates,
    job: &Job,
) -> Result<Option<Group>, StoreError> {
    let Some(first) = merge.peek() else {
        return Ok(None);
    };
    let subject: SubjectPseudonym = parsed(first.subject())?;
    let seconds = rates.width(subject.as_str(), job.level);
    let bucket = Bucket::around(first.start_us(), seconds);
    let (mut rows, mut bytes, mut readings, mut messages) = (Vec::new(), 0, 0, 0);
    while let Some(next) = merge.peek() {
        bytes += next.bytes();
        readings += next.readings();
        messages += next.messages();
        let full = bytes > CHUNK_BYTES || readings > CHUNK_READINGS || messages > CHUNK_MESSAGES;
        let another = next.subject() != subject.as_str()
            || Bucket::around(next.start_us(), seconds) != bucket;
        if another || (full && !rows.is_empty()) {
            break;
        }
        rows.extend(merge.next().await?);
    }
    Ok(Some(Group {
        table: job.table,
        subject,
        bucket,
        rows,
    }))
}

/// The files of a job in the making.
struct Outputs<'a> {
    store: &'a Store,
    level: u8,
    now: Timestamp,
    vitals: Output,
    waveforms: Output,
    written: Vec<Written>,
}

/// What is to be written of one table.
#[derive(Default)]
struct Output {
    chunks: Vec<ChunkRow>,
    left: Vec<SealedRow>,
    bytes: usize,
}

impl<'a> Outputs<'a> {
    fn of(store: &'a Store, job: &Job, now: Timestamp) -> Self {
        Self {
            store,
            level: job.level,
            now,
            vitals: Output::default(),
            waveforms: Output::default(),
            written: Vec::new(),
        }
    }

    fn table(&mut self, table: TableKind) -> &mut Output {
        match table {
            TableKind::Vitals => &mut self.vitals,
            TableKind::Waveforms => &mut self.waveforms,
        }
    }

    async fn take(&mut self, outcome: Outcome) -> Result<(), StoreError> {
        for (table, chunk) in outcome.chunks {
            let output = self.table(table);
            output.bytes += chunk.sealed.len() + chunk.evidence.len();
            output.chunks.push(chunk);
        }
        for (table, row) in outcome.left {
            let output = self.table(table);
            output.bytes += row.envelope.len();
            output.left.push(row);
        }
        for table in TableKind::ALL {
            if self.table(table).bytes >= FILE_BYTES {
                self.write(table).await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Written>, StoreError> {
        for table in TableKind::ALL {
            self.write(table).await?;
        }
        Ok(self.written)
    }

    async fn write(&mut self, table: TableKind) -> Result<(), StoreError> {
        let Output { chunks, left, .. } = std::mem::take(self.table(table));
        let chunks = chunks.chunks(ROWS).map(ChunkRow::record_batch);
        let left = left.chunks(ROWS).map(rows::record_batch);
        for (kind, batches) in [
            (FileKind::Chunks, chunks.collect::<Result<Vec<_>, _>>()?),
            (FileKind::Rows, left.collect::<Result<Vec<_>, _>>()?),
        ] {
            let shape = (table, kind, self.level);
            let written = self.store.write(shape, batches, self.now).await?;
            self.written.extend(written);
        }
        Ok(())
    }
}
