//! What is opened of sealed rows, piece by piece: a series of a chunk, or a message.
//!
//! The clear columns of a row are hints. A message's subject, device and counters must equal its envelope's protected
//! header; a chunk's patient and bucket are bound into its blob. Whatever does not hold ends the query with an error that
//! names the place, and says nothing of what is in it.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use jiff::Timestamp;
use vitalseal_crypto::{
    AtRest, Backend, BlobContext, BlobKey, DeviceId, MessageId, PatientKeys, SubjectPseudonym,
    blob_kid, default_backend, open_blob,
};
use vitalseal_storage::catalog::{FileKind, TableKind};
use vitalseal_storage::chunk::{Readings, Series};
use vitalseal_storage::schema;
use vitalseal_vitals::{Reading, senml, signals};

use crate::error::QueryError;
use crate::run::QueryRun;
use crate::table::Sealed;
use crate::wanted::{Known, Test, ordinal};

/// Version of the layout that is sealed in a chunk.
const CHUNK_VERSION: u8 = 1;

/// Readings that share a patient.
#[derive(Debug)]
pub(crate) enum Piece {
    /// One series of a chunk, not decoded yet.
    Series(SeriesPiece),
    /// One message.
    Message(MessagePiece),
}

/// Readings of one signal from one device, in order of time.
#[derive(Debug)]
pub(crate) struct SeriesPiece {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) index: usize,
    /// What is left to ask of each reading.
    pub(crate) rest: Test,
}

/// An opened chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) patient: SubjectPseudonym,
    pub(crate) readings: Readings,
}

/// The wanted readings of one message, in its order.
#[derive(Debug)]
pub(crate) struct MessagePiece {
    pub(crate) patient: SubjectPseudonym,
    pub(crate) message: MessageId,
    pub(crate) received_at_us: i64,
    pub(crate) readings: Vec<Reading>,
}

impl Chunk {
    /// The device of a series.
    pub(crate) fn device(&self, series: &Series) -> Option<&DeviceId> {
        let at = usize::try_from(series.device).ok()?;
        self.readings.devices().get(at)
    }
}

impl SeriesPiece {
    /// What is known of it without decoding.
    pub(crate) fn series(&self) -> Option<&Series> {
        self.chunk.readings.series().get(self.index)
    }
}

/// Opens `sealed` rows of `vitals` as far as they are wanted. Counts for the audit log what it opens, and stops when the
/// query does.
pub(crate) struct Pieces {
    run: Arc<QueryRun>,
    sealed: Sealed,
    rows: Rows,
    backend: &'static dyn Backend,
    next: usize,
    chunk: Option<(Arc<Chunk>, usize)>,
    /// Of the rows as they came.
    sealed_bytes: usize,
}

enum Rows {
    Messages(Messages),
    Chunks(Chunks),
}

impl Pieces {
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    pub(crate) fn of(run: Arc<QueryRun>, sealed: Sealed) -> Result<Self, QueryError> {
        let rows = match sealed.kind {
            FileKind::Rows => Rows::Messages(Messages::of(&sealed.rows)?),
            FileKind::Chunks => Rows::Chunks(Chunks::of(&sealed.rows)?),
        };
        Ok(Self {
            sealed_bytes: sealed.memory.size(),
            run,
            sealed,
            rows,
            backend: default_backend(),
            next: 0,
            chunk: None,
        })
    }

    fn find(&mut self) -> Result<Option<Piece>, QueryError> {
        loop {
            self.run.going_on()?;
            if let Some(piece) = self.next_series() {
                return Ok(Some(piece));
            }
            if self.next >= self.sealed.rows.num_rows() {
                return Ok(None);
            }
            let at = self.next;
            self.next += 1;
            self.sealed.renew();
            match &self.rows {
                Rows::Messages(rows) => {
                    let piece = rows.open(at, &self.sealed, &self.run, self.backend)?;
                    if let Some(piece) = piece {
                        return Ok(Some(Piece::Message(piece)));
                    }
                }
                Rows::Chunks(rows) => {
                    self.sealed
                        .memory
                        .try_resize(self.sealed_bytes + rows.opened_bytes(at))?;
                    let chunk = rows.open(at, &self.sealed, &self.run, self.backend)?;
                    self.chunk = chunk.map(|chunk| (Arc::new(chunk), 0));
                }
            }
        }
    }

