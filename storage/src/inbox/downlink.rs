//! What devices are told, until they have it: a durable queue for each, in the order in which it was queued.
//!
//! A body is sealed under the quarantine page key before SQLite sees it, and bound to its place:
//!
//! ```text
//! context = "vitalseal/downlink/1" || 0x00 || device || 0x00 || queued_at, i64 µs BE
//! ```
//!
//! Numbers and ends of what waits are in memory too, so that a device for which nothing waits, as for most, costs no
//! read. A number is never used twice. A message leaves the queue when its device acknowledged it, when it expired, or
//! when its device was revoked; and a store that was restored has none: what a copy holds may have been done or taken back
//! since.
//!
//! Never here: who may send what, or a word to the device.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::watch;
use vitalseal_crypto::DeviceId;
use zeroize::Zeroizing;

use super::writer::Command;
use super::{Inbox, InboxError};
use crate::database::{at, count, damaged, parsed, us};

/// Messages that wait for one device, at most. A device that is back takes them in a second; an operator who sends more
/// to one that is away should look after it.
pub const MAX_DOWNLINK_WAITING: usize = 100;

/// Bytes of one message, at most: settings and commands, not firmware.
pub const MAX_DOWNLINK_BYTES: usize = 64 * 1024;

/// A message was not queued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownlinkError {
    /// Too many wait already.
    #[error(
        "{MAX_DOWNLINK_WAITING} messages wait for device {0} already; it takes them when it connects (`vitalseal device downlink` \
         shows them)"
    )]
    Full(DeviceId),
    /// Empty, or too large.
    #[error(
        "a message to a device has 1 to {MAX_DOWNLINK_BYTES} bytes, this one {0}; send a reference instead"
    )]
    Size(usize),
    /// It would have expired at once.
    #[error("a message that expired already is not queued; give it a later end")]
    Expired,
    /// It is not durable.
    #[error("queueing a message for a device")]
    Inbox(#[from] InboxError),
}

/// A message that waits, without its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownlinkRow {
    /// Its number.
    pub id: i64,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it is given up.
    pub expires_at: Timestamp,
    /// Bytes of its content.
    pub bytes: u64,
}

/// One device's queue, as its connection sees it.
pub struct Listener {
    inbox: Inbox,
    device: DeviceId,
    news: watch::Receiver<()>,
}

impl Inbox {
    /// Queues a message for a device; says its number. Durable when this returns.
    ///
    /// # Errors
    /// [`DownlinkError`]
    pub async fn tell(
        &self,
        device: &DeviceId,
        body: &[u8],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<i64, DownlinkError> {
        if body.is_empty() || body.len() > MAX_DOWNLINK_BYTES {
            return Err(DownlinkError::Size(body.len()));
        }
        if expires_at <= now {
            return Err(DownlinkError::Expired);
        }
        let queued_at_us = us(now);
        let context = context(device.as_str(), queued_at_us);
        let sealed = self.quarantine_key.seal(&context, body);
        let added = Change::Add {
            device: device.clone(),
            body: sealed.map_err(InboxError::from)?,
            queued_at_us,
            expires_at_us: us(expires_at),
        };
        let id = self.change_downlink(added).await?;
        id.ok_or_else(|| DownlinkError::Full(device.clone()))
    }

    /// What waits for a device at `now`, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn downlink(
        &self,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<Vec<DownlinkRow>, InboxError> {
        Ok(list(device, us(now), self.db.pool()).await?)
    }

    /// A device's queue, to be told from.
    #[must_use]
    pub fn listen(&self, device: &DeviceId) -> Listener {
        Listener {
            inbox: self.clone(),
            device: device.clone(),
            news: self.memory.waiting.listen(device),
        }
    }

    /// Removes what waits for a device, which was revoked.
    ///
    /// # Errors
    /// When that is not durable.
    pub async fn forget_downlink(&self, device: &DeviceId) -> Result<(), InboxError> {
        let device = device.clone();
        self.change_downlink(Change::Forget { device }).await?;
        Ok(())
    }

    /// Removes what expired before `now`. Writes nothing when nothing did.
    ///
    /// # Errors
    /// When that is not durable.
    pub async fn expire_downlink(&self, now: Timestamp) -> Result<(), InboxError> {
        let now_us = us(now);
        if self.memory.waiting.has_expired(now_us) {
            self.change_downlink(Change::Expire { now_us }).await?;
        }
        Ok(())
    }

    async fn change_downlink(&self, change: Change) -> Result<Option<i64>, InboxError> {
        self.ask(|answer| Command::Downlink(Box::new(change), answer))
            .await?
    }
}

impl Listener {
    /// Number and content of the first message after number `id` that waits at `now`; numbers begin at 1.
    ///
    /// # Errors
    /// When the database cannot be read, or a body does not open.
    pub async fn next_after(
        &mut self,
        id: i64,
        now: Timestamp,
    ) -> Result<Option<(i64, Zeroizing<Vec<u8>>)>, InboxError> {
        self.news.mark_unchanged();
        let mut last = id;
        while let Some(id) = self
            .inbox
            .memory
            .waiting
            .next_after(&self.device, last, us(now))
        {
            if let Some(body) = self.body(id).await? {
                return Ok(Some((id, body)));
            }
            last = id; // removed in between
        }
        Ok(None)
    }

