//! From the inbox to Parquet: one file of rows for each table that has some.
//!
//! | # | Step | What a crash right after it leaves | What [`recover`] does on open |
//! |---|---|---|---|
//! | 1 | catalog: the files `planned`, under random names | a plan without a file | forgets the plan |
//! | 2 | `<file>.tmp` written; to a bucket: the PUT under way | a partial file under another name; in a bucket nothing | removes it, forgets the plan |
//! | 3 | synced, renamed to `<file>`, directory synced; in a bucket: the PUT answered | a whole file that nobody reads | removes it, forgets the plan |
//! | 4 | catalog, one transaction: the files `live`, watermark at the highest row in them | rows in the files *and* in the inbox; readers drop inbox rows up to the watermark | notes the change, deletes those rows |
//! | 5 | the change noted in the inbox's journal | the same | the same |
//! | 6 | inbox rows up to the watermark deleted | – | nothing |
//!
//! Until 4 commits the rows are in the inbox only; from then on in the files only. From 5 on the registry may go back
//! and gets the files again ([`Catalog::settle`], which comes before everything here that removes). Only a file with
//! a plan is ever removed: one that the catalog does not know at all is left alone and reported,
//! since it may belong to a newer registry.
//!
//! A bucket that does not answer when a store opens keeps it from nothing but reading: devices deliver to the inbox, and
//! the next flush clears away what [`recover`] could not.

use std::collections::HashMap;
use std::error::Error;

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{AtRest, Backend};

use crate::catalog::{
    Catalog, Change, ChangeId, ChangeKind, DataFile, FileKind, Snapshot, SnapshotId, TableKind,
};
use crate::crash::{CrashHook, CrashPoint};
use crate::database::{at, count, parsed};
use crate::files::{FilesError, SealedFiles, WrittenFile};
use crate::inbox::Inbox;
use crate::inbox::rows::{self, SealedRow};
use crate::paths::data_file;
use crate::store::StoreError;

/// Limits of one flush: what is read, sorted and written in memory at once.
const MAX_ROWS: usize = 200_000;
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// Rows that are laid out at a time.
const BATCH: usize = 4096;

/// After this long, no PUT is answered that nobody waits for: several times what a request may take.
const LATE: SignedDuration = SignedDuration::from_mins(30);

/// What a flush did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlushReport {
    /// One for each table that had some; none when there was nothing to flush.
    pub files: Vec<FlushedFile>,
    /// More is waiting than one flush takes: flush again.
    pub more: bool,
}

impl FlushReport {
    /// Rows that went to files.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.files.iter().map(|file| file.messages).sum()
    }
}

/// A file that a flush wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlushedFile {
    /// Its name.
    pub name: String,
    /// Rows that went to it.
    pub messages: u64,
    /// Readings inside.
    pub readings: u64,
}

/// Steps 1 to 6. The caller sees to it that there is one flush at a time.
pub(crate) async fn flush(
    inbox: &Inbox,
    catalog: &Catalog,
    files: &SealedFiles,
    backend: &dyn Backend,
    crash: &CrashHook,
    now: Timestamp,
) -> Result<FlushReport, StoreError> {
    // Whatever is planned now was left by a flush that failed: its files must not eat the space that the
    // inbox needs.
    clear_planned(catalog, files, now).await?;
    // A flush that failed after step 4 left rows behind that are in a file already.
    inbox.delete_flushed(catalog.current().await?.high).await?;
    let (rows, more) = rows::oldest(MAX_ROWS, MAX_BYTES, inbox.database().pool()).await?;
    let Some(high) = rows.iter().map(|row| row.id).max() else {
        return Ok(FlushReport::default());
    };
    let mut planned = Vec::new();
    for (table, rows) in by_table(rows) {
        planned.push((random_name(backend)?, table, rows));
    }
    let names = planned.iter().map(|(name, ..)| name.clone()).collect();
    let plan = catalog.plan(names, now).await?;
    crash.reached(CrashPoint::FlushPlanned)?;
    let mut add = Vec::new();
    for (name, table, rows) in planned {
        add.push(write(files, name, table, rows, now).await?);
    }
    crash.reached(CrashPoint::FileRenamed)?;
    let flushed = |file: &DataFile| FlushedFile {
        name: file.path.to_string(),
        messages: file.messages,
        readings: file.readings,
    };
    let files = add.iter().map(flushed).collect();
    let change = Change {
        id: ChangeId::draw(backend)?,
        what: ChangeKind::Flush,
        add,
        end: Vec::new(),
        watermark: Some(high),
        losses: Vec::new(),
    };
    catalog.commit(&change, now).await?;
    drop(plan);
    crash.reached(CrashPoint::FlushCatalogued)?;
    inbox.delete_flushed(high).await?;
    Ok(FlushReport { files, more })
}

