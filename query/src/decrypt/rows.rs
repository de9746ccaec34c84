//! The typed columns of sealed rows, and what is true of a row whatever is sealed in it.
//!
//! The clear columns of a row are hints. A message's subject, device and counters must equal its envelope's protected
//! header; a chunk's patient and bucket are bound into its blob. Nothing is said of a row whose patient is not
//! [visible](Sealed::visible).

use datafusion::arrow::array::{
    Array, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use jiff::Timestamp;
use vitalseal_crypto::{
    AtRest, BlobContext, BlobKey, Kid, MessageId, PatientKeys, SubjectPseudonym, blob_kid,
    default_backend, open_blob,
};
use vitalseal_storage::catalog::TableKind;
use vitalseal_storage::chunk::SCHEMA_VERSION;
use vitalseal_storage::schema;
use vitalseal_vitals::{Signal, signals};
use zeroize::Zeroizing;

use crate::error::QueryError;
use crate::table::Sealed;
use crate::wanted::{Known, Test};

/// Rows of messages.
pub(super) struct Messages {
    subject: StringArray,
    device: StringArray,
    boot: Int64Array,
    sequence: Int64Array,
    received_at: TimestampMicrosecondArray,
    first_at: TimestampMicrosecondArray,
    last_at: TimestampMicrosecondArray,
    readings: Int32Array,
    envelope: BinaryArray,
}

/// A message that may be seen and can be wanted, still sealed.
pub(super) struct Message<'a> {
    pub(super) patient: &'a SubjectPseudonym,
    pub(super) keys: &'a PatientKeys,
    pub(super) id: MessageId,
    pub(super) received_at_us: i64,
    pub(super) span_us: (i64, i64),
    pub(super) readings: i64,
    pub(super) envelope: AtRest,
}

impl Messages {
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    pub(super) fn of(rows: &RecordBatch) -> Result<Self, QueryError> {
        Ok(Self {
            subject: column(rows, schema::SUBJECT)?,
            device: column(rows, schema::DEVICE)?,
            boot: column(rows, schema::BOOT)?,
            sequence: column(rows, schema::SEQUENCE)?,
            received_at: column(rows, schema::RECEIVED_AT)?,
            first_at: column(rows, schema::FIRST_AT)?,
            last_at: column(rows, schema::LAST_AT)?,
            readings: column(rows, schema::READINGS)?,
            envelope: column(rows, schema::ENVELOPE)?,
        })
    }

    /// One row; `None` when nothing of it may be seen or is wanted.
    ///
    /// # Errors
    /// [`QueryError::Malformed`], or [`QueryError::Damaged`] when the envelope says something else than the row.
    pub(super) fn message<'a>(
        &self,
        at: usize,
        sealed: &'a Sealed,
    ) -> Result<Option<Message<'a>>, QueryError> {
        // Not in the scope, or erased: nothing is known about this row.
        let Some((patient, keys)) = sealed.visible(self.subject.value(at)) else {
            return Ok(None);
        };
        let span_us = (self.first_at.value(at), self.last_at.value(at));
        let wanted = sealed.wanted.allows(&Known {
            patient: Some(patient.as_str()),
            device: Some(self.device.value(at)),
            times: span_us,
            ..Known::NOTHING
        });
        if !wanted {
            return Ok(None);
        }
        let id = || {
            Some(MessageId {
                device: self.device.value(at).parse().ok()?,
                boot: u64::try_from(self.boot.value(at)).ok()?,
                sequence: u64::try_from(self.sequence.value(at)).ok()?,
            })
        };
        let id = id().ok_or(QueryError::Malformed("device or counters"))?;
        let damaged = || QueryError::Damaged(id.clone());
        let envelope = AtRest::decode(self.envelope.value(at)).map_err(|_| damaged())?;
        let header = envelope.header();
        if header.subject != *patient || header.message_id() != id {
            return Err(damaged());
        }
        Ok(Some(Message {
            patient,
            keys,
            id,
            received_at_us: self.received_at.value(at),
            span_us,
            readings: self.readings.value(at).into(),
            envelope,
        }))
    }
}

