//! The SQLite file of the log: how it is opened, the statements that read it, and the one that adds to it.

use std::path::Path;

use jiff::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};
use tlog_tiles::tlog::Hash;

use super::tree::{Frontier, KnownHashes};
use super::{AuditEntry, AuditLogError};

/// Readers never wait for the writer (WAL); four are enough for a report, a tail and a verification side by side.
const READERS: u32 = 4;

/// `synchronous=FULL` in WAL mode: a commit returns after the log file was fsynced.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

/// Makes the empty file that only its owner may read; SQLite gives the files beside it the same mode.
pub(super) async fn create_file(path: &Path) -> Result<(), AuditLogError> {
    tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .await
        .map(drop)
        .map_err(|cause| AuditLogError::database("creating")(cause.into()))
}

/// The connection of the writer. What it finds in SQLite's log may never have been synced: whoever wrote it may have
/// died before, or may have been told of an error. The checkpoint makes it durable, before anything is built on it.
pub(super) async fn connect(path: &Path) -> Result<SqliteConnection, AuditLogError> {
    let opened = async {
        let mut conn = options(path).connect().await?;
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .fetch_all(&mut conn)
            .await?;
        Ok(conn)
    };
    opened.await.map_err(AuditLogError::database("opening"))
}

/// Connections for everybody who reads.
pub(super) async fn readers(path: &Path) -> Result<SqlitePool, AuditLogError> {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(options(path).read_only(true))
        .await
        .map_err(AuditLogError::database("opening"))
}

pub(super) async fn create_schema(writer: &mut SqliteConnection) -> Result<(), AuditLogError> {
    sqlx::raw_sql(include_str!("schema.sql"))
        .execute(writer)
        .await
        .map(drop)
        .map_err(AuditLogError::database("creating"))
}

/// Adds records from number `first` on, their hashes and the head over them: one transaction, in one message to SQLite's
/// thread, since each takes about as long as all the statements. After an error the transaction may still be open: the
/// connection is of no use any more.
pub(super) async fn append(
    writer: &mut SqliteConnection,
    first: u64,
    records: &[(i64, String)],
    hashes: &[(u64, Hash)],
    note: &str,
) -> Result<(), sqlx::Error> {
    let mut free = 1..;
    let mut rows = |rows: usize, columns: usize| {
        let row = |_| {
            let places = free.by_ref().take(columns);
            let places: Vec<_> = places.map(|place: usize| format!("${place}")).collect();
            format!("({})", places.join(", "))
        };
        (0..rows).map(row).collect::<Vec<_>>().join(", ")
    };
    let statements = format!(
        "BEGIN IMMEDIATE; INSERT INTO record (seq, at_us, leaf) VALUES {}; INSERT INTO hash (idx, hash) VALUES {}; \
         UPDATE head SET note = {} WHERE id = 0; COMMIT",
        rows(records.len(), 3),
        rows(hashes.len(), 2),
        rows(1, 1),
    );
    // Of single records there are few different texts; SQLite keeps them prepared.
    let mut query = sqlx::query(AssertSqlSafe(statements)).persistent(records.len() == 1);
    for (seq, (at_us, leaf)) in (first..).zip(records) {
        query = query.bind(to_sql(seq)).bind(at_us).bind(leaf);
    }
    for (index, hash) in hashes {
        query = query.bind(to_sql(*index)).bind(hash.0.as_slice());
    }
    query.bind(note).execute(writer).await.map(drop)
}

/// SQLite counts in `i64`; a log with 2^63 records is out of reach.
pub(super) fn to_sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn to_count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// The signed checkpoint.
pub(super) async fn head(conn: &mut SqliteConnection) -> Result<String, AuditLogError> {
    sqlx::query_scalar("SELECT note FROM head WHERE id = 0")
        .fetch_one(conn)
        .await
        .map_err(AuditLogError::database("reading the head of"))
}

