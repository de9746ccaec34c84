//! What the work on files has in common: one at a time, and the end of files that nobody reads any more.
//!
//! ```text
//! compaction ─┐                         ┌─ queries that began before ─┐
//! vacuum      ├─ commit ──▶ file ended ─┤                             ├──▶ removed
//! retention   │                         └─ a backup under way ────────┘
//! repair     ─┘                              at least the grace
//! ```
//!
//! Files are made beside flushes and queries; only the commit waits for a flush to end. A file that ended is removed once
//! nobody in this process holds a snapshot with it any more, and the grace is over, which is longer than any query takes.
//!
//! A caller that goes away leaves nothing half done: each file is written, and each change committed, in a task of its own,
//! and what nobody commits any more is cleared away as what a crash leaves is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;
use tokio::sync::OwnedMutexGuard;
use vitalseal_crypto::{AtRest, Backend, SubjectPseudonym, default_backend};

use crate::catalog::{
    Change, ChangeId, ChangeKind, DataFile, Extent, FileKind, Loss, Plan, TableKind,
};
use crate::columns;
use crate::crash::CrashPoint;
use crate::durable;
use crate::files::HALF;
use crate::flush;
use crate::paths::data_file;
use crate::ports::{Actor, AuditEvent, AuditRecord, AuditSink};
use crate::schema;
use crate::store::{Store, StoreError};

/// How long a file stays after it ended: longer than any query takes.
pub const GRACE: SignedDuration = SignedDuration::from_mins(30);

/// How long a file is left out that could not be used.
const SHUNNED: SignedDuration = SignedDuration::from_hours(1);

/// For how long a repeated commit would be known.
const CHANGES_KEPT: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What the store keeps for the work on its files.
#[derive(Default)]
pub(crate) struct Upkeep {
    working: Arc<tokio::sync::Mutex<()>>,
    /// Files that a compaction could not use, and until when they are left out.
    shunned: Mutex<HashMap<Path, Timestamp>>,
}

impl Upkeep {
    /// Files that are left out at this instant; each is tried again after a while.
    pub(crate) fn shunned(&self, now: Timestamp) -> HashSet<Path> {
        let mut shunned = self.lock();
        shunned.retain(|_, until| *until > now);
        shunned.keys().cloned().collect()
    }