    /// The next series of the chunk that is open, passing over those in which nothing can be wanted.
    fn next_series(&mut self) -> Option<Piece> {
        let (chunk, next) = self.chunk.as_mut()?;
        while let Some(series) = chunk.readings.series().get(*next) {
            let index = *next;
            *next += 1;
            let stats = &series.stats;
            let rest = self.sealed.wanted.given(&Known {
                patient: Some(chunk.patient.as_str()),
                device: chunk.device(series).map(DeviceId::as_str),
                signal: Some(series.signal),
                times: (stats.first_us, stats.last_us),
                values: (ordinal(stats.min), ordinal(stats.max)),
                flagged: match stats.flagged {
                    0 => Some(false),
                    all if all == stats.count => Some(true),
                    _ => None,
                },
            });
            if rest != Test::Never {
                let chunk = Arc::clone(chunk);
                return Some(Piece::Series(SeriesPiece { chunk, index, rest }));
            }
        }
        self.chunk = None;
        None
    }
}

impl Iterator for Pieces {
    type Item = Result<Piece, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find();
        if found.is_err() {
            (self.next, self.chunk) = (usize::MAX, None);
        }
        found.transpose()
    }
}

/// The typed columns of sealed rows.
struct Messages {
    subject: StringArray,
    device: StringArray,
    boot: Int64Array,
    sequence: Int64Array,
    received_at: TimestampMicrosecondArray,
    first_at: TimestampMicrosecondArray,
    last_at: TimestampMicrosecondArray,
    envelope: BinaryArray,
}

impl Messages {
    fn of(rows: &RecordBatch) -> Result<Self, QueryError> {
        Ok(Self {
            subject: column(rows, schema::SUBJECT)?,
            device: column(rows, schema::DEVICE)?,
            boot: column(rows, schema::BOOT)?,
            sequence: column(rows, schema::SEQUENCE)?,
            received_at: column(rows, schema::RECEIVED_AT)?,
            first_at: column(rows, schema::FIRST_AT)?,
            last_at: column(rows, schema::LAST_AT)?,
            envelope: column(rows, schema::ENVELOPE)?,
        })
    }

    /// Opens one row; `None` when nothing of it may be seen or is wanted.
    fn open(
        &self,
        at: usize,
        sealed: &Sealed,
        run: &QueryRun,
        backend: &dyn Backend,
    ) -> Result<Option<MessagePiece>, QueryError> {
        // Not in the scope, or erased: nothing is known about this row.
        let Some((patient, keys)) = sealed.visible(self.subject.value(at)) else {
            return Ok(None);
        };
        let known = Known {
            patient: Some(patient.as_str()),
            device: Some(self.device.value(at)),
            times: (self.first_at.value(at), self.last_at.value(at)),
            ..Known::NOTHING
        };
        if !sealed.wanted.allows(&known) {
            return Ok(None);
        }
        let message = || {
            Some(MessageId {
                device: self.device.value(at).parse().ok()?,
                boot: u64::try_from(self.boot.value(at)).ok()?,
                sequence: u64::try_from(self.sequence.value(at)).ok()?,
            })
        };
        let message = message().ok_or(QueryError::Malformed("device or counters"))?;
        let damaged = || QueryError::Damaged(message.clone());
        let envelope = AtRest::decode(self.envelope.value(at)).map_err(|_| damaged())?;
        let header = envelope.header();
        if header.subject != *patient || header.message_id() != message {
            return Err(damaged());
        }
        if TableKind::from(header.content_type) != TableKind::Vitals {
            return Ok(None);
        }
        let kek = keys.find(envelope.kek_kid()).ok_or_else(damaged)?;
        let payload = envelope.open(kek, backend).map_err(|_| damaged())?;
        let mut readings = senml::decode(&payload).map_err(|_| damaged())?;
        let times = || readings.iter().map(|reading| reading.at);
        let span = times().min().zip(times().max());
        run.opened(patient, 1, readings.len() as u64, span);
        let wanted = &sealed.wanted;
        readings.retain(|r| wanted.wants(patient.as_str(), message.device.as_str(), r));
        Ok((!readings.is_empty()).then(|| MessagePiece {
            patient: patient.clone(),
            message,
            received_at_us: self.received_at.value(at),
            readings,
        }))
    }
}

