//! Rows of chunks: what their clear columns say, and what is opened of them.
//!
//! The patient and the bucket are bound into both blobs; what a chunk [amounts to](Amount) is compared once it is open.

use datafusion::arrow::array::{
    BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use jiff::Timestamp;
use vitalseal_crypto::{
    BlobContext, BlobKey, Kid, PatientKeys, SubjectPseudonym, blob_kid, default_backend, open_blob,
};
use vitalseal_storage::catalog::TableKind;
use vitalseal_storage::chunk::{Evidence, Readings, SCHEMA_VERSION, evidence_of};
use vitalseal_storage::schema;
use vitalseal_vitals::{Signal, signals};
use zeroize::Zeroizing;

use super::rows::column;
use crate::error::QueryError;
use crate::run::QueryRun;
use crate::table::Sealed;
use crate::wanted::{Known, Test};

/// Some of them. Evidence is there if the scan is [after it](crate::table::Blob).
pub(super) struct Chunks {
    subject: StringArray,
    bucket_start: TimestampMicrosecondArray,
    bucket_seconds: Int32Array,
    first_at: TimestampMicrosecondArray,
    last_at: TimestampMicrosecondArray,
    messages: Int32Array,
    readings: Int64Array,
    codes: Int64Array,
    sealed: BinaryArray,
    evidence: Option<BinaryArray>,
}

/// A chunk that may be seen and can be wanted, still sealed.
pub(super) struct Chunk<'a> {
    pub(super) patient: &'a SubjectPseudonym,
    pub(super) keys: &'a PatientKeys,
    pub(super) start_us: i64,
    pub(super) seconds: i32,
    /// As its columns have it: not to be told to anybody before it was compared.
    pub(super) said: Amount,
    pub(super) sealed: &'a [u8],
    /// Empty if a repair had to leave it out.
    pub(super) evidence: &'a [u8],
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
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    pub(super) fn of(rows: &RecordBatch) -> Result<Self, QueryError> {
        let evidence = rows.column_by_name(schema::EVIDENCE);
        let evidence = evidence.map(|_| column(rows, schema::EVIDENCE));
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
            evidence: evidence.transpose()?,
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
            sealed: self.sealed.value(at),
            evidence: self.evidence.as_ref().map_or(&[], |of| of.value(at)),
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

    /// The plaintext of its readings.
    ///
    /// # Errors
    /// [`QueryError::DamagedChunk`].
    pub(super) fn open(&self, table: TableKind) -> Result<Zeroizing<Vec<u8>>, QueryError> {
        let key = |kid: &Kid| self.keys.find(kid).map(BlobKey::Patient);
        self.blob(table, schema::SEALED, self.sealed, key)
    }

    /// Its evidence, under the one of the store's keys that it names. The readings must have been made of it: they are
    /// opened as well, and forgotten after their first bytes.
    ///
    /// # Errors
    /// [`QueryError::DamagedChunk`], also for evidence that is not theirs.
    pub(super) fn open_evidence<'k>(
        &self,
        table: TableKind,
        key: impl FnOnce(&Kid) -> Option<BlobKey<'k>>,
    ) -> Result<Evidence, QueryError> {
        let plain = self.blob(table, schema::EVIDENCE, self.evidence, key)?;
        let evidence = Evidence::parse(&plain).map_err(|_| self.damaged())?;
        let named = evidence_of(&self.open(table)?).map_err(|_| self.damaged())?;
        if named.is_some_and(|named| named != evidence.digest()) {
            return Err(self.damaged());
        }
        Ok(evidence)
    }

    fn blob<'k>(
        &self,
        table: TableKind,
        column: &str,
        blob: &[u8],
        key: impl FnOnce(&Kid) -> Option<BlobKey<'k>>,
    ) -> Result<Zeroizing<Vec<u8>>, QueryError> {
        let opened = || {
            let key = key(&blob_kid(blob).ok()?)?;
            let context = BlobContext {
                table: table.as_str(),
                subject: self.patient,
                bucket_start_us: self.start_us,
                bucket_seconds: u32::try_from(self.seconds).ok()?,
                schema_version: SCHEMA_VERSION,
                column,
            };
            open_blob(blob, key, &context, default_backend()).ok()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::ArrayRef;
    use vitalseal_crypto::{Kek, StoreKey, seal_blob};
    use vitalseal_storage::chunk::{
        ChunkRow, Devices, EvidenceBuilder, MessageMeta, Noted, ReadingsBuilder,
    };
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

    /// Evidence is sealed by whoever has the store's key; which of it readings were made of is sealed for the patient.
    #[test]
    fn evidence_opens_only_beside_the_readings_that_were_made_of_it() {
        let backend = default_backend();
        let patient = SubjectPseudonym::random(backend).unwrap();
        let keys = PatientKeys::new(Kek::generate(backend).unwrap(), Vec::new());
        let store = StoreKey::generate(backend).unwrap();
        let evidence = |arrived| {
            let mut evidence = EvidenceBuilder::new();
            let noted = Noted {
                received_at_us: arrived,
                first_at_us: 1,
                last_at_us: 2,
                readings: 60,
            };
            evidence.push(&noted, b"an envelope");
            evidence
        };
        let seal = |column, plain: &[u8], key| {
            let place = BlobContext {
                table: "vitals",
                subject: &patient,
                bucket_start_us: 0,
                bucket_seconds: 900,
                schema_version: SCHEMA_VERSION,
                column,
            };
            seal_blob(plain, key, &place, backend).unwrap()
        };
        let mut readings = ReadingsBuilder::new();
        readings.prove(evidence(3).digest());
        let bound = readings.finish().unwrap();
        // As a build before wrote it, which named no evidence.
        let unbound = [&[1], &bound[33..]].concat();
        let opens = |readings: &[u8], beside: EvidenceBuilder| {
            let sealed = seal(schema::SEALED, readings, BlobKey::Patient(keys.current()));
            let plain = beside.finish().unwrap();
            let evidence = seal(schema::EVIDENCE, &plain, BlobKey::Store(&store));
            let said = Amount::of(1, std::iter::empty());
            let chunk = Chunk {
                patient: &patient,
                keys: &keys,
                start_us: 0,
                seconds: 900,
                said,
                sealed: &sealed,
                evidence: &evidence,
            };
            let opened = chunk.open_evidence(TableKind::Vitals, |kid| {
                (kid == store.kid()).then_some(BlobKey::Store(&store))
            });
            match opened {
                Ok(opened) => Some(opened.count()),
                Err(QueryError::DamagedChunk { .. }) => None,
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(opens(&bound, evidence(3)), Some(1));
        assert_eq!(opens(&bound, evidence(4)), None);
        assert_eq!(opens(&bound, EvidenceBuilder::new()), None);
        assert_eq!(opens(&unbound, evidence(4)), Some(1));
        assert_eq!(opens(&[9; 64], evidence(3)), None);
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
        let said = |batch: &RecordBatch| Chunks::of(batch).unwrap().said(0);
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
