//! The columns of `vitals`, filled from pieces.
//!
//! A long series becomes batches of its own, whose texts are slices of one constant array each. Their numbers are copied
//! out of what was decoded, so that a batch which somebody keeps keeps no more than itself. What is short is gathered row
//! by row.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringViewArray, StringViewBuilder, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use vitalseal_crypto::DeviceId;
use vitalseal_storage::chunk::{Messages, Series};
use vitalseal_vitals::Quality;

use super::decoded::{Decoded, Needs};
use super::gathered::{Gathered, Row};
use super::pieces::{MessagePiece, SeriesPiece};
use crate::error::QueryError;

/// Readings of a batch, and of a constant array.
pub(crate) const READINGS_PER_BATCH: usize = 8_192;

/// A series of fewer readings than this is gathered with others.
const OWN_BATCH: usize = 512;

/// Constant arrays kept: 128 KiB each at most.
const CONSTANTS: usize = 96;

/// A column of `vitals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Patient,
    Device,
    Code,
    Display,
    Value,
    Unit,
    At,
    ReceivedAt,
    Quality,
    Boot,
    Sequence,
}

impl Column {
    /// In the order of the table.
    pub(crate) const ALL: [(Self, &'static str); 11] = [
        (Self::Patient, "patient"),
        (Self::Device, "device"),
        (Self::Code, "code"),
        (Self::Display, "display"),
        (Self::Value, "value"),
        (Self::Unit, "unit"),
        (Self::At, "ts"),
        (Self::ReceivedAt, "received_at"),
        (Self::Quality, "quality"),
        (Self::Boot, "boot"),
        (Self::Sequence, "sequence"),
    ];

    /// The column of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(column, _)| *column)
    }
}

/// Makes batches of these columns.
pub(crate) struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
    needs: Needs,
    constants: HashMap<String, StringViewArray>,
    gathered: Gathered,
    /// Rows of a batch of what is gathered.
    enough: usize,
}

impl Columns {
    /// `columns` are those of `schema`. More than `limit` rows are of no use.
    pub(crate) fn new(schema: SchemaRef, columns: Vec<Column>, limit: Option<usize>) -> Self {
        let any = |of: &[Column]| columns.iter().any(|column| of.contains(column));
        let needs = Needs {
            times: any(&[Column::At]),
            values: any(&[Column::Value, Column::Quality]),
            messages: any(&[Column::ReceivedAt, Column::Boot, Column::Sequence]),
        };
        Self {
            gathered: Gathered::new(&columns),
            schema,
            columns,
            needs,
            constants: HashMap::new(),
            enough: limit.map_or(READINGS_PER_BATCH, |limit| limit.min(READINGS_PER_BATCH)),
        }
    }

    /// Takes a message.
    pub(crate) fn message(&mut self, piece: &MessagePiece) {
        for reading in &piece.readings {
            self.gathered.push(Row {
                patient: piece.patient.as_str(),
                device: piece.message.device.as_str(),
                signal: reading.signal,
                value: reading.value,
                at_us: reading.at.as_microsecond(),
                received_at_us: piece.received_at_us,
                boot: counter(piece.message.boot),
                sequence: counter(piece.message.sequence),
            });
        }
    }

