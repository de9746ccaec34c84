//! Session keys that devices sent in full (`-2`), for messages that only name one (`-3`).
//!
//! Public keys, so nothing secret stands here. A key comes in with the message that introduced it, in
//! one transaction, after that message opened, be it stored or refused: the device sees the same
//! acknowledgement. It is in memory once that transaction has committed, and again after a restart.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, SqliteConnection};
use vitalseal_crypto::{DeviceId, P256Point, SenderKeyId, SenderKeys};

use crate::database::{damaged, parsed};

/// Keys remembered for one device, the newest ones: the session that runs, the one before, whose messages may still wait
/// in an outbox, and two more. Bounds what a device can make the server keep.
const KEPT: usize = 4;

/// Handle on the remembered keys; clones share them.
#[derive(Clone, Default)]
pub struct Senders(Arc<RwLock<HashMap<DeviceId, Vec<Remembered>>>>);

/// The name that messages give a key, and the key.
pub(super) type Remembered = (SenderKeyId, P256Point);

impl SenderKeys for Senders {
    fn find(&self, device: &DeviceId, id: &SenderKeyId) -> Option<P256Point> {
        // Every change is one call on a map: a panic elsewhere cannot leave half of one.
        let devices = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let keys = devices.get(device)?;
        let (_, key) = keys.iter().find(|(known, _)| known == id)?;
        Some(*key)
    }
}

impl Senders {
    pub(super) async fn load(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query("SELECT device, key_id, point FROM sender_keys ORDER BY number")
            .fetch_all(pool)
            .await?;
        let senders = Self::default();
        for row in rows {
            let id = <[u8; 32]>::try_from(row.try_get::<&[u8], _>("key_id")?).map_err(damaged)?;
            // What is no point is found under no name.
            if let Some(key) = P256Point::from_sec1(row.try_get("point")?) {
                let device = parsed(row.try_get("device")?)?;
                senders.remember(&device, (SenderKeyId::from_bytes(id), key));
            }
        }
        Ok(senders)
    }

    /// After the commit: from here on the device may name the key.
    pub(super) fn remember(&self, device: &DeviceId, key: Remembered) {
        let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let keys = devices.entry(device.clone()).or_default();
        if keys.iter().all(|(known, _)| *known != key.0) {
            keys.push(key);
        }
        let surplus = keys.len().saturating_sub(KEPT);
        keys.drain(..surplus);
    }

    pub(super) fn forget(&self, device: &DeviceId) {
        let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
        devices.remove(device);
    }
}

impl fmt::Debug for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Senders").finish_non_exhaustive()
    }
}

/// Writes down a key that a message introduced, and drops the device's oldest beyond [`KEPT`].
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    device: &DeviceId,
    (id, key): &Remembered,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sender_keys (device, key_id, point) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(device.as_str())
    .bind(id.as_bytes().as_slice())
    .bind(key.as_sec1().as_slice())
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "DELETE FROM sender_keys WHERE device = $1 AND number NOT IN (SELECT number FROM sender_keys \
         WHERE device = $1 ORDER BY number DESC LIMIT $2)",
    )
    .bind(device.as_str())
    .bind(i64::try_from(KEPT).map_err(damaged)?)
    .execute(conn)
    .await?;
    Ok(())
}
