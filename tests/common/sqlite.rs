//! What SQLite says of the tables of a file, in the words of `docs/DATA_MODEL.md`.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::SqlitePool;

/// Name and type of each column of each table; a type with `?` may be NULL.
pub(crate) async fn tables_of(file: &Path) -> BTreeMap<String, Vec<(String, String)>> {
    let address = format!("sqlite://{}?mode=ro", file.display());
    let pool = SqlitePool::connect(&address).await.unwrap();
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let mut tables = BTreeMap::new();
    for name in names {
        let columns: Vec<(String, String, bool)> = sqlx::query_as(
            "SELECT name, type, \"notnull\" = 1 OR pk > 0 FROM pragma_table_info($1) ORDER BY cid",
        )
        .bind(&name)
        .fetch_all(&pool)
        .await
        .unwrap();
        let columns = columns.into_iter().map(|(name, kind, never_null)| {
            let null = if never_null { "" } else { "?" };
            (name, format!("{kind}{null}"))
        });
        tables.insert(name, columns.collect());
    }
    pool.close().await;
    tables
}
