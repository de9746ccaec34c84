//! How every SQLite file here is opened: the inbox, by its own driver, and the registry, where it is one.
//!
//! WAL mode with `synchronous=FULL`: a commit is on disk before it returns. `secure_delete=ON`:
//! freed cells are overwritten, so that less of a deleted row stays in the file (the inbox, whose rows
//! are sealed, does so only where it costs no write).

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use url::Url;

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

/// [`options`] for the driver that serves either database, which knows them by an address and by statements.
pub(super) const SET_UP: &str = "\
    PRAGMA busy_timeout = 10000; \
    PRAGMA foreign_keys = ON; \
    PRAGMA journal_mode = WAL; \
    PRAGMA synchronous = FULL; \
    PRAGMA secure_delete = ON; \
    PRAGMA temp_store = MEMORY;";

/// Of a copy that nobody else has open, and that is thrown away if it is interrupted: no log beside it.
pub(super) const SET_UP_COPY: &str = "\
    PRAGMA foreign_keys = ON; \
    PRAGMA journal_mode = MEMORY; \
    PRAGMA temp_store = MEMORY;";

/// The address of a file that exists.
pub(super) fn url(path: &Path) -> Url {
    let options = SqliteConnectOptions::new().filename(path);
    options.create_if_missing(false).to_url_lossy()
}

/// What a connection does first, so that it finds only what a power cut cannot take back. Whoever wrote before may have
/// died, or may have been told of an error, between a write and its sync: what is in the log then looks committed and is
/// not on the disk, nor would a later sync put it there if that very sync failed. The checkpoint copies it and syncs the
/// copy.
pub(super) const SYNC: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// A connection that did [`SYNC`].
pub(crate) async fn connect_synced(
    options: &SqliteConnectOptions,
) -> Result<SqliteConnection, sqlx::Error> {
    let mut conn = options.connect().await?;
    sqlx::query(SYNC).fetch_all(&mut conn).await?;
    Ok(conn)
}

/// A few connections to one SQLite file, for reading: whoever writes has a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct SqliteFile {
    pool: SqlitePool,
}

impl SqliteFile {
    pub(crate) async fn connect(path: &Path) -> Result<Self, sqlx::Error> {
        let first = connect_synced(&options(path)).await?;
        // SQLite has one writer; a few more connections let readers pass it.
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            // A file does not go away; asking each time is a trip to SQLite's thread.
            .test_before_acquire(false)
            // A transaction that failed at its commit is over for SQLite, and still open for its driver, which then
            // begins no other on that connection.
            .before_acquire(|conn, _| Box::pin(async { Ok(!conn.is_in_transaction()) }))
            .connect_with(options(path))
            .await?;
        first.close().await?;
        Ok(Self { pool })
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