    /// Takes a series; gives the batches that it makes alone.
    ///
    /// # Errors
    /// When it is damaged, or does not fit the schema.
    pub(crate) fn series(&mut self, piece: &SeriesPiece) -> Result<Vec<RecordBatch>> {
        let damaged = |_| QueryError::Malformed(vitalseal_storage::schema::SEALED);
        let readings = &piece.chunk.readings;
        let Some(series) = piece.series() else {
            return Ok(Vec::new());
        };
        let long = series.stats.count >= OWN_BATCH;
        // A text that is one for the whole series needs no value.
        let flagged = series.stats.flagged;
        let mixed = flagged != 0 && flagged != series.stats.count;
        let needs = Needs {
            values: self.columns.contains(&Column::Value)
                || (self.needs.values && (mixed || !long)),
            ..self.needs
        };
        let decoded = Decoded::of(readings, series, &piece.rest, needs).map_err(damaged)?;
        let device = piece.chunk.device(series);
        let Some(device) = device.filter(|_| decoded.len() > 0) else {
            return Ok(Vec::new());
        };
        let messages = if needs.messages {
            readings.messages().map_err(damaged)?
        } else {
            Messages::default()
        };
        let patient = piece.chunk.patient.as_str();
        if long && decoded.len() >= OWN_BATCH {
            return self.own(patient, device, series, decoded, &messages);
        }
        let of = |column: &[i64], row: usize| {
            let message = decoded.messages.get(row);
            let found = message.and_then(|message| column.get(at(*message)));
            found.copied().unwrap_or_default()
        };
        for row in decoded.rows() {
            self.gathered.push(Row {
                patient,
                device: device.as_str(),
                signal: series.signal,
                value: decoded.values.get(row).copied().unwrap_or_default(),
                at_us: decoded.times.get(row).copied().unwrap_or_default(),
                received_at_us: of(&messages.received_at_us, row),
                boot: of(&messages.boot, row),
                sequence: of(&messages.sequence, row),
            });
        }
        Ok(Vec::new())
    }

    /// What was gathered, if it is enough for a batch, or `all` of it that is left.
    ///
    /// # Errors
    /// When it does not fit the schema.
    pub(crate) fn gathered(&mut self, all: bool) -> Result<Option<RecordBatch>> {
        let rows = self.gathered.rows();
        if rows == 0 || (rows < self.enough && !all) {
            return Ok(None);
        }
        let gathered = std::mem::replace(&mut self.gathered, Gathered::new(&self.columns));
        self.batch(gathered.finish(), rows).map(Some)
    }

    /// Drops what was gathered.
    pub(crate) fn forget(&mut self) {
        self.gathered = Gathered::new(&self.columns);
    }

    fn own(
        &mut self,
        patient: &str,
        device: &DeviceId,
        series: &Series,
        mut decoded: Decoded,
        messages: &Messages,
    ) -> Result<Vec<RecordBatch>> {
        let rows = decoded.len();
        let times = std::mem::take(&mut decoded.times);
        let values = std::mem::take(&mut decoded.values);
        let (times, values) = (decoded.taken(times), decoded.taken(values));
        let indexes = std::mem::take(&mut decoded.messages);
        let indexes = decoded.taken(indexes);
        let stats = &series.stats;
        let signal = series.signal;
        let quality = match stats.flagged {
            0 => Some(Quality::Ok.as_str()),
            all if all == stats.count => Some(Quality::Flagged.as_str()),
            _ => None,
        };
        let columns = self.columns.clone();
        let mut batches = Vec::with_capacity(rows.div_ceil(READINGS_PER_BATCH));
        for from in (0..rows).step_by(READINGS_PER_BATCH) {
            let length = READINGS_PER_BATCH.min(rows - from);
            let (times, values) = (part(&times, from, length), part(&values, from, length));
            let indexes = part(&indexes, from, length);
            let of = |column: &[i64]| -> Vec<i64> {
                let found = indexes.iter().map(|message| column.get(at(*message)));
                found
                    .map(|found| found.copied().unwrap_or_default())
                    .collect()
            };
            let arrays = columns.iter().map(|column| -> ArrayRef {
                match (column, quality) {
                    (Column::Patient, _) => self.constant(patient, length),
                    (Column::Device, _) => self.constant(device.as_str(), length),
                    (Column::Code, _) => self.constant(signal.code, length),
                    (Column::Display, _) => self.constant(signal.display, length),
                    (Column::Unit, _) => self.constant(signal.unit, length),
                    (Column::Quality, Some(quality)) => self.constant(quality, length),
                    (Column::Quality, None) => {
                        let text = values.iter().map(|v| signal.quality(*v).as_str());
                        Arc::new(StringViewArray::from_iter_values(text))
                    }
                    (Column::Value, _) => Arc::new(Float64Array::from(values.to_vec())),
                    (Column::At, _) => instants(times.to_vec()),
                    (Column::ReceivedAt, _) => instants(of(&messages.received_at_us)),
                    (Column::Boot, _) => Arc::new(Int64Array::from(of(&messages.boot))),
                    (Column::Sequence, _) => Arc::new(Int64Array::from(of(&messages.sequence))),
                }
            });
            let arrays = arrays.collect();
            batches.push(self.batch(arrays, length)?);
        }
        Ok(batches)
    }

