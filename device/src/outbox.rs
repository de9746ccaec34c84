//! Sealed messages wait here, on disk, until the server has acknowledged them, and stay for a while after that.
//!
//! ```text
//! outbox/
//!   lock                                    held while the outbox is open: one process, one boot counter
//!   boot                                    number of the next boot, in decimal
//!   outbox.key                              what content keys are wrapped under while any message is here
//!   session                                 there while the server's session is known to be the one in which all that
//!                                           is kept was acknowledged
//!   0000000000000007-000000000000002a.msg   message that waits: boot and sequence in hexadecimal, so that names sort
//!                                           as messages do
//!   0000000000000007-0000000000000029.00000000686f5c00.acked
//!                                           message that was acknowledged, and the second until which it is kept
//!   *.tmp                                   a write that a crash cut short; removed at the next start
//!
//! message = content key, wrapped under the outbox key (40 bytes) || wire envelope
//! ```
//!
//! The wrapped key is in the message's own file, so that neither is ever there without the other.
//!
//! # Why an acknowledged message is kept
//! A server that is restored from a backup has forgotten what it acknowledged since. It says so by `session present = 0`,
//! and then everything that is kept waits [again](Outbox::reoffer). A message is kept until a day after the envelope
//! certificate that it was sent under has ended, so that yesterday's backup is enough. Then its content key is overwritten
//! with zeros before the file is removed.
//! The outbox key itself is drawn anew whenever no message is here: who takes the device later opens nothing that the
//! server has by then. What a flash disk keeps of overwritten blocks is out of reach from here; see `key`. A device that
//! is switched off overwrites nothing until it is switched on.
//!
//! # What survives a power cut
//! A message is written under a temporary name, synced, renamed, and the directory synced: after [`Outbox::push`] returned,
//! it is there, and before that it is not there at all. That it was acknowledged is not synced: it may wait once more.
//! The zeros are synced, the removal is not: a message that comes back after a power cut has no key any more, and is removed
//! at the next start.
//!
//! Never here: a reading, or a content key that is written unwrapped.

mod error;
mod files;
mod key;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use vitalseal_crypto::Dek;

pub use self::error::OutboxError;
use self::error::at;
use self::key::KeyFile;
use crate::Message;

/// The most messages that wait at once.
///
/// At one message a minute, two months without a network; at 2 KiB each, 200 MB.
pub const MAX_PENDING: usize = 100_000;

/// The most acknowledged messages that are kept; beyond, the oldest go early.
///
/// 30 hours, which an envelope certificate may last, at one message in 11 seconds.
pub const MAX_KEPT: usize = 10_000;

/// Where a message stands in the order of sending. Ordered by boot, then sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Boot counter of the device.
    pub boot: u64,
    /// Sequence within the boot.
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.boot, self.sequence)
    }
}

/// A message as it waits.
#[derive(Debug)]
pub struct Waiting {
    /// Its content key; `None` when the outbox key that it was kept under is lost.
    pub content_key: Option<Dek>,
    /// The wire envelope, as it was sealed.
    pub envelope: Vec<u8>,
}

/// Messages on disk that the server has not acknowledged, or not long ago. Clones share one outbox.
///
/// Its calls block for as long as the disk takes: `push` for two syncs, `remove` for one, and for two more when no message
/// is left, `acknowledge` for none.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
    boot: u64,
    state: Mutex<State>,
}

struct State {
    pending: BTreeSet<Position>,
    /// Acknowledged messages, and the Unix second until which each is kept.
    kept: BTreeMap<Position, i64>,
    /// Messages that are on their way to the disk: their content keys are wrapped already.
    arriving: usize,
    key: KeyFile,
    /// Told of every push.
    wakers: Vec<Box<dyn Fn() + Send>>,
}

