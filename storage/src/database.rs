//! The registry's database: a SQLite file in the data directory, or a schema on a PostgreSQL server. The same tables and
//! the same statements for both; what differs stands here.
//!
//! | | SQLite | PostgreSQL |
//! |---|---|---|
//! | a commit is durable | WAL, `synchronous=FULL` | `synchronous_commit=on` |
//! | one writer at a time | `BEGIN IMMEDIATE` | an advisory lock first |
//! | a transaction that reads is of one instant | always | `REPEATABLE READ` |
//! | one server at a time | lock file of the data directory | an advisory lock of a session |
//! | what is deleted | is overwritten | stays until the server's vacuum |
//! | version of the tables | `user_version` | comment on `store` |
//!
//! A statement outside of this folder must mean the same to both: `$1` for a parameter and one type for each, ever, since
//! statements are prepared once; a column by its table's name where `excluded` is near; `CAST('' AS BLOB)` for no bytes;
//! no truth value in a column.
//!
//! The inbox is no part of this: it is the hot path and stays a SQLite file with its own driver, in [`sqlite`].

mod column;
pub(crate) mod copy;
mod place;
mod postgres;
pub(crate) mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sqlx::any::{Any, AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyPool, AssertSqlSafe, ConnectOptions as _, Connection as _, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub(crate) use self::column::{at, at_opt, count, damaged, number, parsed, us};
pub use self::place::{PlaceError, PostgresPlace, RegistryPlace};
use self::postgres::Claim;

/// A connection to either.
pub(crate) type Connection = sqlx::AnyConnection;

/// A row of either.
pub(crate) type Row = sqlx::any::AnyRow;

/// A database, as it is found.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A file that exists.
    Sqlite(PathBuf),
    /// A copy of which nobody knows yet.
    Copy(PathBuf),
    Postgres(PostgresPlace),
}

impl Place {
    fn options(&self) -> Result<AnyConnectOptions, sqlx::Error> {
        let url = match self {
            Self::Sqlite(path) | Self::Copy(path) => &sqlite::url(path),
            Self::Postgres(place) => place.url(),
        };
        Ok(AnyConnectOptions::from_url(url)?.disable_statement_logging())
    }

    fn set_up(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite::SET_UP,
            Self::Copy(_) => sqlite::SET_UP_COPY,
            Self::Postgres(_) => postgres::SET_UP,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) | Self::Copy(path) => path.display().fmt(f),
            Self::Postgres(place) => place.fmt(f),
        }
    }
}

/// A connection of its own.
pub(crate) async fn connect(place: &Place) -> Result<Connection, sqlx::Error> {
    sqlx::any::install_default_drivers();
    let mut conn = place.options()?.connect().await?;
    sqlx::raw_sql(place.set_up()).execute(&mut conn).await?;
    Ok(conn)
}

/// A few connections to the registry; writers take turns.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    place: Arc<Place>,
    pool: AnyPool,
    writing: Arc<Mutex<()>>,
    claim: Arc<Claim>,
}

impl Database {
    pub(crate) async fn connect(place: Place) -> Result<Self, sqlx::Error> {
        let mut first = connect(&place).await?;
        if matches!(place, Place::Sqlite(_)) {
            sqlx::query(sqlite::SYNC).fetch_all(&mut first).await?;
        }
        let set_up = place.set_up();
        // There is one writer; a few more connections let readers pass it.
        let pool = AnyPoolOptions::new()
            .max_connections(4)
            // A file does not go away as a server does; asking each time is a trip to SQLite's thread.
            .test_before_acquire(matches!(place, Place::Postgres(_)))
            .after_connect(move |conn, _| {
                Box::pin(async move { sqlx::raw_sql(set_up).execute(conn).await.map(drop) })
            })
            // A transaction that failed at its commit is over for the database, and still open for its driver, which
            // then begins no other on that connection.
            .before_acquire(|conn, _| {
                let idle = !conn.is_in_transaction();
                Box::pin(async move { Ok(idle) })
            })
            .connect_with(place.options()?)
            .await?;
        first.close().await?;
        Ok(Self {
            place: Arc::new(place),
            pool,
            writing: Arc::default(),
            claim: Arc::default(),
        })
    }

    /// For statements that read, and, by its `begin`, for several of one instant.
    pub(crate) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Claims the registry for as long as it is open; `false` when another process has it. A file needs none: whoever has
    /// the data directory has it.
    pub(crate) async fn claim(&self) -> Result<bool, sqlx::Error> {
        match *self.place {
            Place::Postgres(_) => self.claim.take(&self.place).await,
            _ => Ok(true),
        }
    }

