//! How every SQLite database here is opened, and how instants and counters are stored.
//!
//! WAL mode with `synchronous=FULL`: a commit is on disk before it returns. `secure_delete=ON`:
//! freed cells are overwritten, so that less of a deleted row stays in the file (the inbox, whose rows
//! are sealed, does so only where it costs no write). Instants are i64 microseconds since the Unix epoch.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Sqlite, SqliteConnection, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::durable::{self, FileError};

/// Makes an empty 0600 file for SQLite to fill: its `-wal` and `-shm` then inherit the mode.
pub(crate) fn create_file(path: &Path) -> Result<(), FileError> {
    durable::write_new(path, &[])
}

/// How a connection to `path` is set up.
pub(crate) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
        .pragma("secure_delete", "ON")
        // A temporary B-tree or sorter must not land in a file of its own.
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging()
}

/// A connection that finds only what a power cut cannot take back. Whoever wrote before may have died, or may have been
/// told of an error, between a write and its sync: what is in the log then looks committed and is not on the disk, nor
/// would a later sync put it there if that very sync failed. The checkpoint copies it and syncs the copy.
pub(crate) async fn connect_synced(
    options: &SqliteConnectOptions,
) -> Result<SqliteConnection, sqlx::Error> {
    let mut conn = options.connect().await?;
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_all(&mut conn)
        .await?;
    Ok(conn)
}

/// Whether a database error says that the disk is full (`SQLITE_FULL`; `SQLITE_IOERR_SHMSIZE`, which is the same of the
/// shared index).
pub(crate) fn is_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("13" | "4874"))
}

/// A few connections to one database; writers take turns.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    path: Arc<PathBuf>,
    pool: SqlitePool,
    writing: Arc<Mutex<()>>,
}

impl Database {
    pub(crate) async fn connect(path: &Path) -> Result<Self, sqlx::Error> {
        let first = connect_synced(&options(path)).await?;
        // SQLite has one writer; a few more connections let readers pass it.
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            // A transaction that failed at its commit is over for SQLite, and still open for its driver, which then
            // begins no other on that connection.
            .before_acquire(|conn, _| Box::pin(async { Ok(!conn.is_in_transaction()) }))
            .connect_with(options(path))
            .await?;
        first.close().await?;
        Ok(Self {
            path: Arc::new(path.to_path_buf()),
            pool,
            writing: Arc::default(),
        })
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// A transaction that holds the write lock from its first statement.
    pub(crate) async fn begin(&self) -> Result<Writing, sqlx::Error> {
        let turn = Arc::clone(&self.writing).lock_owned().await;
        let tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Writing { tx, _turn: turn })
    }

    /// A connection of its own, for reading back what the pool wrote.
    pub(crate) async fn fresh_connection(&self) -> Result<SqliteConnection, sqlx::Error> {
        options(&self.path).connect().await
    }

    /// Moves the write-ahead log into the main file and empties it, as far as no reader is in the
    /// way.
    pub(crate) async fn checkpoint(&self) -> Result<(), sqlx::Error> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_all(&self.pool)
            .await
            .map(drop)
    }

    /// The number that the schema left in the file; 0 when it never got there.
    pub(crate) async fn schema_version(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&self.pool)
            .await
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A write transaction and this process's turn to write. Dropped without [`Writing::commit`], it
/// never happened.
#[derive(Debug)]
pub(crate) struct Writing {
    tx: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
}

impl Writing {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

/// Instant to column.
pub(crate) fn us(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Column to instant.
pub(crate) fn at(us: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(us).map_err(damaged)
}

/// Nullable column to instant.
pub(crate) fn at_opt(us: Option<i64>) -> Result<Option<Timestamp>, sqlx::Error> {
    us.map(at).transpose()
}

/// Column to count.
pub(crate) fn count(value: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(value).map_err(damaged)
}

/// Count to column. Nothing counted here comes near 2^63.
pub(crate) fn number(value: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

/// Text column to a type of ours.
pub(crate) fn parsed<T>(text: &str) -> Result<T, sqlx::Error>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text.parse().map_err(damaged)
}

/// A stored value that no version of this program wrote.
pub(crate) fn damaged(cause: impl Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(cause))
}
