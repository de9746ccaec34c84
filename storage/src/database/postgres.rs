//! What PostgreSQL does otherwise than SQLite: turns, the right to have a registry open, the words of the schema.
//!
//! | Lock (advisory, of the schema) | Held by | For |
//! |---|---|---|
//! | `VSLR` | one connection, while the store is open | one server at a time |
//! | `VSLW` | a write transaction | writers one after the other, as in SQLite |
//!
//! The first is lost with its connection, and somebody else may take it: a writer looks that it is there, takes it
//! again if it is free, and else refuses. A pooler that hands one connection to many clients cannot stand in between.

use std::io;
use std::time::Duration;

use sqlx::Row as _;
use tokio::sync::Mutex;

use super::{Connection, Place, connect};

/// Of every connection. A read transaction sees one instant, however many statements it has; [`BEGIN`] says otherwise for
/// writers. Whoever waits for a turn longer than SQLite would is told.
pub(super) const SET_UP: &str = "\
    SET synchronous_commit = on; \
    SET default_transaction_isolation = 'repeatable read'; \
    SET lock_timeout = '10s';";

/// Begins to write. What was committed before the turn came is seen: the snapshot is that of each statement.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Waits for the turn to write. No row if there is no schema.
const TURN: &str = "SELECT pg_advisory_xact_lock(1448299607, oid::int4) FROM pg_namespace \
                    WHERE nspname = current_schema()";

/// `true` if nobody else has the registry open.
const CLAIM: &str = "SELECT pg_try_advisory_lock(1448299602, oid::int4), pg_backend_pid() FROM pg_namespace \
                     WHERE nspname = current_schema()";

/// Whether the connection of this number still holds it.
const CLAIMED: &str = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1448299602 \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                       AND objid = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) \
                       AND pid = $1 AND granted";

/// Another server opened the registry while this one was cut off from it.
#[derive(Debug, thiserror::Error)]
#[error(
    "another vitalseal process opened the registry while the connection to it was lost; nothing was written: stop one \
     of the two"
)]
struct TakenOver;

/// The right to have the registry open, and the connection that it hangs on.
#[derive(Debug, Default)]
pub(super) struct Claim(Mutex<Option<(Connection, i32)>>);

impl Claim {
    /// Takes it; `false` when somebody else has it.
    pub(super) async fn take(&self, place: &Place) -> Result<bool, sqlx::Error> {
        let mut held = self.0.lock().await;
        *held = claim(place).await?;
        Ok(held.is_some())
    }

    /// In a transaction that has its turn: that it is still ours.
    pub(super) async fn check(
        &self,
        place: &Place,
        writer: &mut Connection,
    ) -> Result<(), sqlx::Error> {
        let mut held = self.0.lock().await;
        let Some((_, pid)) = &*held else {
            return Ok(());
        };
        let claims: i64 = sqlx::query_scalar(CLAIMED)
            .bind(*pid)
            .fetch_one(writer)
            .await?;
        if claims == 0 {
            let fresh = claim(place).await?;
            *held = Some(fresh.ok_or_else(|| sqlx::Error::Io(io::Error::other(TakenOver)))?);
        }
        Ok(())
    }

    pub(super) async fn let_go(&self) {
        if let Some((conn, _)) = self.0.lock().await.take() {
            // The server ends the session either way.
            let _ = sqlx::Connection::close(conn).await;
        }
    }
}

/// How often it is tried, and how long in between: a server takes a moment to notice that whoever held the claim is gone,
/// which may be this very process.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

async fn claim(place: &Place) -> Result<Option<(Connection, i32)>, sqlx::Error> {
    let mut conn = connect(place).await?;
    for tried in 0..TRIES {
        if tried > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        let row = sqlx::query(CLAIM).fetch_one(&mut conn).await?;
        if row.try_get(0)? {
            return Ok(Some((conn, row.try_get(1)?)));
        }
    }
    Ok(None)
}

/// Waits for the turn to write.
pub(super) async fn take_turn(writer: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::query(TURN).fetch_one(writer).await.map(drop)
}

/// The statements of a schema as PostgreSQL takes them: a BLOB is a domain there, and text is compared byte by byte, as
/// SQLite does, whatever the database's language is.
pub(super) fn words(statements: &str) -> String {
    statements.replace("TEXT", "TEXT COLLATE \"C\"")
}

/// Once, before the first table.
pub(super) const DOMAINS: &str = "CREATE DOMAIN blob AS bytea";

/// The version that [`mark`] left; 0 when there is no registry, or none that was completed.
pub(super) const VERSION: &str = "\
    SELECT CAST(COALESCE(MAX(obj_description(oid, 'pg_class')), '0') AS BIGINT) FROM pg_class \
    WHERE relname = 'store' AND relnamespace = current_schema()::regnamespace";

/// The statement that notes a version.
pub(super) fn mark(version: i64) -> String {
    format!("COMMENT ON TABLE store IS '{version}'")
}

/// Tables and types of the schema, whoever made them.
pub(super) const CONTENT: &str = "\
    SELECT (SELECT COUNT(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace) + \
    (SELECT COUNT(*) FROM pg_type WHERE typnamespace = current_schema()::regnamespace)";

/// Names of the tables of the schema.
pub(super) const TABLES: &str =
    "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema()";