    /// `length` times the same text.
    fn constant(&mut self, text: &str, length: usize) -> ArrayRef {
        let known = self
            .constants
            .get(text)
            .filter(|known| known.len() >= length);
        if let Some(known) = known {
            return Arc::new(known.slice(0, length));
        }
        if self.constants.len() >= CONSTANTS {
            self.constants.clear();
        }
        let room = length.next_power_of_two().max(1_024);
        let mut builder = StringViewBuilder::with_capacity(room).with_deduplicate_strings();
        for _ in 0..room {
            builder.append_value(text);
        }
        let array = builder.finish();
        let slice = array.slice(0, length);
        self.constants.insert(text.to_owned(), array);
        Arc::new(slice)
    }

    fn batch(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        // COUNT(*) wants no column, but the number of rows.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }
}

fn instants(times: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
}

/// Of a column that was decoded; nothing of one that nobody needs.
fn part<T>(column: &[T], from: usize, length: usize) -> &[T] {
    column.get(from..from + length).unwrap_or(&[])
}

fn at(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// Counters are below 2^53.
fn counter(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;
    use jiff::Timestamp;
    use vitalseal_storage::chunk::{MessageMeta, Readings, ReadingsBuilder};
    use vitalseal_vitals::{Reading, signal};

    use super::super::pieces::Chunk;
    use super::*;
    use crate::table::vitals_schema;
    use crate::wanted::Test;

    #[test]
    fn a_batch_of_a_long_series_keeps_no_more_than_itself() {
        let reading = |second| Reading {
            signal: signal("8867-4").unwrap(),
            value: 60.0,
            at: Timestamp::from_second(second).unwrap(),
        };
        let readings: Vec<Reading> = (0..36_000).map(reading).collect();
        let mut built = ReadingsBuilder::new();
        let message = built.message(MessageMeta {
            device: "icu-1".parse().unwrap(),
            boot: 1,
            sequence: 1,
            received_at_us: 7,
        });
        built.push(message, &readings);
        let chunk = Chunk {
            patient: format!("p{}", "a".repeat(32)).parse().unwrap(),
            readings: Readings::parse(built.finish().unwrap()).unwrap(),
        };
        let piece = SeriesPiece {
            chunk: Arc::new(chunk),
            index: 0,
            rest: Test::Always,
        };
        let numbers = [Column::At, Column::Value, Column::ReceivedAt, Column::Boot];
        let of = |column: &Column| {
            let name = Column::ALL.iter().find(|(known, _)| known == column);
            vitals_schema()
                .field_with_name(name.unwrap().1)
                .unwrap()
                .clone()
        };
        let schema = Schema::new(numbers.iter().map(of).collect::<Vec<_>>());
        let batches = Columns::new(Arc::new(schema), numbers.to_vec(), None).series(&piece);
        let batches = batches.unwrap();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!((batches.len(), rows), (5, 36_000));
        let memory: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        // Four numbers a row, and what Arrow keeps beside them.
        assert!((rows * 32..rows * 36).contains(&memory), "{memory}");
        let last = batches[4].column(0).as_any();
        let last = last.downcast_ref::<TimestampMicrosecondArray>().unwrap();
        assert_eq!(last.values().last(), Some(&35_999_000_000));
    }
}
