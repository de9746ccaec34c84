//! From the inbox to one Parquet file.
//!
//! | # | Step | What a crash right after it leaves | What [`recover`] does on open |
//! |---|---|---|---|
//! | 1 | catalog: the file `planned`, under a random name | a plan without a file | forgets the plan |
//! | 2 | `<file>.tmp` written | a partial file under another name | removes it, forgets the plan |
//! | 3 | synced, renamed to `<file>`, directory synced | a whole file that nobody reads | removes it, forgets the plan |
//! | 4 | catalog, one transaction: the file `live`, watermark at the highest row in it | rows in the file *and* in the inbox; readers drop inbox rows up to the watermark | deletes those rows |
//! | 5 | inbox rows up to the watermark deleted | – | nothing |
//!
//! Until 4 commits the rows are in the inbox only; from then on in the file only. Only a file with
//! a plan is ever removed: one that the catalog does not know at all is left alone and reported,
//! since it may belong to a newer registry.
//!
//! `object_store`'s local file system does not sync what it writes, so a file is written here with
//! `std::fs` and synced before it is renamed; readers go through `object_store`. The name is
//! random: no path tells of a patient.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use vitalseal_crypto::Backend;

use crate::catalog::{
    Catalog, Change, ChangeId, ChangeKind, DataFile, FileKind, Snapshot, SnapshotId, TableKind,
};
use crate::crash::{CrashHook, CrashPoint};
use crate::durable::{self, failed};
use crate::inbox::Inbox;
use crate::inbox::rows::{self, SealedRow};
use crate::paths::data_file;
use crate::schema;
use crate::sqlite::{at, count};
use crate::store::StoreError;

/// Limits of one file: what is read, sorted and written in memory at once.
const MAX_ROWS: usize = 200_000;
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// Rows in a row group. They are sorted by patient, so a group is what a query about one patient
/// reads.
const ROWS_IN_GROUP: usize = 4096;

/// What a flush did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlushReport {
    /// Rows that went to the file.
    pub messages: u64,
    /// Readings inside.
    pub readings: u64,
    /// The file; `None` when there was nothing to flush.
    pub file: Option<String>,
    /// More is waiting than one file takes: flush again.
    pub more: bool,
}

/// Steps 1 to 5. The caller sees to it that there is one flush at a time.
pub(crate) async fn flush(
    inbox: &Inbox,
    catalog: &Catalog,
    parquet: &Path,
    backend: &dyn Backend,
    crash: &CrashHook,
    now: Timestamp,
) -> Result<FlushReport, StoreError> {
    // Whatever is planned now was left by a flush that failed: its file must not eat the space that the
    // inbox needs.
    clear_planned(catalog, parquet).await?;
    // A flush that failed after step 4 left rows behind that are in a file already.
    inbox.delete_flushed(catalog.current().await?.high).await?;
    let (rows, more) = rows::oldest(MAX_ROWS, MAX_BYTES, inbox.database().pool()).await?;
    let Some(high) = rows.iter().map(|row| row.id).max() else {
        return Ok(FlushReport::default());
    };
    let name = random_name(backend)?;
    let plan = catalog.plan(vec![name.clone()], now).await?;
    crash.reached(CrashPoint::FlushPlanned)?;
    let mut file = describe(&rows, &name, now)?;
    let (path, hook) = (parquet.join(&name), crash.clone());
    file.size = tokio::task::spawn_blocking(move || write_file(rows, &path, &hook)).await??;
    crash.reached(CrashPoint::FileRenamed)?;
    let (messages, readings) = (file.messages, file.readings);
    let change = Change {
        id: ChangeId::draw(backend)?,
        what: ChangeKind::Flush,
        add: vec![file],
        end: Vec::new(),
        watermark: Some(high),
    };
    catalog.commit(&change, now).await?;
    drop(plan);
    crash.reached(CrashPoint::FlushCatalogued)?;
    inbox.delete_flushed(high).await?;
    Ok(FlushReport {
        messages,
        readings,
        file: Some(name),
        more,
    })
}