/// Numbers of stored records and of stored hashes, whatever the head says.
pub(super) async fn counts(conn: &mut SqliteConnection) -> Result<(u64, u64), AuditLogError> {
    let row = sqlx::query("SELECT (SELECT count(*) FROM record), (SELECT count(*) FROM hash)")
        .fetch_one(conn)
        .await
        .map_err(AuditLogError::database("counting"))?;
    Ok((to_count(row.get(0)), to_count(row.get(1))))
}

/// Stored hashes by index; those that are absent are left out.
pub(super) async fn hashes(
    conn: &mut SqliteConnection,
    indexes: &[u64],
) -> Result<KnownHashes, AuditLogError> {
    let mut known = KnownHashes::default();
    for &index in indexes {
        let hash: Option<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM hash WHERE idx = $1")
            .bind(to_sql(index))
            .fetch_optional(&mut *conn)
            .await
            .map_err(AuditLogError::database("reading"))?;
        if let Some(hash) = hash.and_then(|hash| hash.try_into().ok()) {
            known.0.insert(index, Hash(hash));
        }
    }
    Ok(known)
}

/// Stored hashes with `from <= index < to`, in order.
pub(super) async fn hash_range(
    conn: &mut SqliteConnection,
    from: u64,
    to: u64,
) -> Result<KnownHashes, AuditLogError> {
    let rows = sqlx::query("SELECT idx, hash FROM hash WHERE idx >= $1 AND idx < $2")
        .bind(to_sql(from))
        .bind(to_sql(to))
        .fetch_all(conn)
        .await
        .map_err(AuditLogError::database("reading"))?;
    let mut known = KnownHashes::default();
    for row in rows {
        if let Ok(hash) = <[u8; 32]>::try_from(row.get::<Vec<u8>, _>(1)) {
            known.0.insert(to_count(row.get(0)), Hash(hash));
        }
    }
    Ok(known)
}

/// The frontier of the tree of `size` records as it was stored.
pub(super) async fn frontier(
    conn: &mut SqliteConnection,
    size: u64,
) -> Result<Frontier, AuditLogError> {
    let known = hashes(conn, &Frontier::indexes(size)).await?;
    Ok(Frontier::from_stored(size, known))
}

/// A stored row.
pub(super) struct StoredRecord {
    pub(super) seq: u64,
    pub(super) at_us: i64,
    pub(super) leaf: String,
}

fn stored(row: &sqlx::sqlite::SqliteRow) -> StoredRecord {
    StoredRecord {
        seq: to_count(row.get(0)),
        at_us: row.get(1),
        leaf: row.get(2),
    }
}

/// Rows with `from <= seq < to`, at most `limit`, in order.
pub(super) async fn rows(
    conn: &mut SqliteConnection,
    from: u64,
    to: u64,
    limit: u32,
) -> Result<Vec<StoredRecord>, AuditLogError> {
    let rows = sqlx::query(
        "SELECT seq, at_us, leaf FROM record WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT $3",
    )
    .bind(to_sql(from))
    .bind(to_sql(to))
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
    .map_err(AuditLogError::database("reading"))?;
    Ok(rows.iter().map(stored).collect())
}

/// Number of the first record at or after an instant.
pub(super) async fn first_since(
    conn: &mut SqliteConnection,
    since: Timestamp,
) -> Result<Option<u64>, AuditLogError> {
    let seq: Option<i64> = sqlx::query_scalar("SELECT min(seq) FROM record WHERE at_us >= $1")
        .bind(since.as_microsecond())
        .fetch_one(conn)
        .await
        .map_err(AuditLogError::database("reading"))?;
    Ok(seq.map(to_count))
}

/// The last `n` records, oldest first.
pub(super) async fn last(
    conn: &mut SqliteConnection,
    n: u32,
) -> Result<Vec<AuditEntry>, AuditLogError> {
    let rows = sqlx::query("SELECT seq, at_us, leaf FROM record ORDER BY seq DESC LIMIT $1")
        .bind(i64::from(n))
        .fetch_all(conn)
        .await
        .map_err(AuditLogError::database("reading"))?;
    rows.iter()
        .rev()
        .map(stored)
        .map(|row| AuditEntry::decode(row.seq, &row.leaf))
        .collect()
}