    pub(crate) fn shun(&self, files: impl IntoIterator<Item = Path>, now: Timestamp) {
        let until = now.checked_add(SHUNNED).unwrap_or(Timestamp::MAX);
        let files = files.into_iter().map(|file| (file, until));
        self.lock().extend(files);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Path, Timestamp>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the end of files came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GarbageReport {
    /// Files that were removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that ended and stay until their grace is over.
    pub waiting: u64,
    /// Erased patients of whom nothing is left in any file from now on.
    pub dropped: Vec<SubjectPseudonym>,
}

/// A file that was written under a plan and waits for its commit.
pub(crate) struct Written {
    pub(crate) file: DataFile,
    _plan: Plan,
}

impl Store {
    /// One compaction, vacuum, retention or repair at a time.
    pub(crate) async fn upkeep_alone(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.upkeep().working).lock_owned().await
    }

    /// Removes files that ended longer ago than `grace` and that nobody reads, and notes of whom nothing is left then. While
    /// a bucket keeps versions of what was removed, a copy of a damaged file lies [aside](crate::StorePaths::damaged), or a
    /// file lies among the others that the registry does not know, nobody is noted.
    ///
    /// # Errors
    /// When a file cannot be removed or its end not be noted: the next time takes it up. When the end of an erased
    /// patient's ciphertext cannot be recorded; it is not noted then.
    pub async fn collect_garbage(
        &self,
        now: Timestamp,
        grace: SignedDuration,
        by: Actor,
        audit: &dyn AuditSink,
    ) -> Result<GarbageReport, StoreError> {
        let _alone = self.upkeep_alone().await;
        flush::clear_planned(&self.catalog, &self.files, now).await?;
        let mut report = GarbageReport::default();
        let read = self.catalog.read_now().await?;
        for ended in self.catalog.removable().await? {
            if read.contains(&ended.file) || now.duration_since(ended.ended_at) < grace {
                report.waiting += 1;
                continue;
            }
            self.files.remove(&ended.file).await?;
            self.crash().reached(CrashPoint::GarbageRemoved)?;
            self.catalog.forget(&ended.file).await?;
            report.files += 1;
            report.bytes += ended.size;
        }
        let before = now.checked_sub(CHANGES_KEPT).unwrap_or(Timestamp::MIN);
        self.catalog.forget_changes(before).await?;
        let gone = self.catalog.gone().await?;
        if gone.is_empty() || self.keeps_what_is_removed().await? {
            return Ok(report);
        }
        report.dropped = gone.into_iter().map(|stone| stone.subject).collect();
        let event = AuditEvent::CiphertextDropped {
            patients: report.dropped.clone(),
            files: report.files,
            bytes: report.bytes,
        };
        let (at, actor) = (now, by);
        audit.record(AuditRecord { at, actor, event }).await?;
        for subject in &report.dropped {
            self.catalog.note_dropped(subject, now).await?;
        }
        Ok(report)
    }

    /// Whether a removal may not be the end. A bucket that keeps versions says so of every file written since it does, and
    /// one without a file to ask about is not believed; what was damaged is kept aside until somebody removes it; and what a
    /// registry forgot that went back is nobody's to remove.
    async fn keeps_what_is_removed(&self) -> Result<bool, StoreError> {
        let aside = self.paths().damaged();
        if !durable::names(&aside)?.is_empty() {
            tracing::warn!(
                directory = %aside.display(),
                "copies of damaged files may hold rows of the erased; remove them, and their end can be noted"
            );
            return Ok(true);
        }
        let unknown = self.unknown_files().await?;
        if let Some(first) = unknown.first() {
            tracing::warn!(
                files = unknown.len(),
                first,
                place = self.files.place(),
                "files that the registry does not know may hold rows of the erased; remove what is nobody's, and their end can \
                 be noted"
            );
            return Ok(true);
        }
        if self.files.is_local() {
            return Ok(false);
        }
        let Some(file) = self.catalog.files().await?.last().cloned() else {
            return Ok(true);
        };
        let there = self.files.size(file.path.as_ref()).await?;
        Ok(there.is_none() || self.files.keeps_versions())
    }

    /// Names among the data files that the catalog does not know, in whatever state: nobody reads or removes them. It is
    /// asked before and after: what is written or removed meanwhile is known by one of the two, a half of it by its whole.
    pub(crate) async fn unknown_files(&self) -> Result<Vec<String>, StoreError> {
        let mut known: HashSet<String> = self.catalog.names().await?.into_iter().collect();
        let found = self.files.names().await?;
        known.extend(self.catalog.names().await?);
        let is_known = |name: &str| known.contains(name.strip_suffix(HALF).unwrap_or(name));
        let names = found.into_iter().map(|(name, _)| name);
        Ok(names.filter(|name| !is_known(name)).collect())
    }

    /// Replaces a file by one with these rows of it, in their order, or by none; `losses` are recorded along. The caller
    /// is [alone](Store::upkeep_alone).
    ///
    /// # Errors
    /// When the rows cannot be read, or the file not be written: then nothing has changed.
    pub(crate) async fn rewrite(
        &self,
        file: &DataFile,
        kept: impl Stream<Item = Result<RecordBatch, StoreError>> + Send,
        what: ChangeKind,
        losses: Vec<Loss>,
        now: Timestamp,
    ) -> Result<Vec<DataFile>, StoreError> {
        let kept: Vec<RecordBatch> = kept.try_collect().await?;
        let mut written = Vec::new();
        for (table, batches) in by_table(file, kept)? {
            let shape = (table, file.kind, file.level);
            written.extend(self.write(shape, batches, now).await?);
        }
        self.crash().reached(CrashPoint::UpkeepProved)?;
        let end = vec![file.path.clone()];
        let change = Change {
            losses,
            ..Change::new(what, &written, end, default_backend())?
        };
        let add = change.add.clone();
        self.commit(change, written, now).await?;
        Ok(add)
    }

    /// Writes a file under a plan of its own, and reads it back; none for no rows.
    pub(crate) async fn write(
        &self,
        shape: (TableKind, FileKind, u8),
        batches: Vec<RecordBatch>,
        now: Timestamp,
    ) -> Result<Option<Written>, StoreError> {
        let store = self.clone();
        tokio::spawn(async move { store.write_planned(shape, batches, now).await }).await?
    }

    async fn write_planned(
        self,
        (table, kind, level): (TableKind, FileKind, u8),
        batches: Vec<RecordBatch>,
        now: Timestamp,
    ) -> Result<Option<Written>, StoreError> {
        let mut extent = Extent::default();
        for batch in &batches {
            extent.add_batch(kind, batch)?;
        }
        if extent.is_empty() {
            return Ok(None);
        }
        let mut id = [0; 16];
        default_backend().fill_random(&mut id)?;
        let name = data_file(kind, &id);
        let plan = self.catalog.plan(vec![name.clone()], now).await?;
        self.crash().reached(CrashPoint::UpkeepPlanned)?;
        let mut given = Given(batches.iter().cloned().collect());
        let written = self
            .files
            .put(&name, kind, batches.into_iter().map(Ok))
            .await?;
        self.crash().reached(CrashPoint::UpkeepWritten)?;
        let file = extent.describe(&name, (table, kind, level), written, now)?;
        let mut batches = self.rows_of(&file, |_| true).boxed();
        while let Some(found) = batches.try_next().await? {
            given.take(&found)?;
        }
        given.end()?;
        Ok(Some(Written { file, _plan: plan }))
    }

    /// Commits while no flush is under way. `written` are the files that begin: their plans live until it is done.
    pub(crate) async fn commit(
        &self,
        change: Change,
        written: Vec<Written>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let store = self.clone();
        let commit = async move {
            let _quiet = store.hold_flushes().await;
            store.catalog.commit(&change, now).await?;
            drop(written);
            Ok::<_, StoreError>(store.crash().reached(CrashPoint::UpkeepCommitted)?)
        };
        tokio::spawn(commit).await?
    }
}

impl Change {
    /// These files begin, those end.
    pub(crate) fn new(
        what: ChangeKind,
        begin: &[Written],
        end: Vec<Path>,
        backend: &dyn Backend,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            id: ChangeId::draw(backend)?,
            what,
            add: begin.iter().map(|written| written.file.clone()).collect(),
            end,
            watermark: None,
            losses: Vec::new(),
        })
    }
}

