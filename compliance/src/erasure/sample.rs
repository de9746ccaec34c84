//! A handful of the patient's stored envelopes, from the inbox and from files, to try keys on.

use arrow::array::{Array as _, ArrayRef, BinaryArray, BooleanArray, StringArray};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt as _;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::ports::Authorized;
use vitalseal_storage::{DataFile, Store, StoreError, schema};

/// Envelopes taken from the inbox and from each file that has some: enough to tell a wrong key from a right one.
const PER_SOURCE: usize = 4;

/// Files looked into, newest first. A patient with a long history is in hundreds, and an erasure takes under a second.
const FILES: usize = 4;

/// Stored envelopes could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The store failed.
    #[error("listing the patient's stored messages")]
    Store(#[from] StoreError),
    /// A file could not be read.
    #[error("reading the patient's sealed messages from a file")]
    File(#[from] ParquetError),
    /// A file has not the columns of sealed rows.
    #[error("a file of sealed messages has other columns than it should")]
    Columns,
}

/// Takes the sample.
pub(super) async fn sample(
    store: &Store,
    subject: &SubjectPseudonym,
) -> Result<Vec<Vec<u8>>, SampleError> {
    let only = Authorized::new([subject.clone()].into());
    let cut = store.cut(&only).await?;
    let mut envelopes = envelopes_in(&cut.hot, subject)?;
    envelopes.truncate(PER_SOURCE);
    let mut files_with_some = 0;
    for file in cut.files.iter().rev() {
        let found = envelopes_of_file(store, file, subject).await?;
        if !found.is_empty() {
            files_with_some += 1;
            envelopes.extend(found);
        }
        if files_with_some == FILES {
            break;
        }
    }
    Ok(envelopes)
}

async fn envelopes_of_file(
    store: &Store,
    file: &DataFile,
    subject: &SubjectPseudonym,
) -> Result<Vec<Vec<u8>>, SampleError> {
    let builder = ParquetRecordBatchStreamBuilder::new(store.files.reader(file)).await?;
    let columns = builder.parquet_schema();
    let both = ProjectionMask::columns(columns, [schema::SUBJECT, schema::ENVELOPE]);
    let subjects = ProjectionMask::columns(columns, [schema::SUBJECT]);
    let groups = builder
        .metadata()
        .row_groups()
        .iter()
        .enumerate()
        .filter(|(_, group)| may_hold(group, subject))
        .map(|(i, _)| i)
        .collect::<Vec<_>>();
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    // Envelopes are decoded only for rows that the filter lets through.
    let wanted = subject.clone();
    let is_theirs = ArrowPredicateFn::new(subjects, move |batch: RecordBatch| {
        let subjects: &StringArray = column(batch.column_by_name(schema::SUBJECT))
            .ok_or_else(|| arrow::error::ArrowError::SchemaError("no subject column".into()))?;
        Ok(subjects
            .iter()
            .map(|subject| Some(subject == Some(wanted.as_str())))
            .collect::<BooleanArray>())
    });
    let batches: Vec<RecordBatch> = builder
        .with_projection(both)
        .with_row_groups(groups)
        .with_row_filter(RowFilter::new(vec![Box::new(is_theirs)]))
        .with_limit(PER_SOURCE)
        .build()?
        .try_collect()
        .await?;
    let mut envelopes = Vec::new();
    for batch in &batches {
        envelopes.extend(envelopes_in(batch, subject)?);
    }
    Ok(envelopes)
}

/// Rows are sorted by subject, so the statistics rule out nearly every row group.
fn may_hold(group: &RowGroupMetaData, subject: &SubjectPseudonym) -> bool {
    let column = group
        .columns()
        .iter()
        .find(|c| c.column_path().string() == schema::SUBJECT);
    let Some(Statistics::ByteArray(range)) = column.and_then(|column| column.statistics()) else {
        return true;
    };
    range
        .min_opt()
        .is_none_or(|min| min.data() <= subject.as_bytes())
        && range
            .max_opt()
            .is_none_or(|max| max.data() >= subject.as_bytes())
}

fn envelopes_in(
    batch: &RecordBatch,
    subject: &SubjectPseudonym,
) -> Result<Vec<Vec<u8>>, SampleError> {
    let subjects: &StringArray =
        column(batch.column_by_name(schema::SUBJECT)).ok_or(SampleError::Columns)?;
    let envelopes: &BinaryArray =
        column(batch.column_by_name(schema::ENVELOPE)).ok_or(SampleError::Columns)?;
    Ok(subjects
        .iter()
        .zip(envelopes.iter())
        .filter(|(owner, _)| *owner == Some(subject.as_str()))
        .filter_map(|(_, envelope)| envelope.map(<[u8]>::to_vec))
        .take(PER_SOURCE)
        .collect())
}

fn column<T: 'static>(array: Option<&ArrayRef>) -> Option<&T> {
    array?.as_any().downcast_ref()
}
