//! Sessions of the MQTT edge that outlive the process: what each listens to, and how long it is waited for.
//!
//! What a session heard and did not acknowledge is not here: of a device's own messages the downlink knows it, and of
//! what is said to many the edge does. Identifiers of QoS 2 exchanges are not here either: the counters of a message tell
//! a repeated one, whatever packet it came in.
//!
//! A store that was restored, or joined with a key snapshot that is newer than it, has no sessions: its server may have
//! forgotten what it acknowledged, and `session present = 0` is how a device learns of it.

use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, SqliteConnection};

use super::writer::Command;
use super::{Inbox, InboxError};
use crate::database::{at_opt, damaged, us};

/// A session, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptSession {
    /// Client identifier.
    pub client: String,
    /// Topic filters and the QoS that was granted for each.
    pub subscriptions: Vec<(String, u8)>,
    /// Seconds that it outlives its connection; [`u32::MAX`]: for ever (v5 3.1.2.11.2).
    pub expiry_s: u32,
    /// When its connection ended. `None`: it stood when this was written.
    pub left_at: Option<Timestamp>,
}

/// What became of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionChange {
    /// It is this now.
    Keep(KeptSession),
    /// Its connection ended then, or, at `None`, it has one again.
    Left {
        /// Client identifier.
        client: String,
        /// When.
        at: Option<Timestamp>,
    },
    /// It ended.
    Forget {
        /// Client identifier.
        client: String,
    },
}

impl Inbox {
    /// All sessions that are kept, ended ones included that nobody forgot.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sessions(&self) -> Result<Vec<KeptSession>, InboxError> {
        Ok(all(self.db.pool()).await?)
    }

    /// Writes down what became of sessions, in this order; durable when this returns.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn change_sessions(&self, changes: Vec<SessionChange>) -> Result<(), InboxError> {
        self.ask(|answer| Command::Sessions(changes, answer))
            .await?
    }
}

impl SessionChange {
    pub(super) async fn write(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let statement = match self {
            Self::Keep(session) => {
                let subscriptions = serde_json::to_string(&session.subscriptions);
                sqlx::query(
                    "INSERT INTO sessions (client, subscriptions, expiry_s, left_at_us) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (client) DO UPDATE SET subscriptions = excluded.subscriptions, \
                     expiry_s = excluded.expiry_s, left_at_us = excluded.left_at_us",
                )
                .bind(&session.client)
                .bind(subscriptions.map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
                .bind(session.expiry_s)
                .bind(session.left_at.map(us))
            }
            Self::Left { client, at } => {
                sqlx::query("UPDATE sessions SET left_at_us = $2 WHERE client = $1")
                    .bind(client)
                    .bind(at.map(us))
            }
            Self::Forget { client } => {
                sqlx::query("DELETE FROM sessions WHERE client = $1").bind(client)
            }
        };
        statement.execute(conn).await.map(drop)
    }
}

/// Ends every session: of a store that goes on from an older copy.
pub(super) async fn forget_all(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions")
        .execute(conn)
        .await
        .map(drop)
}

async fn all(pool: &SqlitePool) -> Result<Vec<KeptSession>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM sessions ORDER BY client")
        .fetch_all(pool)
        .await?;
    let mut sessions = Vec::with_capacity(rows.len());
    for row in rows {
        let subscriptions = row.try_get::<&str, _>("subscriptions")?;
        sessions.push(KeptSession {
            client: row.try_get("client")?,
            subscriptions: serde_json::from_str(subscriptions).map_err(damaged)?,
            expiry_s: row.try_get("expiry_s")?,
            left_at: at_opt(row.try_get("left_at_us")?)?,
        });
    }
    Ok(sessions)
}