    /// Resolves when there may be a next message. Cancel safe.
    pub async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            // Its sender goes with the inbox only, which we hold: there will be no news.
            std::future::pending().await
        }
    }

    /// Removes a message that the device has. Durable when this returns; one that is gone is no error.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn done(&self, id: i64) -> Result<(), InboxError> {
        let device = self.device.clone();
        self.inbox
            .change_downlink(Change::Remove { device, id })
            .await?;
        Ok(())
    }

    async fn body(&self, id: i64) -> Result<Option<Zeroizing<Vec<u8>>>, InboxError> {
        let device = self.device.as_str();
        let row =
            sqlx::query("SELECT body, queued_at_us FROM downlink WHERE id = $1 AND device = $2")
                .bind(id)
                .bind(device)
                .fetch_optional(self.inbox.db.pool())
                .await?;
        let Some(row) = row else { return Ok(None) };
        let context = context(device, row.try_get("queued_at_us")?);
        let body = row.try_get::<&[u8], _>("body")?;
        Ok(Some(self.inbox.quarantine_key.open(&context, body)?))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inbox.memory.waiting.leave(&self.device);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Numbers and ends of what waits, and who listens for more; clones share them.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<HashMap<DeviceId, Queue>>>);

#[derive(Default)]
struct Queue {
    /// When each expires.
    ends: BTreeMap<i64, i64>,
    news: watch::Sender<()>,
}

impl Waiting {
    pub(super) async fn load(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        let waiting = Self::default();
        let rows = sqlx::query("SELECT id, device, expires_at_us FROM downlink")
            .fetch_all(pool)
            .await?;
        for row in rows {
            let device = parsed(row.try_get("device")?)?;
            let (id, end) = (row.try_get("id")?, row.try_get("expires_at_us")?);
            waiting
                .queues()
                .entry(device)
                .or_default()
                .ends
                .insert(id, end);
        }
        Ok(waiting)
    }

    /// After the commit: what a change is for those who listen.
    pub(super) fn note(&self, change: &Change, added: Option<i64>) {
        let mut queues = self.queues();
        match change {
            Change::Add {
                device,
                expires_at_us,
                ..
            } => {
                if let Some(id) = added {
                    let queue = queues.entry(device.clone()).or_default();
                    queue.ends.insert(id, *expires_at_us);
                    queue.news.send_replace(());
                }
            }
            Change::Remove { device, id } => {
                if let Some(queue) = queues.get_mut(device) {
                    queue.ends.remove(id);
                }
            }
            Change::Forget { device } => {
                if let Some(queue) = queues.get_mut(device) {
                    queue.ends.clear();
                }
            }
            Change::Expire { now_us } => {
                for queue in queues.values_mut() {
                    queue.ends.retain(|_, end| *end > *now_us);
                }
            }
        }
        queues.retain(|_, queue| !queue.ends.is_empty() || queue.news.receiver_count() > 0);
    }

    fn next_after(&self, device: &DeviceId, id: i64, now_us: i64) -> Option<i64> {
        let queues = self.queues();
        let ends = &queues.get(device)?.ends;
        let mut later = ends.range((Bound::Excluded(id), Bound::Unbounded));
        later.find(|(_, end)| **end > now_us).map(|(id, _)| *id)
    }