/// The typed columns of chunks.
struct Chunks {
    subject: StringArray,
    bucket_start: TimestampMicrosecondArray,
    bucket_seconds: Int32Array,
    first_at: TimestampMicrosecondArray,
    last_at: TimestampMicrosecondArray,
    messages: Int32Array,
    readings: Int64Array,
    codes: Int64Array,
    sealed: BinaryArray,
}

impl Chunks {
    fn of(rows: &RecordBatch) -> Result<Self, QueryError> {
        Ok(Self {
            subject: column(rows, schema::SUBJECT)?,
            bucket_start: column(rows, schema::BUCKET_START)?,
            bucket_seconds: column(rows, schema::BUCKET_SECONDS)?,
            first_at: column(rows, schema::FIRST_AT)?,
            last_at: column(rows, schema::LAST_AT)?,
            messages: column(rows, schema::MESSAGES)?,
            readings: column(rows, schema::READINGS)?,
            codes: column(rows, schema::CODES)?,
            sealed: column(rows, schema::SEALED)?,
        })
    }

    /// Bytes that opening and decoding a chunk may take: its plaintext, and two numbers and a place in a batch for each
    /// reading.
    fn opened_bytes(&self, at: usize) -> usize {
        let readings = usize::try_from(self.readings.value(at)).unwrap_or(0);
        let decoded = readings.saturating_mul(40);
        decoded.saturating_add(self.sealed.value(at).len())
    }

    /// Opens one chunk; `None` when nothing of it may be seen or is wanted.
    fn open(
        &self,
        at: usize,
        sealed: &Sealed,
        run: &QueryRun,
        backend: &dyn Backend,
    ) -> Result<Option<Chunk>, QueryError> {
        let Some((patient, keys)) = sealed.visible(self.subject.value(at)) else {
            return Ok(None);
        };
        let span = (self.first_at.value(at), self.last_at.value(at));
        let known = Known {
            patient: Some(patient.as_str()),
            times: span,
            ..Known::NOTHING
        };
        let rest = sealed.wanted.given(&known);
        let codes = self.codes.value(at);
        let wants = |signal| {
            rest.allows(&Known {
                signal: Some(signal),
                ..known
            })
        };
        let mut inside = signals()
            .iter()
            .filter(|signal| codes.checked_shr(u32::from(signal.number)).unwrap_or(0) & 1 == 1);
        if rest != Test::Always && !inside.any(wants) {
            return Ok(None);
        }
        let start = self.bucket_start.value(at);
        let damaged = || QueryError::DamagedChunk {
            patient: patient.clone(),
            start: Timestamp::from_microsecond(start).unwrap_or_default(),
            seconds: self.bucket_seconds.value(at),
        };
        let context = BlobContext {
            table: TableKind::Vitals.as_str(),
            subject: patient,
            bucket_start_us: start,
            bucket_seconds: u32::try_from(self.bucket_seconds.value(at)).map_err(|_| damaged())?,
            schema_version: CHUNK_VERSION,
            column: schema::SEALED,
        };
        let blob = self.sealed.value(at);
        let readings = open(blob, keys, &context, backend).ok_or_else(damaged)?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let span = Timestamp::from_microsecond(span.0)
            .ok()
            .zip(Timestamp::from_microsecond(span.1).ok());
        run.opened(
            patient,
            count(self.messages.value(at).into()),
            count(self.readings.value(at)),
            span,
        );
        Ok(Some(Chunk {
            patient: patient.clone(),
            readings,
        }))
    }
}

/// Opens a blob of readings with whichever of the patient's keys it names.
fn open(
    blob: &[u8],
    keys: &PatientKeys,
    context: &BlobContext<'_>,
    backend: &dyn Backend,
) -> Option<Readings> {
    let kek = keys.find(&blob_kid(blob).ok()?)?;
    let plain = open_blob(blob, BlobKey::Patient(kek), context, backend).ok()?;
    Readings::parse(plain).ok()
}

/// A column that has a value in every row.
fn column<T: Array + Clone + 'static>(
    rows: &RecordBatch,
    name: &'static str,
) -> Result<T, QueryError> {
    rows.column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<T>())
        .filter(|column| column.null_count() == 0)
        .cloned()
        .ok_or(QueryError::Malformed(name))
}
