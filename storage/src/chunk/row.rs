//! A chunk as a row of a file: the columns of [`schema::chunks`], said there, as a struct.

use std::sync::Arc;

use arrow::array::{
    AsArray as _, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use vitalseal_crypto::SubjectPseudonym;

use super::devices::Devices;
use super::error::ChunkError;
use crate::schema;

/// One chunk: what is said of it, and what is sealed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Whose readings they are.
    pub subject: SubjectPseudonym,
    /// Start of the bucket, µs since the Unix epoch.
    pub bucket_start_us: i64,
    /// Length of the bucket, s.
    pub bucket_seconds: u32,
    /// Earliest instant measured, µs since the Unix epoch.
    pub first_at_us: i64,
    /// Latest instant measured, µs since the Unix epoch. It may lie behind the bucket's end.
    pub last_at_us: i64,
    /// Earliest arrival, µs since the Unix epoch.
    pub received_first_us: i64,
    /// Latest arrival, µs since the Unix epoch.
    pub received_last_us: i64,
    /// How many messages are inside.
    pub messages: u32,
    /// How many readings, or samples, they brought.
    pub readings: u64,
    /// The signals that occur: bit [`Signal::number`](vitalseal_vitals::Signal::number) of each.
    pub codes: u64,
    /// What is inside of each device.
    pub devices: Devices,
    /// The readings or waveforms, sealed for the patient.
    pub sealed: Vec<u8>,
    /// The at-rest envelopes, sealed under the store key.
    pub evidence: Vec<u8>,
}

impl ChunkRow {
    /// A row of a batch that has all columns of [`schema::chunks`].
    ///
    /// # Errors
    /// [`ChunkError::Damaged`] when it is no such batch, has no such row, or the row says what cannot be.
    pub fn read(batch: &RecordBatch, row: usize) -> Result<Self, ChunkError> {
        Columns::of(batch)
            .filter(|_| row < batch.num_rows())
            .ok_or(ChunkError::Damaged(
                "a batch is not of the columns of chunks",
            ))?
            .row(row)
    }

    /// Rows in the columns of [`schema::chunks`], in the order given.
    ///
    /// # Errors
    /// [`ArrowError`] when they are more than one batch holds (2 GiB a column), or a count is too large for its column.
    pub fn record_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        let instants = |of: fn(&Self) -> i64| {
            let instants = rows.iter().map(of).map(Some);
            Arc::new(
                instants
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            )
        };
        let bytes = |of: &dyn Fn(&Self) -> &[u8]| {
            let total = rows
                .iter()
                .try_fold(0_usize, |sum, row| sum.checked_add(of(row).len()));
            if total.is_none_or(|bytes| i32::try_from(bytes).is_err()) {
                return Err(ArrowError::OffsetOverflowError(total.unwrap_or(usize::MAX)));
            }
            Ok(Arc::new(BinaryArray::from_iter_values(rows.iter().map(of))))
        };
        let small = |of: fn(&Self) -> u32| {
            let small = rows.iter().map(|row| i32::try_from(of(row)));
            let small = small.collect::<Result<Vec<_>, _>>();
            Ok::<_, ArrowError>(Arc::new(Int32Array::from(small.map_err(too_large)?)))
        };
        let readings = rows.iter().map(|row| i64::try_from(row.readings));
        let readings = readings.collect::<Result<Vec<_>, _>>().map_err(too_large)?;
        let codes: Vec<i64> = rows.iter().map(|row| row.codes.cast_signed()).collect();
        let devices: Vec<Vec<u8>> = rows.iter().map(|row| row.devices.to_bytes()).collect();
        let subjects = rows.iter().map(|row| row.subject.as_str());
        RecordBatch::try_new(
            schema::chunks(),
            vec![
                Arc::new(StringArray::from_iter_values(subjects)),
                instants(|row| row.bucket_start_us),
                small(|row| row.bucket_seconds)?,
                instants(|row| row.first_at_us),
                instants(|row| row.last_at_us),
                instants(|row| row.received_first_us),
                instants(|row| row.received_last_us),
                small(|row| row.messages)?,
                Arc::new(Int64Array::from(readings)),
                Arc::new(Int64Array::from(codes)),
                Arc::new(BinaryArray::from_iter_values(devices)),
                bytes(&|row| &row.sealed)?,
                bytes(&|row| &row.evidence)?,
            ],
        )
    }
}

