//! Answers, so that they can be compared: a bench of different answers would measure nothing.

use std::cmp::Ordering;
use std::time::SystemTime;

use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Sums of the same numbers in another order differ by less.
const RELATIVE: f64 = 1e-9;

/// The rows of an answer, in an order of their own.
#[derive(Debug)]
pub struct Answer(Vec<Vec<Cell>>);

/// A value; instants are microseconds.
#[derive(Debug, PartialEq, PartialOrd)]
enum Cell {
    Text(String),
    Integer(i64),
    Float(f64),
}

impl Answer {
    pub fn of_batches(batches: &[RecordBatch]) -> Self {
        let mut rows = Vec::new();
        for batch in batches {
            let columns: Vec<_> = batch.columns().iter().map(|column| cells(column)).collect();
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            for _ in 0..batch.num_rows() {
                rows.push(
                    columns
                        .iter_mut()
                        .map(|column| column.next().unwrap())
                        .collect(),
                );
            }
        }
        Self::sorted(rows)
    }

    pub fn of_postgres(rows: &[Row]) -> Self {
        let cell = |row: &Row, at: usize| match *row.columns()[at].type_() {
            Type::TEXT => Cell::Text(row.get(at)),
            Type::INT8 => Cell::Integer(row.get(at)),
            Type::FLOAT8 => Cell::Float(row.get(at)),
            Type::TIMESTAMPTZ => {
                let instant: SystemTime = row.get(at);
                let since = instant.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                Cell::Integer(since.as_micros() as i64)
            }
            ref other => panic!("no answer has a column of {other}"),
        };
        let row = |row: &Row| (0..row.len()).map(|at| cell(row, at)).collect();
        Self::sorted(rows.iter().map(row).collect())
    }

    pub fn rows(&self) -> usize {
        self.0.len()
    }

    /// Stops the bench where `other` says something else.
    pub fn must_equal(&self, other: &Self, who: &str) {
        assert_eq!(self.0.len(), other.0.len(), "{who}: another number of rows");
        for (one, another) in self.0.iter().zip(&other.0) {
            assert_eq!(one.len(), another.len(), "{who}: another number of columns");
            let equal = one.iter().zip(another).all(|(a, b)| match (a, b) {
                (Cell::Float(a), Cell::Float(b)) => {
                    (a - b).abs() <= RELATIVE * a.abs().max(b.abs())
                }
                (a, b) => a == b,
            });
            assert!(equal, "{who}: {another:?} instead of {one:?}");
        }
    }

    /// By what must be equal bit for bit first: a sum that differs in its last bit must not change the order.
    fn sorted(mut rows: Vec<Vec<Cell>>) -> Self {
        let exact = |row: &[Cell], other: &[Cell]| {
            let both = row.iter().zip(other);
            let mut exact = both.filter(|(cell, _)| !matches!(cell, Cell::Float(_)));
            exact.find_map(|(a, b)| a.partial_cmp(b).filter(|order| order.is_ne()))
        };
        rows.sort_by(|a, b| exact(a, b).unwrap_or(Ordering::Equal));
        Self(rows)
    }
}

fn cells(column: &dyn datafusion::arrow::array::Array) -> Vec<Cell> {
    assert_eq!(column.null_count(), 0, "no answer has a null");
    let to = |to: &DataType| cast(column, to).unwrap();
    match column.data_type() {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..) => {
            let text = to(&DataType::Utf8);
            let text = text.as_string::<i32>().iter();
            text.map(|text| Cell::Text(text.unwrap().to_owned()))
                .collect()
        }
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>().values();
            floats.iter().copied().map(Cell::Float).collect()
        }
        DataType::Timestamp(_, zone) => {
            let us = to(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone()));
            let us = cast(&us, &DataType::Int64).unwrap();
            let us = us.as_primitive::<Int64Type>().values();
            us.iter().copied().map(Cell::Integer).collect()
        }
        _ => {
            let integers = to(&DataType::Int64);
            let integers = integers.as_primitive::<Int64Type>().values();
            integers.iter().copied().map(Cell::Integer).collect()
        }
    }
}