    /// A transaction that is the only one to write, from its first statement on.
    pub(crate) async fn begin(&self) -> Result<Writing, sqlx::Error> {
        let turn = Arc::clone(&self.writing).lock_owned().await;
        let tx = match *self.place {
            Place::Postgres(_) => {
                let mut tx = self.pool.begin_with(postgres::BEGIN).await?;
                postgres::take_turn(&mut tx).await?;
                self.claim.check(&self.place, &mut tx).await?;
                tx
            }
            _ => self.pool.begin_with("BEGIN IMMEDIATE").await?,
        };
        Ok(Writing { tx, _turn: turn })
    }

    /// A connection of its own, for reading back what the pool wrote.
    pub(crate) async fn fresh_connection(&self) -> Result<Connection, sqlx::Error> {
        connect(&self.place).await
    }

    /// Moves the write-ahead log into the main file and empties it, as far as no reader is in the
    /// way. A server's log is its own: what it holds leads to a root that ends.
    pub(crate) async fn checkpoint(&self) -> Result<(), sqlx::Error> {
        if matches!(*self.place, Place::Postgres(_)) {
            return Ok(());
        }
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_all(&self.pool)
            .await
            .map(drop)
    }

    /// The number that [`lay_out`] left; 0 when it never got there.
    pub(crate) async fn schema_version(&self) -> Result<i64, sqlx::Error> {
        let version = match *self.place {
            Place::Postgres(_) => postgres::VERSION,
            _ => "PRAGMA user_version",
        };
        sqlx::query_scalar(version).fetch_one(&self.pool).await
    }

    /// Whether anything is there: a new store needs a file or a schema of its own.
    pub(crate) async fn is_empty(&self) -> Result<bool, sqlx::Error> {
        let content = match *self.place {
            Place::Postgres(_) => postgres::CONTENT,
            _ => "SELECT COUNT(*) FROM sqlite_master",
        };
        let content: i64 = sqlx::query_scalar(content).fetch_one(&self.pool).await?;
        Ok(content == 0)
    }

    /// Removes every table from a server's schema, which has no others: see [`Database::is_empty`].
    pub(crate) async fn remove(&self) -> Result<(), sqlx::Error> {
        if !matches!(*self.place, Place::Postgres(_)) {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let conn = tx.connection();
        for table in tables(conn).await? {
            run(format!("DROP TABLE \"{table}\" CASCADE"), conn).await?;
        }
        run("DROP DOMAIN IF EXISTS blob".to_owned(), conn).await?;
        tx.commit().await
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
        self.claim.let_go().await;
    }
}

/// A write transaction and this process's turn to write. Dropped without [`Writing::commit`], it
/// never happened. When the commit itself fails, it may have happened or not: what is kept in memory of it has to be
/// read again.
#[derive(Debug)]
pub(crate) struct Writing {
    tx: Transaction<'static, Any>,
    _turn: OwnedMutexGuard<()>,
}

impl Writing {
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.tx
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

/// Makes tables, in the caller's transaction: those of a new registry, or what a later version adds to an older one.
pub(crate) async fn lay_out(
    statements: &'static str,
    version: i64,
    conn: &mut Connection,
) -> Result<(), sqlx::Error> {
    if !is_postgres(conn) {
        sqlx::raw_sql(statements).execute(&mut *conn).await?;
        return mark(version, conn).await;
    }
    let domain = "SELECT COUNT(*) FROM pg_type WHERE typname = 'blob' AND \
                  typnamespace = current_schema()::regnamespace";
    let there: i64 = sqlx::query_scalar(domain).fetch_one(&mut *conn).await?;
    if there == 0 {
        run(postgres::DOMAINS.to_owned(), conn).await?;
    }
    run(postgres::words(statements), conn).await?;
    mark(version, conn).await
}

/// Notes the version of the tables.
pub(crate) async fn mark(version: i64, conn: &mut Connection) -> Result<(), sqlx::Error> {
    let statement = match is_postgres(conn) {
        true => postgres::mark(version),
        false => {
            format!("PRAGMA application_id = 1448296274; PRAGMA user_version = {version}")
        }
    };
    run(statement, conn).await
}

/// The names of all tables.
pub(crate) async fn tables(conn: &mut Connection) -> Result<Vec<String>, sqlx::Error> {
    let names = match is_postgres(conn) {
        true => postgres::TABLES,
        false => "SELECT name FROM sqlite_schema WHERE type = 'table'",
    };
    sqlx::query_scalar(names).fetch_all(conn).await
}

/// Statements that are put together here, from nothing but what stands in this program.
async fn run(statements: String, conn: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(conn)
        .await
        .map(drop)
}

fn is_postgres(conn: &Connection) -> bool {
    conn.backend_name() == "PostgreSQL"
}

/// Whether a database error says that the disk is full: `SQLITE_FULL`; `SQLITE_IOERR_SHMSIZE`, which is the same of the
/// shared index; `disk_full` of PostgreSQL.
pub(crate) fn is_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("13" | "4874" | "53100"))
}
