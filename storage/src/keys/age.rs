//! How far the key tree is. It shows that a registry went back under a running server, and that a key snapshot is due.
//!
//! Every change of the tree turns the root or makes the generation of a page greater, and nothing makes one less: a
//! registry that shows less than it did has lost keys that this process may still have in memory. What is sealed under
//! such a key opens for nobody once the process ends, unless a key snapshot has it.

use sqlx::Row as _;

use super::{KeyError, KeyStore};
use crate::database::Connection;

/// Compares as the states of the tree follow each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Age {
    root: i64,
    /// Of all pages, summed.
    generations: i64,
}

impl Age {
    async fn of(conn: &mut Connection) -> Result<Self, sqlx::Error> {
        let row = sqlx::query(
            "SELECT (SELECT epoch FROM root_epochs WHERE state = 'current') AS root, \
             CAST(COALESCE(SUM(generation), 0) AS BIGINT) AS generations FROM key_pages",
        )
        .fetch_one(conn)
        .await?;
        Ok(Self {
            root: row.try_get("root")?,
            generations: row.try_get("generations")?,
        })
    }
}

/// All that a key snapshot is to know soon: the tree, envelope keys, and who was shut out last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Marks {
    tree: Age,
    recipients: i64,
    shut_out_us: i64,
}

impl Marks {
    pub(super) async fn of(conn: &mut Connection) -> Result<Self, sqlx::Error> {
        let tree = Age::of(&mut *conn).await?;
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM recipients) AS recipients, \
             (SELECT COALESCE(MAX(state_since_us), 0) FROM devices WHERE state <> 'active') AS devices, \
             (SELECT COALESCE(MAX(revoked_at_us), 0) FROM subscribers) AS subscribers",
        )
        .fetch_one(conn)
        .await?;
        Ok(Self {
            tree,
            recipients: row.try_get("recipients")?,
            shut_out_us: row
                .try_get::<i64, _>("devices")?
                .max(row.try_get("subscribers")?),
        })
    }
}

impl KeyStore {
    /// Whether the registry has less of the key tree than this process saw it to have. Then nothing in memory may be
    /// trusted, and no message be acknowledged: close the store. Ask often; it is one small statement.
    ///
    /// # Errors
    /// When the registry cannot be read; then it is not known.
    pub async fn went_back(&self) -> Result<bool, KeyError> {
        // Held while it is read: who asks later sees no less.
        let mut seen = self.inner.seen.lock().await;
        let now = Age::of(&mut *self.inner.db.pool().acquire().await?).await?;
        let is_less = now < *seen;
        *seen = now.max(*seen);
        Ok(is_less)
    }

    /// Whether anything changed that a snapshot holds since this process wrote the last one to every place.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn is_ahead_of_snapshots(&self) -> Result<bool, KeyError> {
        if self.inner.places.is_empty() {
            return Ok(false);
        }
        let now = Marks::of(&mut *self.inner.db.pool().acquire().await?).await?;
        Ok(*self.inner.snapshotted.lock().await != Some(now))
    }
}
