//! What a new file reaches over, gathered row by row while it is made.

use arrow::array::RecordBatch;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use jiff::Timestamp;
use object_store::path::Path;

use super::{DataFile, FileKind, SnapshotId, TableKind};
use crate::columns;
use crate::database::{at, count, parsed};
use crate::files::WrittenFile;
use crate::schema;
use crate::store::StoreError;

/// One row of a data file, by its metadata.
struct RowExtent<'a> {
    subject: &'a str,
    messages: u64,
    readings: u64,
    /// Earliest and latest instant measured, µs.
    span: (i64, i64),
    /// Earliest and latest arrival, µs.
    received: (i64, i64),
}

/// Counts and ranges of the rows of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extent {
    rows: u64,
    messages: u64,
    readings: u64,
    subjects: Option<(String, String)>,
    span: Option<(i64, i64)>,
    received: Option<(i64, i64)>,
}

impl Extent {
    fn add(&mut self, row: &RowExtent<'_>) {
        self.rows += 1;
        self.messages += row.messages;
        self.readings += row.readings;
        let (first, last) = self
            .subjects
            .get_or_insert_with(|| (row.subject.to_owned(), row.subject.to_owned()));
        if row.subject < first.as_str() {
            row.subject.clone_into(first);
        }
        if row.subject > last.as_str() {
            row.subject.clone_into(last);
        }
        self.span = Some(widest(self.span, row.span));
        self.received = Some(widest(self.received, row.received));
    }

    /// Adds the rows of a batch in the columns of this kind.
    pub(crate) fn add_batch(
        &mut self,
        kind: FileKind,
        batch: &RecordBatch,
    ) -> Result<(), StoreError> {
        let subjects = columns::text(batch, schema::SUBJECT)?;
        let instants = |name| columns::numbers::<TimestampMicrosecondType>(batch, name);
        let (first, last) = (instants(schema::FIRST_AT)?, instants(schema::LAST_AT)?);
        let (received_first, received_last) = match kind {
            FileKind::Rows => (schema::RECEIVED_AT, schema::RECEIVED_AT),
            FileKind::Chunks => (schema::RECEIVED_FIRST_AT, schema::RECEIVED_LAST_AT),
        };
        let (received_first, received_last) = (instants(received_first)?, instants(received_last)?);
        for row in 0..batch.num_rows() {
            let (messages, readings) = match kind {
                FileKind::Rows => {
                    let readings = columns::numbers::<Int32Type>(batch, schema::READINGS)?;
                    (1, i64::from(readings.value(row)))
                }
                FileKind::Chunks => {
                    let messages = columns::numbers::<Int32Type>(batch, schema::MESSAGES)?;
                    let readings = columns::numbers::<Int64Type>(batch, schema::READINGS)?;
                    (count(i64::from(messages.value(row)))?, readings.value(row))
                }
            };
            self.add(&RowExtent {
                subject: subjects.value(row),
                messages,
                readings: count(readings)?,
                span: (first.value(row), last.value(row)),
                received: (received_first.value(row), received_last.value(row)),
            });
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What the catalog notes of the file that holds these rows, once it is written.
    pub(crate) fn describe(
        self,
        name: &str,
        (table, kind, level): (TableKind, FileKind, u8),
        written: WrittenFile,
        now: Timestamp,
    ) -> Result<DataFile, StoreError> {
        let (first_us, last_us) = self.span.unwrap_or_default();
        let (received_first_us, received_last_us) = self.received.unwrap_or_default();
        let subjects = match self.subjects {
            Some((first, last)) => Some((parsed(&first)?, parsed(&last)?)),
            None => None,
        };
        Ok(DataFile {
            path: Path::from(name),
            table,
            kind,
            level,
            encrypted: true,
            size: written.size,
            sha256: Some(written.sha256),
            footer: written.footer,
            rows: self.rows,
            messages: self.messages,
            readings: self.readings,
            subjects,
            first_at: at(first_us)?,
            last_at: at(last_us)?,
            received_first_at: at(received_first_us)?,
            received_last_at: at(received_last_us)?,
            written_at: now,
            begin: SnapshotId::default(),
        })
    }
}

fn widest(known: Option<(i64, i64)>, (first, last): (i64, i64)) -> (i64, i64) {
    known.map_or((first, last), |(a, b)| (a.min(first), b.max(last)))
}