impl Outbox {
    /// Opens the outbox in `directory`, making it if there is none, and begins a new boot: the counter is raised,
    /// durably, before this returns, so that no two starts ever use the same one.
    ///
    /// # Errors
    /// [`OutboxError::InUse`], [`OutboxError::BootCounter`], [`OutboxError::Key`], [`OutboxError::Io`]
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, OutboxError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(at("making the directory", &directory))?;
        let lock = files::lock(&directory)?;
        let found = files::scan(&directory)?;
        let boot = files::next_boot(&directory, &found)?;
        let key = if found.pending.is_empty() && found.kept.is_empty() {
            KeyFile::draw(&directory)?
        } else {
            KeyFile::load(&directory)?
        };
        let state = Mutex::new(State {
            pending: found.pending,
            kept: found.kept,
            arriving: 0,
            key,
            wakers: Vec::new(),
        });
        Ok(Self {
            shared: Arc::new(Shared {
                directory,
                _lock: lock,
                boot,
                state,
            }),
        })
    }

    /// Counts this start; the [`Sealer`](crate::Sealer) numbers its messages under it.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.shared.boot
    }

    /// Keeps a sealed message and, wrapped, its content key. Durable when this returns.
    ///
    /// # Errors
    /// [`OutboxError::Full`], [`OutboxError::Occupied`], [`OutboxError::Key`], [`OutboxError::Io`]
    pub fn push(&self, message: &Message) -> Result<(), OutboxError> {
        let position = message.position();
        let content_key = {
            let mut state = self.state();
            if state.pending.contains(&position) || state.kept.contains_key(&position) {
                return Err(OutboxError::Occupied { position });
            }
            if state.pending.len() >= MAX_PENDING {
                return Err(OutboxError::Full);
            }
            let wrapped = state.key.wrap(&message.content_key)?;
            state.arriving += 1;
            wrapped
        };
        let content = [content_key.as_slice(), &message.bytes].concat();
        let directory = &self.shared.directory;
        let written = files::write_durably(directory, &files::waiting(position), &content);
        let mut state = self.state();
        state.arriving -= 1;
        written?;
        state.pending.insert(position);
        state.wakers.iter().for_each(|wake| wake());
        Ok(())
    }

    /// The first message after `position`, or the first of all; `None` if there is none.
    #[must_use]
    pub fn next_after(&self, position: Option<Position>) -> Option<Position> {
        let after = position.map_or(Bound::Unbounded, Bound::Excluded);
        self.state()
            .pending
            .range((after, Bound::Unbounded))
            .next()
            .copied()
    }

    /// What waits, in the order of sending.
    #[must_use]
    pub fn pending(&self) -> Vec<Position> {
        self.state().pending.iter().copied().collect()
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().pending.len()
    }

    /// How many acknowledged messages are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.state().kept.len()
    }

    /// Whether every message has been acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().pending.is_empty()
    }

    /// A message that waits, as it was pushed, and its content key.
    ///
    /// # Errors
    /// [`OutboxError::Io`], also if it does not wait any more.
    pub fn read(&self, position: Position) -> Result<Waiting, OutboxError> {
        let path = self.shared.directory.join(files::waiting(position));
        let content = fs::read(&path).map_err(at("reading the message", &path))?;
        let Some((wrapped, envelope)) = content.split_first_chunk() else {
            let short = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(at("reading the message", &path)(short));
        };
        Ok(Waiting {
            content_key: self.state().key.unwrap(wrapped),
            envelope: envelope.to_vec(),
        })
    }

    /// The server acknowledged a message: it waits no longer, and is kept until `until`, the end of the envelope
    /// certificate that it was sent under. Acknowledging what does not wait is not an error.
    ///
    /// # Errors
    /// [`OutboxError::Key`], [`OutboxError::Io`]
    pub fn acknowledge(&self, position: Position, until: Timestamp) -> Result<(), OutboxError> {
        let until_s = until.as_second().max(0);
        let name = files::kept(position, until_s);
        if !files::rename(&self.shared.directory, &files::waiting(position), &name)? {
            return Ok(());
        }
        let surplus = {
            let mut state = self.state();
            state.pending.remove(&position);
            state.kept.insert(position, until_s);
            let full = state.kept.len() > MAX_KEPT;
            full.then(|| {
                state
                    .kept
                    .first_key_value()
                    .map(|(&at, &until_s)| (at, until_s))
            })
        };
        self.destroy(surplus.flatten())
    }

    /// The server may have forgotten what it acknowledged: everything that is kept waits again. Durable when this
    /// returns; says how many.
    ///
    /// # Errors
    /// [`OutboxError::Io`]
    pub fn reoffer(&self) -> Result<usize, OutboxError> {
        let kept = self.state().kept.clone();
        if kept.is_empty() {
            return Ok(0);
        }
        let directory = &self.shared.directory;
        let mut offered = 0;
        for (position, until_s) in kept {
            let from = files::kept(position, until_s);
            let is_there = files::rename(directory, &from, &files::waiting(position))?;
            let mut state = self.state();
            state.kept.remove(&position);
            if is_there {
                state.pending.insert(position);
                offered += 1;
            }
        }
        files::sync(directory)?;
        self.state().wakers.iter().for_each(|wake| wake());
        Ok(offered)
    }

    /// Forgets the acknowledged messages that were kept until before `now`, and their content keys.
    ///
    /// # Errors
    /// [`OutboxError::Key`], [`OutboxError::Io`]
    pub fn forget_ended(&self, now: Timestamp) -> Result<(), OutboxError> {
        let ended: Vec<_> = {
            let state = self.state();
            let ended = |until_s: i64| until_s < now.as_second();
            let kept = state.kept.iter().map(|(&at, &until_s)| (at, until_s));
            kept.filter(|(_, until_s)| ended(*until_s)).collect()
        };
        self.destroy(ended)
    }

    /// Forgets a message and its content key at once, and only on the server's acknowledgement. Removing what is not
    /// there is not an error.
    ///
    /// # Errors
    /// [`OutboxError::Key`], [`OutboxError::Io`]
    pub fn remove(&self, position: Position) -> Result<(), OutboxError> {
        files::destroy(&self.shared.directory.join(files::waiting(position)))?;
        let mut state = self.state();
        let removed = state.pending.remove(&position);
        state.renew_key(removed)
    }

    /// Before a CONNECT: whether the server's answer to the last one was heard, so that a session that it still has is the
    /// one in which everything was acknowledged that is kept. Durably not, from here until [`Outbox::session_heard`]:
    /// an answer that is lost on its way would make the session of a restored server look like an old one.
    ///
    /// # Errors
    /// [`OutboxError::Io`]
    pub fn ask_session(&self) -> Result<bool, OutboxError> {
        if self.state().kept.is_empty() {
            return Ok(true);
        }
        files::unmark_session(&self.shared.directory)
    }

    /// The server's answer to a CONNECT was heard, and [`Outbox::reoffer`] done if it asked for it.
    ///
    /// # Errors
    /// [`OutboxError::Io`]
    pub fn session_heard(&self) -> Result<(), OutboxError> {
        files::mark_session(&self.shared.directory)
    }

    /// Destroys kept messages.
    fn destroy(&self, kept: impl IntoIterator<Item = (Position, i64)>) -> Result<(), OutboxError> {
        for (position, until_s) in kept {
            let name = files::kept(position, until_s);
            files::destroy(&self.shared.directory.join(name))?;
            let mut state = self.state();
            let removed = state.kept.remove(&position).is_some();
            state.renew_key(removed)?;
        }
        Ok(())
    }

    /// Calls `wake` after every push, from the pushing thread: it must not block.
    #[cfg(feature = "mqtt")]
    pub(crate) fn on_push(&self, wake: impl Fn() + Send + 'static) {
        self.state().wakers.push(Box::new(wake));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is a single one or ends with the key: a panic leaves nothing half done.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Draws another outbox key when the last message went.
    fn renew_key(&mut self, removed: bool) -> Result<(), OutboxError> {
        if removed && self.pending.is_empty() && self.kept.is_empty() && self.arriving == 0 {
            self.key.renew()?;
        }
        Ok(())
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outbox")
            .field("directory", &self.shared.directory)
            .field("boot", &self.shared.boot)
            .field("pending", &self.len())
            .field("kept", &self.kept())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
