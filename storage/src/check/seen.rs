//! What the rows of a file add up to, against what the catalog says of the file.

use std::sync::Arc;

use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;

use crate::catalog::{DataFile, Extent, FileKind};
use crate::columns;
use crate::files::WrittenFile;
use crate::schema;
use crate::store::StoreError;

/// Sums, ranges and order of rows.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) rows: u64,
    /// Rows that could not be read.
    pub(super) unreadable: u64,
    extent: Extent,
    last: Option<(String, i64)>,
    is_unsorted: bool,
}

impl Seen {
    pub(super) fn add(&mut self, batch: &RecordBatch, kind: FileKind) -> Result<(), StoreError> {
        self.extent.add_batch(kind, batch)?;
        let order = match kind {
            FileKind::Rows => schema::FIRST_AT,
            FileKind::Chunks => schema::BUCKET_START,
        };
        let subjects = columns::text(batch, schema::SUBJECT)?;
        let order = columns::numbers::<TimestampMicrosecondType>(batch, order)?;
        for row in 0..batch.num_rows() {
            let (subject, at) = (subjects.value(row), order.value(row));
            if let Some((before, before_at)) = &self.last {
                self.is_unsorted |= (before.as_str(), *before_at) > (subject, at);
            }
            self.last = Some((subject.to_owned(), at));
            self.rows += 1;
        }
        Ok(())
    }

    /// What contradicts the catalog. Without all rows, sums and ends of ranges say nothing.
    pub(super) fn against(self, file: &DataFile) -> Result<Vec<&'static str>, StoreError> {
        let mut faults = Vec::new();
        let mut hold = |holds: bool, fault| {
            if !holds {
                faults.push(fault);
            }
        };
        hold(!self.is_unsorted, "its rows are not in order");
        hold(
            self.rows + self.unreadable == file.rows,
            "it has another number of rows than the catalog says",
        );
        if self.unreadable > 0 || self.rows == 0 {
            return Ok(faults);
        }
        let written = WrittenFile {
            size: file.size,
            sha256: file.sha256.unwrap_or_default(),
            footer: Arc::clone(&file.footer),
            rows: self.rows,
        };
        let shape = (file.table, file.kind, file.level);
        let name = file.path.as_ref();
        let seen = self
            .extent
            .describe(name, shape, written, file.written_at)?;
        hold(
            (seen.messages, seen.readings) == (file.messages, file.readings),
            "its rows count other messages or readings than the catalog",
        );
        hold(
            (seen.first_at, seen.last_at) == (file.first_at, file.last_at),
            "its rows lie at other times than the catalog says",
        );
        hold(
            (seen.received_first_at, seen.received_last_at)
                == (file.received_first_at, file.received_last_at),
            "its rows came at other times than the catalog says",
        );
        hold(
            file.subjects.is_none() || seen.subjects == file.subjects,
            "its rows are of other patients than the catalog says",
        );
        Ok(faults)
    }
}
