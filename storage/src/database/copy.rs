//! Tables from one database into another of either kind, row by row.

use sqlx::any::AnyTypeInfoKind;
use sqlx::{AssertSqlSafe, Column as _, Row as _, ValueRef as _};

use futures::TryStreamExt as _;

use super::{Connection, Row, damaged};

/// Rows of one statement. SQLite takes 32,766 parameters, PostgreSQL 65,535; no table has a hundred columns.
const BATCH: usize = 64;

/// A table of the registry, or some of its columns; the others of the copy are NULL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// With commas between; `*` for all.
    pub(crate) columns: &'static str,
}

/// A whole table.
pub(crate) const fn all(name: &'static str) -> Table {
    Table { name, columns: "*" }
}

/// Copies tables into a new registry, in transactions of the caller. What the schema itself put into the copy is not
/// there twice.
pub(crate) async fn copy(
    tables: &[Table],
    from: &mut Connection,
    to: &mut Connection,
) -> Result<(), sqlx::Error> {
    for table in tables {
        let clear = format!("DELETE FROM {}", table.name);
        sqlx::query(AssertSqlSafe(clear)).execute(&mut *to).await?;
        copy_table(*table, from, to).await?;
    }
    Ok(())
}

async fn copy_table(
    table: Table,
    from: &mut Connection,
    to: &mut Connection,
) -> Result<(), sqlx::Error> {
    let Table { name, columns } = table;
    let select = format!("SELECT {columns} FROM {name}");
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(from);
    let mut waiting = Vec::with_capacity(BATCH);
    while let Some(row) = rows.try_next().await? {
        waiting.push(row);
        if waiting.len() == BATCH {
            insert(name, &waiting, to).await?;
            waiting.clear();
        }
    }
    insert(name, &waiting, to).await
}

async fn insert(table: &str, rows: &[Row], to: &mut Connection) -> Result<(), sqlx::Error> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    let names: Vec<&str> = first.columns().iter().map(|column| column.name()).collect();
    let width = names.len();
    let group = |row: usize| {
        let parameters: Vec<_> = (1..=width)
            .map(|n| format!("${}", row * width + n))
            .collect();
        format!("({})", parameters.join(", "))
    };
    let groups: Vec<_> = (0..rows.len()).map(group).collect();
    let statement = format!(
        "INSERT INTO {table} ({}) VALUES {}",
        names.join(", "),
        groups.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for (row, at) in rows
        .iter()
        .flat_map(|row| (0..width).map(move |at| (row, at)))
    {
        let null = row.try_get_raw(at)?.is_null();
        query = match row.column(at).type_info().kind() {
            AnyTypeInfoKind::Text if null => query.bind(None::<String>),
            AnyTypeInfoKind::Text => query.bind(row.try_get::<String, _>(at)?),
            AnyTypeInfoKind::Blob if null => query.bind(None::<Vec<u8>>),
            AnyTypeInfoKind::Blob => query.bind(row.try_get::<Vec<u8>, _>(at)?),
            kind if kind.is_integer() && null => query.bind(None::<i64>),
            kind if kind.is_integer() => query.bind(row.try_get::<i64, _>(at)?),
            _ => return Err(damaged(UnknownType)),
        };
    }
    query.execute(to).await.map(drop)
}

/// A column is neither number, text nor bytes.
#[derive(Debug, thiserror::Error)]
#[error("a column of the registry has a type that no version of this program gave it")]
struct UnknownType;