fn too_large(error: std::num::TryFromIntError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

/// The columns of a batch of chunks.
struct Columns<'a> {
    subject: &'a StringArray,
    instants: [&'a TimestampMicrosecondArray; 5],
    smalls: [&'a Int32Array; 2],
    larges: [&'a Int64Array; 2],
    bytes: [&'a BinaryArray; 3],
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let column = |name| {
            batch
                .column_by_name(name)
                .filter(|column| column.null_count() == 0)
        };
        let instant = |name| column(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        let small = |name| column(name)?.as_primitive_opt::<Int32Type>();
        let large = |name| column(name)?.as_primitive_opt::<Int64Type>();
        let bytes = |name| column(name)?.as_binary_opt::<i32>();
        Some(Self {
            subject: column(schema::SUBJECT)?.as_string_opt()?,
            instants: [
                instant(schema::BUCKET_START)?,
                instant(schema::FIRST_AT)?,
                instant(schema::LAST_AT)?,
                instant(schema::RECEIVED_FIRST_AT)?,
                instant(schema::RECEIVED_LAST_AT)?,
            ],
            smalls: [small(schema::BUCKET_SECONDS)?, small(schema::MESSAGES)?],
            larges: [large(schema::READINGS)?, large(schema::CODES)?],
            bytes: [
                bytes(schema::DEVICES)?,
                bytes(schema::SEALED)?,
                bytes(schema::EVIDENCE)?,
            ],
        })
    }

    fn row(&self, row: usize) -> Result<ChunkRow, ChunkError> {
        const WRONG: ChunkError = ChunkError::Damaged("a column of the chunk says what cannot be");
        let [
            bucket_start_us,
            first_at_us,
            last_at_us,
            received_first_us,
            received_last_us,
        ] = self.instants.map(|column| column.value(row));
        let [bucket_seconds, messages] = self.smalls.map(|column| u32::try_from(column.value(row)));
        let [readings, codes] = self.larges.map(|column| column.value(row));
        let [devices, sealed, evidence] = self.bytes.map(|column| column.value(row));
        Ok(ChunkRow {
            subject: self.subject.value(row).parse().map_err(|_| WRONG)?,
            bucket_start_us,
            bucket_seconds: bucket_seconds.map_err(|_| WRONG)?,
            first_at_us,
            last_at_us,
            received_first_us,
            received_last_us,
            messages: messages.map_err(|_| WRONG)?,
            readings: u64::try_from(readings).map_err(|_| WRONG)?,
            codes: codes.cast_unsigned(),
            devices: Devices::parse(devices)?,
            sealed: sealed.to_vec(),
            evidence: evidence.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::ArrayRef;

    use super::*;

    fn rows() -> Vec<ChunkRow> {
        let mut devices = Devices::default();
        let message = super::super::MessageMeta {
            device: "monitor-001".parse().unwrap(),
            boot: 7,
            sequence: 100,
            received_at_us: 9,
        };
        devices.add(&message, 60, -5, 5);
        let row = |n: u8| ChunkRow {
            subject: format!("p{n:032x}").parse().unwrap(),
            bucket_start_us: -900_000_000,
            bucket_seconds: 900,
            first_at_us: -5,
            last_at_us: 5,
            received_first_us: 8,
            received_last_us: 9,
            messages: 1,
            readings: 60,
            codes: 1 << 62 | u64::from(n),
            devices: devices.clone(),
            sealed: vec![n; 30],
            evidence: vec![n; usize::from(n)],
        };
        (0..3).map(row).collect()
    }

    #[test]
    fn a_row_reads_as_it_was_written() {
        let batch = ChunkRow::record_batch(&rows()).unwrap();
        let read: Vec<_> = (0..3)
            .map(|row| ChunkRow::read(&batch, row).unwrap())
            .collect();
        assert_eq!(read, rows());
        assert!(ChunkRow::read(&batch, 3).is_err());
    }

    #[test]
    fn a_batch_of_other_columns_and_a_row_that_cannot_be_are_refused() {
        let batch = ChunkRow::record_batch(&rows()).unwrap();
        for column in 0..batch.num_columns() {
            let mut less = batch.clone();
            less.remove_column(column);
            assert!(ChunkRow::read(&less, 0).is_err(), "without column {column}");
        }
        let put = |name: &str, column: ArrayRef| {
            let index = batch.schema().index_of(name).unwrap();
            let mut columns = batch.columns().to_vec();
            columns[index] = column;
            ChunkRow::read(&RecordBatch::try_new(batch.schema(), columns).unwrap(), 0)
        };
        let nobody = StringArray::from(vec!["nobody"; 3]);
        assert!(put(schema::SUBJECT, Arc::new(nobody)).is_err());
        let fewer = Arc::new(Int32Array::from(vec![-1; 3]));
        assert!(put(schema::MESSAGES, fewer).is_err());
        let nothing = BinaryArray::from_iter_values([b"", b"", b""]);
        assert!(put(schema::DEVICES, Arc::new(nothing)).is_err());
        let mut too_many = rows();
        too_many[1].messages = u32::MAX;
        assert!(ChunkRow::record_batch(&too_many).is_err());
    }
}
