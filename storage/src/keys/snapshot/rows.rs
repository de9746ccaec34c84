//! Rows of the registry on their way into a snapshot and back, as they stand in the database.
//!
//! No `Debug` here: a row may hold a pseudonym.
//!
//! In JSON an integer is a number, `NULL` is `null`, a text is `"=text"` and a blob is `"#hex"`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use crate::database::{self, Connection};

/// One value of a row.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// A row, in the order of the columns of the statement that read it.
pub(super) type Row = Vec<Cell>;

/// A cell is not what this column holds.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a value of another kind than its column's")]
pub(super) struct WrongCell;

impl Cell {
    pub(super) fn int(&self) -> Result<i64, WrongCell> {
        match self {
            Self::Int(value) => Ok(*value),
            _ => Err(WrongCell),
        }
    }

    pub(super) fn text(&self) -> Result<&str, WrongCell> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(WrongCell),
        }
    }

    pub(super) fn blob(&self) -> Result<&[u8], WrongCell> {
        match self {
            Self::Blob(bytes) => Ok(bytes),
            _ => Err(WrongCell),
        }
    }
}

impl From<Cell> for Value {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Int(value) => value.into(),
            Cell::Text(text) => format!("={text}").into(),
            Cell::Blob(bytes) => format!("#{}", hex::encode(bytes)).into(),
        }
    }
}

impl TryFrom<Value> for Cell {
    type Error = WrongCell;

    fn try_from(value: Value) -> Result<Self, WrongCell> {
        match &value {
            Value::Null => return Ok(Self::Null),
            Value::Number(number) => return number.as_i64().map(Self::Int).ok_or(WrongCell),
            _ => {}
        }
        let text = value.as_str().ok_or(WrongCell)?;
        if let Some(text) = text.strip_prefix('=') {
            return Ok(Self::Text(text.to_owned()));
        }
        let digits = text.strip_prefix('#').ok_or(WrongCell)?;
        hex::decode(digits).map(Self::Blob).map_err(|_| WrongCell)
    }
}

/// All rows that a statement answers; `$1` is `page` if it has one.
pub(super) async fn read(
    statement: &'static str,
    page: Option<i64>,
    conn: &mut Connection,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut query = sqlx::query(statement);
    if let Some(page) = page {
        query = query.bind(page);
    }
    let rows = query.fetch_all(conn).await?;
    rows.iter()
        .map(|row| (0..row.len()).map(|at| cell(row, at)).collect())
        .collect()
}

fn cell(row: &database::Row, at: usize) -> Result<Cell, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    match raw.type_info().name() {
        "TEXT" => row.try_get(at).map(Cell::Text),
        "BLOB" => row.try_get(at).map(Cell::Blob),
        _ => row.try_get(at).map(Cell::Int),
    }
}

/// Executes a statement with a row's cells as `$1`, `$2`, …; says how many rows it changed. A NULL is one of a number.
pub(super) async fn write(
    statement: &'static str,
    row: &[Cell],
    conn: &mut Connection,
) -> Result<u64, sqlx::Error> {
    write_typed(statement, row, &[], conn).await
}

/// What a NULL is of, where it is of no number: a database that knows the type of every parameter asks.
#[derive(Clone, Copy)]
pub(super) enum Null {
    Text,
    Blob,
}

/// [`write()`], with the NULLs of these cells.
pub(super) async fn write_typed(
    statement: &'static str,
    row: &[Cell],
    nulls: &[(usize, Null)],
    conn: &mut Connection,
) -> Result<u64, sqlx::Error> {
    let mut query = sqlx::query(statement);
    for (at, cell) in row.iter().enumerate() {
        let null = nulls.iter().find(|(of, _)| *of == at).map(|(_, null)| null);
        query = match (cell, null) {
            (Cell::Null, None) => query.bind(None::<i64>),
            (Cell::Null, Some(Null::Text)) => query.bind(None::<&str>),
            (Cell::Null, Some(Null::Blob)) => query.bind(None::<&[u8]>),
            (Cell::Int(value), _) => query.bind(value),
            (Cell::Text(text), _) => query.bind(text),
            (Cell::Blob(bytes), _) => query.bind(bytes.as_slice()),
        };
    }
    Ok(query.execute(conn).await?.rows_affected())
}
