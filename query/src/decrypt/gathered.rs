//! Readings that came one by one, as columns of `vitals` that grow by a row.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Builder, Int64Builder, StringViewBuilder, TimestampMicrosecondBuilder,
};
use vitalseal_vitals::Signal;

use super::columns::Column;

/// One reading, as every column sees it.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) patient: &'a str,
    pub(super) device: &'a str,
    pub(super) signal: &'static Signal,
    pub(super) value: f64,
    pub(super) at_us: i64,
    pub(super) received_at_us: i64,
    pub(super) boot: i64,
    pub(super) sequence: i64,
}

/// Rows that came one by one.
pub(super) struct Gathered {
    builders: Vec<Builder>,
    rows: usize,
}

enum Builder {
    Text(fn(&Row<'_>) -> TextOf, StringViewBuilder),
    Value(Float64Builder),
    Integer(fn(&Row<'_>) -> i64, Int64Builder),
    Instant(fn(&Row<'_>) -> i64, TimestampMicrosecondBuilder),
}

/// Which text of a row a column shows.
enum TextOf {
    Patient,
    Device,
    Static(&'static str),
}

impl Gathered {
    /// None yet, of these columns.
    pub(super) fn new(columns: &[Column]) -> Self {
        let text = |of| Builder::Text(of, StringViewBuilder::new().with_deduplicate_strings());
        let integer = |of| Builder::Integer(of, Int64Builder::new());
        let instant = |of| Builder::Instant(of, TimestampMicrosecondBuilder::new());
        let builders = columns.iter().map(|column| match column {
            Column::Patient => text(|_| TextOf::Patient),
            Column::Device => text(|_| TextOf::Device),
            Column::Code => text(|row| TextOf::Static(row.signal.code)),
            Column::Display => text(|row| TextOf::Static(row.signal.display)),
            Column::Unit => text(|row| TextOf::Static(row.signal.unit)),
            Column::Quality => text(|row| TextOf::Static(row.signal.quality(row.value).as_str())),
            Column::Value => Builder::Value(Float64Builder::new()),
            Column::At => instant(|row| row.at_us),
            Column::ReceivedAt => instant(|row| row.received_at_us),
            Column::Boot => integer(|row| row.boot),
            Column::Sequence => integer(|row| row.sequence),
        });
        Self {
            builders: builders.collect(),
            rows: 0,
        }
    }

    /// How many there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn push(&mut self, row: Row<'_>) {
        for builder in &mut self.builders {
            match builder {
                Builder::Text(of, to) => to.append_value(match of(&row) {
                    TextOf::Patient => row.patient,
                    TextOf::Device => row.device,
                    TextOf::Static(text) => text,
                }),
                Builder::Value(to) => to.append_value(row.value),
                Builder::Integer(of, to) => to.append_value(of(&row)),
                Builder::Instant(of, to) => to.append_value(of(&row)),
            }
        }
        self.rows += 1;
    }

    /// Their columns.
    pub(super) fn finish(self) -> Vec<ArrayRef> {
        self.builders.into_iter().map(Builder::finish).collect()
    }
}

impl Builder {
    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(_, mut built) => Arc::new(built.finish()),
            Self::Value(mut built) => Arc::new(built.finish()),
            Self::Integer(_, mut built) => Arc::new(built.finish()),
            Self::Instant(_, mut built) => Arc::new(built.finish().with_timezone("UTC")),
        }
    }
}
