//! Whether the disk has room for messages.
//!
//! ```text
//!              free < reserve, or a write found the disk full
//!      room ──────────────────────────────────────────────────▶ full
//!           ◀──────────────────────────────────────────────────
//!              free ≥ reserve + a quarter, and a trial file could be written and synced
//! ```
//!
//! Full means that no message is taken. What makes room, or must not wait for it, does not ask here: the reserve is
//! left for flushes, erasures and the audit log. Free space alone is no proof of room, since a quota or a file system
//! that is out of something else looks free as well: hence the trial.
//!
//! Never here: a wait for room. Whoever has a message leaves it with the device that sent it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::durable::{self, FileError, failed};
use crate::paths::StorePaths;

/// How often [`Space::watch`] looks: a device that waits for room notices no longer pause than its own back-off.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes of the trial file: more than a batch of ordinary messages takes.
const TRIAL_BYTES: usize = 1 << 20;

/// There is not enough room for something that can wait.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoom {
    /// So many bytes are free.
    #[error(
        "{bytes} bytes of room are needed beside the {reserve} that are left to messages, flushes and erasures; {free} are \
         free: nothing was begun; make room, or move data files to another disk or a bucket"
    )]
    Short {
        /// What may be written.
        bytes: u64,
        /// What must be left.
        reserve: u64,
        /// What there is.
        free: u64,
    },
    /// The file system does not say.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Whether there is room; clones share it.
#[derive(Clone, Debug)]
pub struct Space {
    paths: Arc<StorePaths>,
    full: watch::Sender<bool>,
}

impl Space {
    pub(crate) fn new(paths: &StorePaths) -> Self {
        Self {
            paths: Arc::new(paths.clone()),
            full: watch::Sender::new(false),
        }
    }

    /// Whether messages are to be refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self.full.borrow()
    }

    /// Tells whenever [`Space::is_full`] changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.full.subscribe()
    }

    /// Bytes that this process may still write to the file system of the data directory.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_bytes(&self) -> Result<u64, FileError> {
        free_bytes(self.paths.data())
    }

    /// Whether so many bytes may be written by what can wait, and leave `reserve` bytes to what cannot.
    ///
    /// # Errors
    /// [`NoRoom`] says how many are missing; when the file system does not say.
    pub fn room_for(&self, bytes: u64, reserve: u64) -> Result<(), NoRoom> {
        let free = self.free_bytes()?;
        if free < bytes.saturating_add(reserve) {
            return Err(NoRoom::Short {
                bytes,
                reserve,
                free,
            });
        }
        Ok(())
    }

    /// Looks once a second, for ever. Below `reserve` bytes there is no room.
    ///
    /// Without this, room that ran out does not come back.
    pub async fn watch(self, reserve: u64) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(reserve).await;
        }
    }

    /// Looks now.
    pub async fn look(&self, reserve: u64) {
        let (paths, was_full) = (Arc::clone(&self.paths), self.is_full());
        let looked = spawn_blocking(move || {
            let free = free_bytes(paths.data())?;
            if !was_full {
                return Ok(free < reserve);
            }
            // Well above the mark, so that the two answers do not take turns.
            if free < reserve.saturating_add(reserve / 4) {
                return Ok(true);
            }
            let tried = trial(&paths.space_trial());
            if let Err(error) = &tried {
                let error = error as &dyn std::error::Error;
                tracing::debug!(error, "still no room for messages");
            }
            Ok(tried.is_err())
        });
        match looked.await {
            Ok(Ok(full)) => self.tell(was_full, full),
            Ok(Err(error)) => {
                let error: &FileError = &error;
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "asking for the free space of the disk"
                );
            }
            Err(error) => tracing::error!(%error, "asking for the free space of the disk"),
        }
    }

    /// A write found the disk full.
    pub(crate) fn ran_out(&self) {
        self.tell(false, true);
    }

    /// Unless the answer changed while it was looked for: a write that found the disk full knows better.
    fn tell(&self, before: bool, full: bool) {
        self.full.send_if_modified(|now| {
            let changes = *now == before && *now != full;
            *now ^= changes;
            changes
        });
    }
}

fn free_bytes(data: &Path) -> Result<u64, FileError> {
    let found =
        statvfs(data).map_err(|errno| failed("asking for free space of", data)(errno.into()))?;
    Ok(found
        .blocks_available()
        .saturating_mul(found.fragment_size()))
}

/// Writes and syncs a file, and removes it.
fn trial(path: &Path) -> Result<(), FileError> {
    // One is there if a trial was interrupted.
    durable::remove(path)?;
    let written = durable::write_new(path, &vec![0; TRIAL_BYTES]);
    durable::remove(path)?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_ends_below_the_reserve_and_comes_back_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(&StorePaths::new(dir.path(), None));
        let mut changes = space.changes();
        let everything = space.free_bytes().unwrap();

        space.look(0).await;
        assert!(!space.is_full() && !changes.has_changed().unwrap());
        space.look(u64::MAX).await;
        assert!(space.is_full() && *changes.borrow_and_update());
        // Nine tenths of what is free are there, a quarter more than that is not.
        space.look(everything / 10 * 9).await;
        assert!(space.is_full(), "room came back at the mark itself");
        space.look(0).await;
        assert!(!space.is_full() && !*changes.borrow_and_update());
        assert!(
            durable::names(dir.path()).unwrap().is_empty(),
            "the trial file stays"
        );
    }

    #[test]
    fn what_can_wait_does_not_eat_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(&StorePaths::new(dir.path(), None));
        let third = space.free_bytes().unwrap() / 3;
        assert!(space.room_for(third, third).is_ok());
        let refused = space.room_for(third, third * 3).unwrap_err();
        assert!(
            matches!(refused, NoRoom::Short { bytes, .. } if bytes == third),
            "{refused}"
        );
        assert!(space.room_for(u64::MAX, 1).is_err());
    }

    #[tokio::test]
    async fn free_space_is_no_room_while_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(dir.path(), None);
        // In place of the trial file: it can neither be removed as a file nor be made.
        std::fs::create_dir(paths.space_trial()).unwrap();
        let space = Space::new(&paths);
        space.ran_out();
        space.look(0).await;
        assert!(space.is_full());
        std::fs::remove_dir(paths.space_trial()).unwrap();
        space.look(0).await;
        assert!(!space.is_full());
    }
}
