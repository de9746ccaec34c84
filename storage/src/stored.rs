//! Single stored messages, found again wherever they are: as evidence, and to try keys on.
//!
//! Files are sorted by patient, so what is looked for by device and counters is searched file after file: for evidence,
//! not for queries. Nothing here opens an envelope; that a key does is asked of [`StoredSample`].

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use futures::{StreamExt as _, TryStreamExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::RowGroupMetaData;
use vitalseal_crypto::{
    AtRest, BlobKey, Kid, MessageId, PatientKeys, Rejection, SubjectPseudonym, blob_kid,
    default_backend, open_blob,
};

use crate::catalog::{DataFile, FileKind, TableKind};
use crate::chunk::{ChunkRow, Devices};
use crate::columns;
use crate::compact::{context, open_evidence};
use crate::database::{number, parsed};
use crate::files::may_hold;
use crate::inbox::rows::SealedRow;
use crate::ports::Authorized;
use crate::schema;
use crate::store::{Store, StoreError};

/// Rows of a file that are in memory at once.
const ROWS: usize = 16;

/// Rows whose pseudonyms are read at once.
const SUBJECTS: usize = 8192;

/// What is taken for a sample from the inbox and from each file that has some: enough to tell a wrong key from a right
/// one.
const PER_SOURCE: usize = 4;

/// Files looked into for a sample, newest first. A patient with a long history is in hundreds, and an erasure takes under
/// a second.
const FILES: usize = 4;

/// Something of a patient that is stored sealed.
#[derive(Clone, Debug)]
pub enum StoredSample {
    /// A message.
    Envelope(Vec<u8>),
    /// The readings of a chunk.
    Chunk(TableKind, Box<ChunkRow>),
}

/// Why a sample does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// An envelope.
    #[error("opening a stored message")]
    Envelope(#[from] Rejection),
    /// A chunk.
    #[error("opening a sealed chunk")]
    Chunk(#[from] vitalseal_crypto::keys::KeyError),
}

impl StoredSample {
    /// The patient's key that it is wrapped under; `None` for what is damaged.
    #[must_use]
    pub fn kek_kid(&self) -> Option<Kid> {
        match self {
            Self::Envelope(envelope) => Some(AtRest::decode(envelope).ok()?.kek_kid().clone()),
            Self::Chunk(_, chunk) => blob_kid(&chunk.sealed).ok(),
        }
    }

    /// Whether one of these keys opens it.
    #[must_use]
    pub fn opens_with(&self, keys: &PatientKeys) -> bool {
        self.open(keys).is_ok()
    }

    /// Opens it with one of these keys, and forgets what is in it.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open(&self, keys: &PatientKeys) -> Result<(), SampleError> {
        let held = self.kek_kid().and_then(|kid| keys.find(&kid));
        let kek = held.unwrap_or(keys.current());
        match self {
            Self::Envelope(envelope) => {
                AtRest::decode(envelope)?.open(kek, default_backend())?;
            }
            Self::Chunk(table, chunk) => {
                let context = context(*table, chunk, schema::SEALED);
                let key = BlobKey::Patient(kek);
                open_blob(&chunk.sealed, key, &context, default_backend())?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// The stored envelope with these counters, at rest, from the inbox or from a file; `None` when it is in neither.
    ///
    /// # Errors
    /// When inbox, registry or a file cannot be read.
    pub async fn stored_envelope(
        &self,
        message: &MessageId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (boot, sequence) = (number(message.boot)?, number(message.sequence)?);
        // First the inbox, then the catalog: what is flushed in between is then in both, never in neither.
        let hot: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT envelope FROM inbox WHERE device = $1 AND boot = $2 AND sequence = $3",
        )
        .bind(message.device.as_str())
        .bind(boot)
        .bind(sequence)
        .fetch_optional(self.inbox.database().pool())
        .await?;
        if hot.is_some() {
            return Ok(hot);
        }
        for file in self.catalog.files().await?.iter() {
            let found = match file.kind {
                FileKind::Rows => self.find_row(file, message, (boot, sequence)).await?,
                FileKind::Chunks => self.find_evidence(file, message).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A handful of what is stored of a patient, to try keys on.
    ///
    /// # Errors
    /// When inbox, registry or a file cannot be read.
    pub async fn sample(
        &self,
        subject: &SubjectPseudonym,
    ) -> Result<Vec<StoredSample>, StoreError> {
        let cut = self.cut(&Authorized::new([subject.clone()].into())).await?;
        let mut samples = Vec::new();
        for row in 0..cut.hot.num_rows().min(PER_SOURCE) {
            samples.extend(sample_of(&SealedRow::of_batch(&cut.hot, row)?.envelope));
        }
        let mut files_with_some = 0;
        for file in cut
            .files
            .iter()
            .rev()
            .filter(|file| file.may_hold_of(subject))
        {
            let found = self.sample_of_file(file, subject).await?;
            files_with_some += usize::from(!found.is_empty());
            samples.extend(found);
            if files_with_some == FILES {
                break;
            }
        }
        Ok(samples)
    }

    async fn sample_of_file(
        &self,
        file: &DataFile,
        subject: &SubjectPseudonym,
    ) -> Result<Vec<StoredSample>, StoreError> {
        let wanted = subject.clone();
        let theirs = move |batch: &RecordBatch| {
            let subjects = columns::text(batch, schema::SUBJECT)?;
            Ok(subjects
                .iter()
                .map(|of| Some(of == Some(wanted.as_str())))
                .collect())
        };
        let groups = |group: &RowGroupMetaData| may_hold(group, subject.as_str());
        let on = &[schema::SUBJECT];
        // One chunk brings as many envelopes as are wanted.
        let limit = match file.kind {
            FileKind::Rows => PER_SOURCE,
            FileKind::Chunks => 1,
        };
        let batches = self.rows_where(file, on, theirs, groups, limit).await?;
        let keys = self.keys.store_keys().await?;
        let mut samples = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                if file.kind == FileKind::Rows {
                    samples.extend(sample_of(&SealedRow::of_batch(batch, row)?.envelope));
                    continue;
                }
                let chunk = ChunkRow::read(batch, row)?;
                let evidence = open_evidence(&chunk, file.table, &keys, default_backend());
                let envelopes = evidence.iter().flat_map(|evidence| evidence.iter());
                samples.extend(envelopes.take(PER_SOURCE).filter_map(sample_of));
                samples.push(StoredSample::Chunk(file.table, Box::new(chunk)));
            }
        }
        Ok(samples)
    }

    /// The first thing in a file of each patient who has some in it.
    pub(crate) async fn firsts_of(
        &self,
        file: &DataFile,
    ) -> Result<Vec<(SubjectPseudonym, StoredSample)>, StoreError> {
        let (mut ranges, mut count, mut last) = (Vec::new(), 0, None);
        let mut batches = self
            .files
            .batches(file, &[schema::SUBJECT], SUBJECTS)
            .boxed();
        while let Some(batch) = batches.try_next().await? {
            for subject in columns::text(&batch, schema::SUBJECT)?.iter().flatten() {
                // Rows are sorted by patient.
                if last.as_deref() != Some(subject) {
                    ranges.push(count..count + 1);
                    last = Some(subject.to_owned());
                }
                count += 1;
            }
        }
        let builder = ParquetRecordBatchStreamBuilder::new(self.files.reader(file)).await?;
        let first = RowSelection::from_consecutive_ranges(ranges.into_iter(), count);
        let mut batches = builder
            .with_row_selection(first)
            .with_batch_size(ROWS)
            .build()?;
        let mut samples = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            for row in 0..batch.num_rows() {
                let sample = match file.kind {
                    FileKind::Rows => {
                        StoredSample::Envelope(SealedRow::of_batch(&batch, row)?.envelope)
                    }
                    FileKind::Chunks => {
                        StoredSample::Chunk(file.table, Box::new(ChunkRow::read(&batch, row)?))
                    }
                };
                let subject = columns::text(&batch, schema::SUBJECT)?.value(row);
                samples.push((parsed(subject)?, sample));
            }
        }
        Ok(samples)
    }

    async fn find_row(
        &self,
        file: &DataFile,
        message: &MessageId,
        (boot, sequence): (i64, i64),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let device = message.device.clone();
        let fits = move |batch: &RecordBatch| {
            let devices = columns::text(batch, schema::DEVICE)?;
            let boots = columns::numbers::<Int64Type>(batch, schema::BOOT)?;
            let sequences = columns::numbers::<Int64Type>(batch, schema::SEQUENCE)?;
            let fits = |row: usize| {
                sequences.value(row) == sequence
                    && boots.value(row) == boot
                    && devices.value(row) == device.as_str()
            };
            Ok((0..batch.num_rows()).map(|row| Some(fits(row))).collect())
        };
        let on = &[schema::DEVICE, schema::BOOT, schema::SEQUENCE];
        let found = self.rows_where(file, on, fits, |_| true, 1).await?;
        let found = found.iter().find(|batch| batch.num_rows() > 0);
        let row = found
            .map(|batch| SealedRow::of_batch(batch, 0))
            .transpose()?;
        Ok(row.map(|row| row.envelope))
    }

    async fn find_evidence(
        &self,
        file: &DataFile,
        message: &MessageId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (device, place) = (message.device.clone(), (message.boot, message.sequence));
        let may = move |batch: &RecordBatch| {
            let may = columns::bytes(batch, schema::DEVICES)?
                .iter()
                .map(|devices| {
                    let devices = Devices::parse(devices.unwrap_or_default());
                    let devices = devices.map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
                    let of = devices.find(&device);
                    Ok(Some(
                        of.is_some_and(|of| of.first <= place && place <= of.last),
                    ))
                });
            may.collect::<Result<BooleanArray, ArrowError>>()
        };
        let batches = self
            .rows_where(file, &[schema::DEVICES], may, |_| true, usize::MAX)
            .await?;
        let keys = self.keys.store_keys().await?;
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let chunk = ChunkRow::read(batch, row)?;
                let Some(evidence) = open_evidence(&chunk, file.table, &keys, default_backend())
                else {
                    continue;
                };
                let is_it = |envelope: &&[u8]| {
                    AtRest::decode(envelope).is_ok_and(|e| e.header().message_id() == *message)
                };
                let found = evidence.iter().find(is_it).map(<[u8]>::to_vec);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// The rows of a file that fit, all their columns; the others are decoded only as far as the answer needs it.
    async fn rows_where(
        &self,
        file: &DataFile,
        on: &[&str],
        fits: impl Fn(&RecordBatch) -> Result<BooleanArray, ArrowError> + Send + 'static,
        groups: impl Fn(&RowGroupMetaData) -> bool,
        limit: usize,
    ) -> Result<Vec<RecordBatch>, StoreError> {
        let builder = ParquetRecordBatchStreamBuilder::new(self.files.reader(file)).await?;
        let on = ProjectionMask::columns(builder.parquet_schema(), on.iter().copied());
        let wanted = builder.metadata().row_groups().iter().enumerate();
        let wanted = wanted.filter(|(_, group)| groups(group)).map(|(n, _)| n);
        let wanted: Vec<usize> = wanted.collect();
        let fits = ArrowPredicateFn::new(on, move |batch| fits(&batch));
        let batches = builder
            .with_row_groups(wanted)
            .with_row_filter(RowFilter::new(vec![Box::new(fits)]))
            .with_batch_size(ROWS)
            .with_limit(limit)
            .build()?;
        Ok(batches.try_collect().await?)
    }
}

fn sample_of(envelope: &[u8]) -> Option<StoredSample> {
    AtRest::decode(envelope).ok()?;
    Some(StoredSample::Envelope(envelope.to_vec()))
}
