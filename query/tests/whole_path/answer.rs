//! Answers, and what makes two of them the same.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::ward::Ward;

/// Rows of an answer.
pub(crate) struct Answer(Vec<Vec<Cell>>);

#[derive(Clone, Debug)]
enum Cell {
    Text(String),
    Number(f64),
}

impl Answer {
    pub(crate) async fn of_plaintext(context: &SessionContext, sql: &str) -> Self {
        let frame = context.sql(sql).await;
        let frame = frame.unwrap_or_else(|error| panic!("{sql}\n{error}"));
        let batches = frame.collect().await;
        Self::of(&batches.unwrap_or_else(|error| panic!("{sql}\n{error}")))
    }

    pub(crate) async fn of_sealed(ward: &Ward, sql: &str) -> Self {
        let session = ward.session("md").await;
        let rows = session.sql(sql).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
        let batches: Result<Vec<RecordBatch>, _> = rows.try_collect().await;
        Self::of(&batches.unwrap_or_else(|error| panic!("{sql}\n{error:?}")))
    }

    fn of(batches: &[RecordBatch]) -> Self {
        let mut rows = Vec::new();
        for batch in batches {
            let options = FormatOptions::default();
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| {
                    if *column.data_type() == DataType::Float64 && column.is_valid(row) {
                        return Cell::Number(column.as_primitive::<Float64Type>().value(row));
                    }
                    let text = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
                    Cell::Text(text.value(row).to_string())
                });
                rows.push(cells.collect());
            }
        }
        Self(rows)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same rows, in whatever order; a sum may have been added up in another one.
    pub(crate) fn equals(&self, other: &Self) -> Result<(), String> {
        let sorted = |rows: &[Vec<Cell>]| {
            let mut rows = rows.to_vec();
            rows.sort_by(|a, b| order(a, b));
            Self(rows)
        };
        sorted(&self.0).equals_in_order(&sorted(&other.0))
    }

    /// The same rows in the same order.
    pub(crate) fn equals_in_order(&self, other: &Self) -> Result<(), String> {
        if self.0.len() != other.0.len() {
            return Err(format!("{} rows, and not {}", self.0.len(), other.0.len()));
        }
        for (found, expected) in self.0.iter().zip(&other.0) {
            let same = found.len() == expected.len()
                && found.iter().zip(expected).all(|(a, b)| near(a, b));
            if !same {
                return Err(format!("found    {found:?}\nexpected {expected:?}"));
            }
        }
        Ok(())
    }

    /// `limit` of the rows of `other`, or all if there are fewer; none more often than there.
    pub(crate) fn is_part_of(&self, other: &Self, limit: usize) -> Result<(), String> {
        let expected = limit.min(other.0.len());
        if self.0.len() != expected {
            return Err(format!("{} rows, and not {expected}", self.0.len()));
        }
        let mut left: BTreeMap<String, usize> = BTreeMap::new();
        for row in &other.0 {
            *left.entry(format!("{row:?}")).or_default() += 1;
        }
        for row in &self.0 {
            match left.get_mut(&format!("{row:?}")) {
                Some(left) if *left > 0 => *left -= 1,
                _ => return Err(format!("{row:?} is not there, or not so often")),
            }
        }
        Ok(())
    }
}

fn near(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::Number(a), Cell::Number(b)) => {
            a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        }
        (Cell::Text(a), Cell::Text(b)) => a == b,
        _ => false,
    }
}

/// Texts decide first: what is computed may differ in its last digits.
fn order(a: &[Cell], b: &[Cell]) -> Ordering {
    let texts = |row: &[Cell]| -> Vec<String> {
        let texts = row.iter().map(|cell| match cell {
            Cell::Text(text) => text.clone(),
            Cell::Number(_) => String::new(),
        });
        texts.collect()
    };
    let numbers = |row: &[Cell]| -> Vec<f64> {
        let numbers = row.iter().filter_map(|cell| match cell {
            Cell::Number(number) => Some(*number),
            Cell::Text(_) => None,
        });
        numbers.collect()
    };
    texts(a).cmp(&texts(b)).then_with(|| {
        let (a, b) = (numbers(a), numbers(b));
        let different = a.iter().zip(&b).map(|(a, b)| a.total_cmp(b));
        different
            .into_iter()
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    })
}