    fn has_expired(&self, now_us: i64) -> bool {
        let queues = self.queues();
        let mut ends = queues.values().flat_map(|queue| queue.ends.values());
        ends.any(|end| *end <= now_us)
    }

    fn listen(&self, device: &DeviceId) -> watch::Receiver<()> {
        let mut queues = self.queues();
        queues.entry(device.clone()).or_default().news.subscribe()
    }

    /// A listener is about to go: nobody else needs an empty queue.
    fn leave(&self, device: &DeviceId) {
        let mut queues = self.queues();
        let last = |queue: &Queue| queue.ends.is_empty() && queue.news.receiver_count() <= 1;
        if queues.get(device).is_some_and(last) {
            queues.remove(device);
        }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<DeviceId, Queue>> {
        // Every change is one call on a map: a panic elsewhere cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to the queues.
pub(super) enum Change {
    Add {
        device: DeviceId,
        /// Sealed.
        body: Vec<u8>,
        queued_at_us: i64,
        expires_at_us: i64,
    },
    Remove {
        device: DeviceId,
        id: i64,
    },
    Forget {
        device: DeviceId,
    },
    Expire {
        now_us: i64,
    },
}

impl Change {
    /// The number of what was added; `None` when there was no room.
    pub(super) async fn write(
        &self,
        conn: &mut SqliteConnection,
    ) -> Result<Option<i64>, sqlx::Error> {
        let statement = match self {
            Self::Add {
                device,
                body,
                queued_at_us,
                expires_at_us,
            } => {
                return sqlx::query_scalar(
                    "INSERT INTO downlink (device, body, queued_at_us, expires_at_us) SELECT $1, $2, $3, $4 WHERE \
                     (SELECT COUNT(*) FROM downlink WHERE device = $1 AND expires_at_us > $3) < $5 RETURNING id",
                )
                .bind(device.as_str())
                .bind(body)
                .bind(queued_at_us)
                .bind(expires_at_us)
                .bind(i64::try_from(MAX_DOWNLINK_WAITING).map_err(damaged)?)
                .fetch_optional(conn)
                .await;
            }
            Self::Remove { device, id } => {
                sqlx::query("DELETE FROM downlink WHERE id = $1 AND device = $2")
                    .bind(id)
                    .bind(device.as_str())
            }
            Self::Forget { device } => {
                sqlx::query("DELETE FROM downlink WHERE device = $1").bind(device.as_str())
            }
            Self::Expire { now_us } => {
                sqlx::query("DELETE FROM downlink WHERE expires_at_us <= $1").bind(now_us)
            }
        };
        statement.execute(conn).await?;
        Ok(None)
    }
}

/// Empties every queue: of a store that goes on from an older copy.
pub(super) async fn forget_all(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM downlink")
        .execute(conn)
        .await
        .map(drop)
}

async fn list(
    device: &DeviceId,
    now_us: i64,
    pool: &SqlitePool,
) -> Result<Vec<DownlinkRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, queued_at_us, expires_at_us, LENGTH(body) AS size FROM downlink \
         WHERE device = $1 AND expires_at_us > $2 ORDER BY id",
    )
    .bind(device.as_str())
    .bind(now_us)
    .fetch_all(pool)
    .await?;
    let mut waiting = Vec::with_capacity(rows.len());
    for row in rows {
        waiting.push(DownlinkRow {
            id: row.try_get("id")?,
            queued_at: at(row.try_get("queued_at_us")?)?,
            expires_at: at(row.try_get("expires_at_us")?)?,
            bytes: count(row.try_get::<i64, _>("size")?)?.saturating_sub(SEAL_BYTES),
        });
    }
    Ok(waiting)
}

/// What sealing adds: version, IV and tag.
const SEAL_BYTES: u64 = 1 + 12 + 16;

fn context(device: &str, queued_at_us: i64) -> Vec<u8> {
    let instant = queued_at_us.to_be_bytes();
    [
        b"vitalseal/downlink/1\0",
        device.as_bytes(),
        b"\0",
        &instant,
    ]
    .concat()
}
