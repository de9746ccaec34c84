//! The typed columns of sealed rows, and what is true of a row whatever is sealed in it.
//!
//! The clear columns of a row are hints. A message's subject, device and counters must equal its envelope's protected
//! header; a chunk's patient and bucket are bound into its blob, and what it [amounts to](Amount) is compared once it is
//! open. Nothing is said of a row whose patient is not [visible](Sealed::visible).

use datafusion::arrow::array::{
    Array, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use jiff::Timestamp;
use vitalseal_crypto::{
    AtRest, BlobContext, BlobKey, Kid, MessageId, PatientKeys, SubjectPseudonym, blob_kid,
    default_backend, open_blob,
};
use vitalseal_storage::catalog::{FileKind, TableKind};
use vitalseal_storage::chunk::{Readings, SCHEMA_VERSION};
use vitalseal_storage::schema;
use vitalseal_vitals::{Signal, signals};
use zeroize::Zeroizing;

use crate::error::QueryError;
use crate::run::QueryRun;
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

/// Sealed rows by the kind of file that they come from.
pub(super) enum Rows {
    Messages(Messages),
    Chunks(Chunks),
}

impl Rows {
    /// Of chunks those of which the blob in this column is opened.
    ///
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    pub(super) fn of(sealed: &Sealed, blob: &'static str) -> Result<Self, QueryError> {
        match sealed.kind {
            FileKind::Rows => Messages::of(&sealed.rows).map(Self::Messages),
            FileKind::Chunks => Chunks::of(&sealed.rows, blob).map(Self::Chunks),
        }
    }
}

impl Messages {
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    fn of(rows: &RecordBatch) -> Result<Self, QueryError> {
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
    /// As its columns have it: not to be told to anybody before it was compared.
    pub(super) said: Amount,
    pub(super) blob: &'a [u8],
    column: &'static str,
}

/// What a chunk amounts to: said in its columns, and found when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) messages: i64,
    pub(super) readings: i64,
    /// Bit [`Signal::number`] of each signal that occurs.
    pub(super) codes: i64,
    /// Earliest and latest instant measured, µs since the Unix epoch.
    pub(super) span_us: (i64, i64),
}

impl Amount {
    /// Of so many messages and these parts: signal, count, and earliest and latest instant of each.
    pub(super) fn of<'a>(
        messages: usize,
        parts: impl Iterator<Item = (&'a Signal, usize, (i64, i64))>,
    ) -> Self {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let nothing = Self {
            messages: number(messages),
            readings: 0,
            codes: 0,
            span_us: (i64::MAX, i64::MIN),
        };
        parts.fold(nothing, |sum, (signal, count, (first, last))| Self {
            readings: sum.readings.saturating_add(number(count)),
            codes: sum.codes | 1_i64.checked_shl(signal.number.into()).unwrap_or(0),
            span_us: (sum.span_us.0.min(first), sum.span_us.1.max(last)),
            ..sum
        })
    }

    /// Of all series of a chunk.
    pub(super) fn of_readings(opened: &Readings) -> Self {
        let series = opened.series().iter().map(|series| {
            let stats = &series.stats;
            (series.signal, stats.count, (stats.first_us, stats.last_us))
        });
        Self::of(opened.message_count(), series)
    }
}

impl Chunks {
    /// Rows whose blob stands in `column`.
    ///
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    fn of(rows: &RecordBatch, blob: &'static str) -> Result<Self, QueryError> {
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
        let said = self.said(at);
        let known = Known {
            patient: Some(patient.as_str()),
            times: said.span_us,
            ..Known::NOTHING
        };
        let rest = sealed.wanted.given(&known);
        let inside = |signal: &&Signal| {
            let codes = said.codes.checked_shr(u32::from(signal.number));
            codes.unwrap_or(0) & 1 == 1
        };
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
            said,
            blob: self.blob.value(at),
            column: self.column,
        })
    }

    /// What the clear columns of one row say.
    fn said(&self, at: usize) -> Amount {
        Amount {
            messages: self.messages.value(at).into(),
            readings: self.readings.value(at),
            codes: self.codes.value(at),
            span_us: (self.first_at.value(at), self.last_at.value(at)),
        }
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

    /// Counts what was found in it for the audit log, and compares it with what its columns say.
    ///
    /// # Errors
    /// [`QueryError::DamagedChunk`] when that is something else.
    pub(super) fn opened(&self, found: &Amount, run: &QueryRun) -> Result<(), QueryError> {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let at = |us| Timestamp::from_microsecond(us).ok();
        let (first, last) = found.span_us;
        run.opened(
            self.patient,
            count(found.messages),
            count(found.readings),
            at(first).zip(at(last)),
        );
        self.compare(found)
    }

    /// Compares what was found in it with what its columns say.
    ///
    /// # Errors
    /// [`QueryError::DamagedChunk`] when that is something else.
    pub(super) fn compare(&self, found: &Amount) -> Result<(), QueryError> {
        let same = *found == self.said;
        same.then_some(()).ok_or_else(|| self.damaged())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::ArrayRef;
    use vitalseal_storage::chunk::{ChunkRow, Devices, MessageMeta, ReadingsBuilder};
    use vitalseal_vitals::{Reading, signal};

    use super::*;

    fn opened() -> Readings {
        let mut builder = ReadingsBuilder::new();
        for sequence in 0..3 {
            let message = builder.message(MessageMeta {
                device: "monitor-1".parse().unwrap(),
                boot: 1,
                sequence,
                received_at_us: 9,
            });
            let at = Timestamp::from_microsecond(1_000 + i64::try_from(sequence).unwrap());
            let reading = |code| Reading {
                signal: signal(code).unwrap(),
                value: 60.0,
                at: at.clone().unwrap(),
            };
            builder.push(message, &[reading("8867-4"), reading("59408-5")]);
        }
        Readings::parse(builder.finish().unwrap()).unwrap()
    }

    #[test]
    fn no_clear_column_that_chooses_or_counts_can_say_anything_but_what_is_sealed() {
        let codes = ["8867-4", "59408-5"].map(|code| 1_u64 << signal(code).unwrap().number);
        let row = ChunkRow {
            subject: SubjectPseudonym::random(default_backend()).unwrap(),
            bucket_start_us: 0,
            bucket_seconds: 900,
            first_at_us: 1_000,
            last_at_us: 1_002,
            received_first_us: 9,
            received_last_us: 9,
            messages: 3,
            readings: 6,
            codes: codes[0] | codes[1],
            devices: Devices::default(),
            sealed: vec![0],
            evidence: vec![0],
        };
        let batch = ChunkRow::record_batch(&[row]).unwrap();
        let said = |batch: &RecordBatch| Chunks::of(batch, schema::SEALED).unwrap().said(0);
        let found = Amount::of_readings(&opened());
        assert_eq!(said(&batch), found);
        let instant = |us| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC"))
        };
        let large = |number| -> ArrayRef { Arc::new(Int64Array::from(vec![number])) };
        for (name, column) in [
            (schema::CODES, large(0)),
            (schema::CODES, large(codes[0].cast_signed())),
            (schema::CODES, large(-1)),
            (schema::READINGS, large(5)),
            (schema::MESSAGES, Arc::new(Int32Array::from(vec![2]))),
            (schema::FIRST_AT, instant(1_001)),
            (schema::FIRST_AT, instant(999)),
            (schema::LAST_AT, instant(1_001)),
        ] {
            let mut columns = batch.columns().to_vec();
            columns[batch.schema().index_of(name).unwrap()] = column;
            let altered = RecordBatch::try_new(batch.schema(), columns).unwrap();
            assert_ne!(said(&altered), found, "{name}");
        }
    }
}