/// Finishes or undoes what a crash interrupted.
pub(crate) async fn recover(
    inbox: &Inbox,
    catalog: &Catalog,
    files: &SealedFiles,
) -> Result<(), StoreError> {
    catalog.settle().await?;
    let Snapshot {
        files: live, high, ..
    } = catalog.current().await?;
    inbox.delete_flushed(high).await?;
    let cleared = async {
        files.claim(&live).await?;
        clear_planned(catalog, files, Timestamp::MIN).await
    };
    match cleared.await {
        Ok(()) => {}
        // Another store lives there, and reads what this one would take for its own.
        Err(error @ StoreError::Files(FilesError::Foreign { .. } | FilesError::Settings(_))) => {
            return Err(error);
        }
        Err(error @ StoreError::Files(_)) => {
            tracing::error!(
                error = &error as &dyn Error,
                "the place of the data files cannot be used; what an interrupted flush left there stays until it can"
            );
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    compare(catalog, files, &live).await
}

/// Says which files are missing, and which are there that the catalog does not know.
async fn compare(
    catalog: &Catalog,
    files: &SealedFiles,
    live: &[DataFile],
) -> Result<(), StoreError> {
    let mut there: HashMap<String, u64> = match files.names().await {
        Ok(names) => names.into_iter().collect(),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn Error,
                "the data files could not be listed; queries fail until they can be read"
            );
            return Ok(());
        }
    };
    for file in live {
        if there.remove(file.path.as_ref()).is_none() {
            tracing::error!(file = %file.path, place = files.place(), "a data file of the catalog is missing; restore it, queries fail until then");
        }
    }
    for ended in catalog.ended().await? {
        there.remove(&ended.file);
    }
    for name in there.keys() {
        tracing::warn!(file = ?name, "the catalog does not know this file; it is left alone and not read");
    }
    Ok(())
}

/// Removes the files that were planned and never published. A bucket may complete a PUT after its client gave up on it, so
/// there a plan is kept for a while, and what comes late is removed the next time.
pub(crate) async fn clear_planned(
    catalog: &Catalog,
    files: &SealedFiles,
    now: Timestamp,
) -> Result<(), StoreError> {
    for (name, planned_at) in catalog.left_planned().await? {
        files.remove(&name).await?;
        if files.is_local() || now.duration_since(planned_at) > LATE {
            catalog.unplan(&name).await?;
            tracing::info!(file = %name, "removed a file that an interrupted flush or compaction left; its rows are where they were");
        }
    }
    Ok(())
}

/// Which table a row belongs to stands in its envelope. One that cannot be read is kept where most are: nothing that was
/// acknowledged is dropped for it.
fn by_table(rows: Vec<SealedRow>) -> impl Iterator<Item = (TableKind, Vec<SealedRow>)> {
    let table = |row: &SealedRow| match AtRest::decode(&row.envelope) {
        Ok(envelope) => TableKind::from(envelope.header().content_type),
        Err(_) => TableKind::Vitals,
    };
    let (waveforms, vitals): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| table(row) == TableKind::Waveforms);
    [
        (TableKind::Vitals, vitals),
        (TableKind::Waveforms, waveforms),
    ]
    .into_iter()
    .filter(|(_, rows)| !rows.is_empty())
}

fn random_name(backend: &dyn Backend) -> Result<String, StoreError> {
    let mut id = [0; 16];
    backend.fill_random(&mut id)?;
    Ok(data_file(FileKind::Rows, &id))
}

/// Steps 2 and 3, and what the catalog notes of the file.
async fn write(
    files: &SealedFiles,
    name: String,
    table: TableKind,
    mut rows: Vec<SealedRow>,
    now: Timestamp,
) -> Result<DataFile, StoreError> {
    rows.sort_unstable_by(|a, b| {
        (&a.subject, a.first_at_us, a.id).cmp(&(&b.subject, b.first_at_us, b.id))
    });
    let least = |of: fn(&SealedRow) -> i64| rows.iter().map(of).min().unwrap_or_default();
    let most = |of: fn(&SealedRow) -> i64| rows.iter().map(of).max().unwrap_or_default();
    let ends = rows.first().zip(rows.last());
    let subjects = match ends {
        Some((first, last)) => Some((parsed(&first.subject)?, parsed(&last.subject)?)),
        None => None,
    };
    let mut file = DataFile {
        path: object_store::path::Path::from(name.as_str()),
        table,
        kind: FileKind::Rows,
        level: 0,
        encrypted: true,
        size: 0,
        sha256: None,
        footer: [].into(),
        rows: 0,
        messages: u64::try_from(rows.len())?,
        readings: count(rows.iter().map(|row| i64::from(row.readings)).sum())?,
        subjects,
        first_at: at(least(|row| row.first_at_us))?,
        last_at: at(most(|row| row.last_at_us))?,
        received_first_at: at(least(|row| row.received_at_us))?,
        received_last_at: at(most(|row| row.received_at_us))?,
        written_at: now,
        begin: SnapshotId::default(),
    };
    // Some at a time: all at once would hold every envelope twice.
    let mut rows = rows.into_iter();
    let batches = std::iter::from_fn(move || {
        let some: Vec<SealedRow> = rows.by_ref().take(BATCH).collect();
        (!some.is_empty()).then(|| Ok(rows::record_batch(&some)?))
    });
    let WrittenFile {
        size,
        sha256,
        footer,
        rows,
    } = files.put(&name, FileKind::Rows, batches).await?;
    (file.size, file.sha256, file.footer, file.rows) = (size, Some(sha256), footer, rows);
    Ok(file)
}