/// Rows that were written, and must be found when their file is read back.
struct Given(VecDeque<RecordBatch>);

impl Given {
    /// Takes rows off the front, which these must be.
    fn take(&mut self, found: &RecordBatch) -> Result<(), StoreError> {
        let mut at = 0;
        while at < found.num_rows() {
            let given = self.0.pop_front().ok_or(StoreError::NotTheSame)?;
            let (rows, left) = (given.num_rows(), found.num_rows() - at);
            let both = rows.min(left);
            if given.slice(0, both).columns() != found.slice(at, both).columns() {
                return Err(StoreError::NotTheSame);
            }
            if both < rows {
                self.0.push_front(given.slice(both, rows - both));
            }
            at += both;
        }
        Ok(())
    }

    fn end(self) -> Result<(), StoreError> {
        let is_empty = self.0.iter().all(|batch| batch.num_rows() == 0);
        is_empty.then_some(()).ok_or(StoreError::NotTheSame)
    }
}

/// The rows of each table. Only a file of version 3 has rows of both: which is which stands in the envelope.
fn by_table(
    file: &DataFile,
    batches: Vec<RecordBatch>,
) -> Result<Vec<(TableKind, Vec<RecordBatch>)>, StoreError> {
    if file.encrypted {
        return Ok(vec![(file.table, batches)]);
    }
    let mut parts = Vec::new();
    for table in TableKind::ALL {
        let mut part = Vec::new();
        for batch in &batches {
            let envelopes = columns::bytes(batch, schema::ENVELOPE)?;
            let of_table = envelopes
                .iter()
                .map(|envelope| Some(table_of(envelope.unwrap_or_default(), file.table) == table));
            let of_table: BooleanArray = of_table.collect();
            part.push(filter_record_batch(batch, &of_table)?);
        }
        parts.push((table, part));
    }
    Ok(parts)
}

/// Which table a stored envelope belongs to; `otherwise` for what is none.
pub(crate) fn table_of(envelope: &[u8], otherwise: TableKind) -> TableKind {
    let read = AtRest::decode(envelope);
    read.map_or(otherwise, |at_rest| at_rest.header().content_type.into())
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(numbers: Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    #[test]
    fn rows_that_were_written_are_found_again_all_of_them_in_their_order() {
        let back = |found: &[Range<i64>]| {
            let mut given = Given([rows(0..3), rows(0..0), rows(3..10)].into());
            let mut found = found.iter().cloned();
            let taken = found.try_for_each(|found| given.take(&rows(found)));
            taken.and_then(|()| given.end()).is_ok()
        };
        assert!(back(&[0..2, 2..2, 2..8, 8..10]));
        for (one, two) in [(0..5, 5..9), (0..5, 5..11), (0..3, 4..11), (3..10, 0..3)] {
            assert!(!back(&[one.clone(), two.clone()]), "{one:?} {two:?}");
        }
    }
}