/// Rows of chunks, with one of their two blobs.
pub(super) struct Chunks {
    subject: StringArray,
    bucket_start: TimestampMicrosecondArray,
    bucket_seconds: Int32Array,
    first_at: TimestampMicrosecondArray,
    last_at: TimestampMicrosecondArray,
    messages: Int32Array,
    readings: Int64Array,
    codes: Int64Array,
    blob: BinaryArray,
    column: &'static str,
}

/// A chunk that may be seen and can be wanted, still sealed.
pub(super) struct Chunk<'a> {
    pub(super) patient: &'a SubjectPseudonym,
    pub(super) keys: &'a PatientKeys,
    pub(super) start_us: i64,
    pub(super) seconds: i32,
    pub(super) span_us: (i64, i64),
    pub(super) messages: i64,
    pub(super) readings: i64,
    pub(super) blob: &'a [u8],
    column: &'static str,
}

impl Chunks {
    /// Rows whose blob stands in `column`.
    ///
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    pub(super) fn of(rows: &RecordBatch, blob: &'static str) -> Result<Self, QueryError> {
        Ok(Self {
            subject: column(rows, schema::SUBJECT)?,
            bucket_start: column(rows, schema::BUCKET_START)?,
            bucket_seconds: column(rows, schema::BUCKET_SECONDS)?,
            first_at: column(rows, schema::FIRST_AT)?,
            last_at: column(rows, schema::LAST_AT)?,
            messages: column(rows, schema::MESSAGES)?,
            readings: column(rows, schema::READINGS)?,
            codes: column(rows, schema::CODES)?,
            blob: column(rows, blob)?,
            column: blob,
        })
    }

    /// One row; `None` when nothing of it may be seen or is wanted.
    pub(super) fn chunk<'a>(&'a self, at: usize, sealed: &'a Sealed) -> Option<Chunk<'a>> {
        let (patient, keys) = sealed.visible(self.subject.value(at))?;
        let span_us = (self.first_at.value(at), self.last_at.value(at));
        let known = Known {
            patient: Some(patient.as_str()),
            times: span_us,
            ..Known::NOTHING
        };
        let rest = sealed.wanted.given(&known);
        let codes = self.codes.value(at);
        let inside =
            |signal: &&Signal| codes.checked_shr(u32::from(signal.number)).unwrap_or(0) & 1 == 1;
        let wants = |signal| {
            rest.allows(&Known {
                signal: Some(signal),
                ..known
            })
        };
        if rest != Test::Always && !signals().iter().filter(inside).any(wants) {
            return None;
        }
        Some(Chunk {
            patient,
            keys,
            start_us: self.bucket_start.value(at),
            seconds: self.bucket_seconds.value(at),
            span_us,
            messages: self.messages.value(at).into(),
            readings: self.readings.value(at),
            blob: self.blob.value(at),
            column: self.column,
        })
    }
}

impl Chunk<'_> {
    /// That it does not open, or is not what it says.
    pub(super) fn damaged(&self) -> QueryError {
        QueryError::DamagedChunk {
            patient: self.patient.clone(),
            start: Timestamp::from_microsecond(self.start_us).unwrap_or_default(),
            seconds: self.seconds,
        }
    }

    /// Opens the blob under the one of the keys that it names.
    ///
    /// # Errors
    /// [`QueryError::DamagedChunk`].
    pub(super) fn open<'k>(
        &self,
        table: TableKind,
        key: impl FnOnce(&Kid) -> Option<BlobKey<'k>>,
    ) -> Result<Zeroizing<Vec<u8>>, QueryError> {
        let opened = || {
            let key = key(&blob_kid(self.blob).ok()?)?;
            let context = BlobContext {
                table: table.as_str(),
                subject: self.patient,
                bucket_start_us: self.start_us,
                bucket_seconds: u32::try_from(self.seconds).ok()?,
                schema_version: SCHEMA_VERSION,
                column: self.column,
            };
            open_blob(self.blob, key, &context, default_backend()).ok()
        };
        opened().ok_or_else(|| self.damaged())
    }

    /// Earliest and latest instant measured, where they are instants.
    pub(super) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let (first, last) = self.span_us;
        let at = |us| Timestamp::from_microsecond(us).ok();
        at(first).zip(at(last))
    }
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