/// Finishes or undoes what a crash interrupted.
pub(crate) async fn recover(
    inbox: &Inbox,
    catalog: &Catalog,
    parquet: &Path,
) -> Result<(), StoreError> {
    clear_planned(catalog, parquet).await?;
    let Snapshot { files, high, .. } = catalog.current().await?;
    inbox.delete_flushed(high).await?;
    for file in files.iter() {
        let path = parquet.join(file.path.as_ref());
        if !path.is_file() {
            tracing::error!(path = %path.display(), "a data file of the catalog is missing; restore it, queries fail until then");
        }
    }
    for name in durable::names(parquet)? {
        if !files
            .iter()
            .any(|file| name.to_str() == Some(file.path.as_ref()))
        {
            tracing::warn!(file = ?name, "the catalog does not know this file; it is left alone and not read");
        }
    }
    Ok(())
}

/// Removes the files that interrupted flushes planned and never published.
async fn clear_planned(catalog: &Catalog, parquet: &Path) -> Result<(), StoreError> {
    for name in catalog.left_planned().await? {
        let path = parquet.join(&name);
        durable::remove(&path)?;
        durable::remove(&partial(&path))?;
        catalog.unplan(&name).await?;
        tracing::info!(file = %name, "removed a file that an interrupted flush left; its rows are in the inbox");
    }
    Ok(())
}

fn random_name(backend: &dyn Backend) -> Result<String, StoreError> {
    let mut id = [0; 16];
    backend.fill_random(&mut id)?;
    Ok(data_file(&id))
}

fn partial(path: &Path) -> PathBuf {
    path.with_extension("parquet.tmp")
}

/// Steps 2 and 3; the size of the file.
fn write_file(mut rows: Vec<SealedRow>, path: &Path, crash: &CrashHook) -> Result<u64, StoreError> {
    rows.sort_unstable_by(|a, b| {
        (&a.subject, a.first_at_us, a.id).cmp(&(&b.subject, b.first_at_us, b.id))
    });
    let batch = rows::record_batch(&rows)?;
    drop(rows);
    let partial = partial(path);
    let file = durable::create_new(&partial)?;
    let file = write_parquet(&batch, file)?;
    crash.reached(CrashPoint::FileHalfWritten)?;
    file.sync_all().map_err(failed("syncing", &partial))?;
    let size = file.metadata().map_err(failed("reading", &partial))?.len();
    durable::rename(&partial, path)?;
    Ok(size)
}

fn write_parquet(batch: &RecordBatch, file: File) -> Result<File, StoreError> {
    let column = |name: &str| ColumnPath::from(name);
    let sorted = |column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: false,
    };
    let index = |name: &str| Ok::<_, StoreError>(i32::try_from(batch.schema().index_of(name)?)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        // Ciphertext does not shrink, and whoever searches a file for what must not be in it can then
        // read the bytes as they were written.
        .set_column_compression(column(schema::ENVELOPE), Compression::UNCOMPRESSED)
        .set_max_row_group_row_count(Some(ROWS_IN_GROUP))
        .set_sorting_columns(Some(vec![
            sorted(index(schema::SUBJECT)?),
            sorted(index(schema::FIRST_AT)?),
        ]))
        .set_column_dictionary_enabled(column(schema::ENVELOPE), false)
        .set_column_statistics_enabled(column(schema::ENVELOPE), EnabledStatistics::None)
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

/// What the catalog notes of a file; its size is known once it is written.
fn describe(rows: &[SealedRow], name: &str, now: Timestamp) -> Result<DataFile, StoreError> {
    let least = |of: fn(&SealedRow) -> i64| rows.iter().map(of).min().unwrap_or_default();
    let most = |of: fn(&SealedRow) -> i64| rows.iter().map(of).max().unwrap_or_default();
    Ok(DataFile {
        path: object_store::path::Path::from(name),
        table: TableKind::Vitals,
        kind: FileKind::Rows,
        level: 0,
        encrypted: false,
        size: 0,
        sha256: None,
        footer: Arc::default(),
        rows: u64::try_from(rows.len())?,
        messages: u64::try_from(rows.len())?,
        readings: count(rows.iter().map(|row| i64::from(row.readings)).sum())?,
        first_at: at(least(|row| row.first_at_us))?,
        last_at: at(most(|row| row.last_at_us))?,
        received_first_at: at(least(|row| row.received_at_us))?,
        received_last_at: at(most(|row| row.received_at_us))?,
        subjects: None,
        written_at: now,
        begin: SnapshotId::default(),
    })
}
