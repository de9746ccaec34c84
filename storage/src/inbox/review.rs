//! Kept messages as a person looks at them: listed, shown, and settled: released after a review, or dropped.
//!
//! A row is settled once, and stays; its body goes. Of a released message that is stored the inbox has the content, and
//! whoever dropped one decided that nobody needs it.

use std::str::FromStr;

use jiff::Timestamp;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use vitalseal_crypto::{DeviceId, Kid, MAX_ENVELOPE_BYTES, SubjectPseudonym};
use zeroize::Zeroizing;

use super::quarantine::context;
use super::{Inbox, InboxError};
use crate::database::{at, at_opt, count, damaged, parsed, us};
use crate::ports::{ParseError, QuarantineReason};
use crate::store::{Store, StoreError};

/// A message that was kept aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineRow {
    /// Row number.
    pub id: i64,
    /// Device.
    pub device: DeviceId,
    /// Boot and sequence, as far as they could be read.
    pub message: Option<(u64, u64)>,
    /// Why.
    pub reason: QuarantineReason,
    /// More words.
    pub detail: String,
    /// When it first arrived.
    pub received_at: Timestamp,
    /// Bytes of the message as it is or was kept.
    pub size: u64,
    /// How often it came.
    pub times: u64,
    /// The patient whom it is about, as far as that could be told.
    pub subject: Option<SubjectPseudonym>,
    /// Whether its body is still here.
    pub has_body: bool,
    /// What became of it.
    pub state: QuarantineState,
    /// How that was decided; `None` while it is held.
    pub settled: Option<Settled>,
}

/// What became of a message that was kept aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineState {
    /// It waits for somebody to look at it.
    Held,
    /// It was released, and is stored.
    Released,
    /// It was dropped: the row stays, the body is gone.
    Dropped,
}

impl QuarantineState {
    const ALL: [Self; 3] = [Self::Held, Self::Released, Self::Dropped];

    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Released => "released",
            Self::Dropped => "dropped",
        }
    }
}

impl FromStr for QuarantineState {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.as_str() == text).ok_or(ParseError {
            what: "quarantine state",
            expected: "held, released or dropped",
        })
    }
}

/// Who decided about a kept message, when and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// When.
    pub at: Timestamp,
    /// Who, as the audit log names them.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
}

/// Which kept messages to list; `None` is any.
#[derive(Clone, Default, Debug)]
pub struct QuarantineFilter {
    /// Of this device.
    pub device: Option<DeviceId>,
    /// For this reason.
    pub reason: Option<QuarantineReason>,
    /// In this state.
    pub state: Option<QuarantineState>,
}

/// A row is to leave [`Held`](QuarantineState::Held).
pub(super) struct Settlement {
    id: i64,
    state: QuarantineState,
    settled: Settled,
}

impl Inbox {
    /// Refused messages, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn quarantined(&self, limit: u32) -> Result<Vec<QuarantineRow>, InboxError> {
        self.quarantine_list(&QuarantineFilter::default(), limit)
            .await
    }

    /// The refused messages that `filter` names, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn quarantine_list(
        &self,
        filter: &QuarantineFilter,
        limit: u32,
    ) -> Result<Vec<QuarantineRow>, InboxError> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(SELECT);
        query.push(" WHERE TRUE");
        let device = filter.device.as_ref().map(DeviceId::as_str);
        let (reason, state) = (filter.reason, filter.state);
        for (column, value) in [
            (" AND device = ", device),
            (" AND reason = ", reason.map(QuarantineReason::as_str)),
            (" AND state = ", state.map(QuarantineState::as_str)),
        ] {
            if let Some(value) = value {
                query.push(column).push_bind(value.to_owned());
            }
        }
        query
            .push(" ORDER BY id DESC LIMIT ")
            .push_bind(i64::from(limit));
        let rows = query
            .build()
            .persistent(false)
            .fetch_all(self.db.pool())
            .await?;
        Ok(rows
            .iter()
            .map(QuarantineRow::read)
            .collect::<Result<_, _>>()?)
    }

    /// One refused message.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn quarantine_row(&self, id: i64) -> Result<Option<QuarantineRow>, InboxError> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(SELECT);
        query.push(" WHERE id = ").push_bind(id);
        let row = query.build().fetch_optional(self.db.pool()).await?;
        Ok(row.as_ref().map(QuarantineRow::read).transpose()?)
    }

    /// Settles a held row and deletes its body; `false` when there is no such row, or it was settled before.
    ///
    /// # Errors
    /// When that is not durable.
    pub async fn settle(
        &self,
        id: i64,
        state: QuarantineState,
        settled: Settled,
    ) -> Result<bool, InboxError> {
        let settlement = Settlement { id, state, settled };
        self.ask(|answer| super::writer::Command::Settle(Box::new(settlement), answer))
            .await?
    }

    /// Refused messages that wait for somebody to look at them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn quarantine_held(&self) -> Result<u64, InboxError> {
        Ok(count(held(self.db.pool()).await?)?)
    }

    /// Bytes of refused messages that are kept.
    #[must_use]
    pub fn quarantine_bytes(&self) -> u64 {
        self.memory.room.kept_bytes()
    }

    /// Whether there may be no room for another one.
    #[must_use]
    pub fn is_quarantine_full(&self) -> bool {
        self.memory.room.is_full(MAX_ENVELOPE_BYTES)
    }

    /// Sets how many bytes of refused messages are kept. Beyond it no body is dropped: what can never be stored is
    /// counted without its body, and what a review may release is [not taken](InboxError::QuarantineFull).
    pub fn limit_quarantine(&self, bytes: u64) {
        self.memory.room.limit(bytes);
    }
}

impl Store {
    /// A refused message as it was [kept](super::NewQuarantine::body); `None` when its body was not kept, or its key is gone.
    ///
    /// # Errors
    /// When a database cannot be read or the body does not open.
    pub async fn quarantined_body(
        &self,
        id: i64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let row = sqlx::query(
            "SELECT device, received_at_us, subject, kid, body FROM quarantine WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(self.inbox.db.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let Some(sealed) = row.try_get::<Option<&[u8]>, _>("body")? else {
            return Ok(None);
        };
        let context = context(row.try_get("device")?, row.try_get("received_at_us")?);
        let opened = match row.try_get::<Option<&[u8]>, _>("kid")? {
            None => self.inbox.quarantine_key.open(&context, sealed),
            Some(kid) => {
                let kid = Kid::from_bytes(kid).map_err(damaged)?;
                let keys = self
                    .keys
                    .patient_keys(&parsed(row.try_get("subject")?)?)
                    .await?;
                let Some(kek) = keys.as_ref().and_then(|keys| keys.find(&kid)) else {
                    return Ok(None);
                };
                kek.open(&context, sealed)
            }
        };
        Ok(Some(opened.map_err(InboxError::from)?))
    }
}

const SELECT: &str = "SELECT id, device, boot, sequence, reason, detail, received_at_us, size, times, \
     subject, body IS NOT NULL AS has_body, state, settled_at_us, settled_by, settled_reason \
     FROM quarantine";

impl QuarantineRow {
    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let counters: (Option<i64>, Option<i64>) = (row.try_get("boot")?, row.try_get("sequence")?);
        let subject: Option<&str> = row.try_get("subject")?;
        let settled_at = at_opt(row.try_get("settled_at_us")?)?;
        let settled = match settled_at {
            Some(at) => Some(Settled {
                at,
                by: row.try_get("settled_by")?,
                reason: row.try_get("settled_reason")?,
            }),
            None => None,
        };
        Ok(Self {
            id: row.try_get("id")?,
            device: parsed(row.try_get("device")?)?,
            message: match counters {
                (Some(boot), Some(sequence)) => Some((count(boot)?, count(sequence)?)),
                _ => None,
            },
            reason: parsed(row.try_get("reason")?)?,
            detail: row.try_get("detail")?,
            received_at: at(row.try_get("received_at_us")?)?,
            size: count(row.try_get("size")?)?,
            times: count(row.try_get("times")?)?,
            subject: subject.map(parsed).transpose()?,
            has_body: row.try_get("has_body")?,
            state: parsed(row.try_get("state")?)?,
            settled,
        })
    }
}

impl Settlement {
    /// Whether it was settled now, and the bytes by which the kept bodies shrank.
    pub(super) async fn write(
        &self,
        conn: &mut SqliteConnection,
    ) -> Result<(bool, i64), sqlx::Error> {
        let freed: Option<i64> = sqlx::query_scalar(
            "SELECT IIF(body IS NULL, 0, size) FROM quarantine WHERE id = $1 AND state = 'held'",
        )
        .bind(self.id)
        .fetch_optional(&mut *conn)
        .await?;
        let Some(freed) = freed else {
            return Ok((false, 0));
        };
        sqlx::query(
            "UPDATE quarantine SET state = $1, settled_at_us = $2, settled_by = $3, \
             settled_reason = $4, body = NULL WHERE id = $5",
        )
        .bind(self.state.as_str())
        .bind(us(self.settled.at))
        .bind(&self.settled.by)
        .bind(&self.settled.reason)
        .bind(self.id)
        .execute(conn)
        .await?;
        Ok((true, freed))
    }
}

/// Deletes the kept bodies about a patient, and returns their bytes.
pub(super) async fn purge(
    subject: &SubjectPseudonym,
    conn: &mut SqliteConnection,
) -> Result<i64, sqlx::Error> {
    let freed: Vec<i64> = sqlx::query_scalar(
        "UPDATE quarantine SET body = NULL WHERE subject = $1 AND body IS NOT NULL RETURNING size",
    )
    .bind(subject.as_str())
    .fetch_all(conn)
    .await?;
    Ok(freed.iter().sum())
}

async fn held(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM quarantine WHERE state = 'held'")
        .fetch_one(pool)
        .await
}
