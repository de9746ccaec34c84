//! Sealed messages wait here, on disk, until the server has acknowledged them.
//!
//! ```text
//! outbox/
//!   lock                                    held while the outbox is open: one process, one boot counter
//!   boot                                    number of the next boot, in decimal
//!   outbox.key                              what content keys are wrapped under while anything waits
//!   0000000000000007-000000000000002a.msg   message: boot and sequence in hexadecimal, so that names sort as
//!                                           messages do
//!   *.tmp                                   a write that a crash cut short; removed at the next start
//!
//! message = content key, wrapped under the outbox key (40 bytes) || wire envelope
//! ```
//!
//! The wrapped key is in the message's own file, so that neither is ever there without the other. After the
//! acknowledgement it is overwritten with zeros before the file is removed, and the outbox key itself is drawn anew
//! whenever nothing waits: who takes the device later opens nothing that the server has by then. What a flash disk keeps of
//! overwritten blocks is out of reach from here; see `key`.
//!
//! A message is written under a temporary name, synced, renamed, and the directory synced: after
//! [`Outbox::push`] returned, it survives a power cut, and before that it is not there at all. The zeros are synced, the
//! removal is not: a message that comes back after a power cut has no key any more, and is removed at the next start.
//!
//! Never here: a reading, or a content key that is written unwrapped.

mod key;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vitalseal_crypto::{Dek, KeyError};

use self::key::KeyFile;
use crate::Message;

/// The most messages that wait at once.
///
/// At one message a minute, two months without a network; at 2 KiB each, 200 MB.
pub const MAX_PENDING: usize = 100_000;

const LOCK_FILE: &str = "lock";
const BOOT_FILE: &str = "boot";
const MESSAGE_SUFFIX: &str = "msg";
const TEMPORARY_SUFFIX: &str = "tmp";

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

impl Position {
    fn file_name(self) -> String {
        format!("{:016x}-{:016x}.{MESSAGE_SUFFIX}", self.boot, self.sequence)
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let (boot, sequence) = name
            .strip_suffix(MESSAGE_SUFFIX)?
            .strip_suffix('.')?
            .split_once('-')?;
        let position = Self {
            boot: u64::from_str_radix(boot, 16).ok()?,
            sequence: u64::from_str_radix(sequence, 16).ok()?,
        };
        // Only the one spelling that `file_name` writes, or removal would miss the file.
        (position.file_name() == name).then_some(position)
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

/// Why the outbox could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// Another process has it open.
    #[error("the outbox {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file with the boot counter does not hold a number.
    #[error("the boot counter in {} is damaged; write a number into it that is higher than any boot of this device", path.display())]
    BootCounter {
        /// The file.
        path: PathBuf,
    },
    /// As many messages wait as may.
    #[error(
        "{MAX_PENDING} messages wait in the outbox; the server has not acknowledged any for long"
    )]
    Full,
    /// A message with this boot and sequence is there already.
    #[error("message {position} is in the outbox already")]
    Occupied {
        /// Which one.
        position: Position,
    },
    /// The key that content keys wait under could not be drawn, read or used.
    #[error(
        "using the key in {}; if that file is damaged, remove it: what waits then reaches the server only while the \
         server keeps the key that it was sealed for",
        path.display()
    )]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: KeyError,
    },
    /// The disk refused.
    #[error("{attempt} {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Attaches attempt and path to an I/O error.
fn at(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutboxError {
    move |cause| OutboxError::Io {
        attempt,
        path: path.to_owned(),
        cause,
    }
}

/// Messages on disk that the server has not acknowledged. Clones share one outbox.
///
/// Its calls block for as long as the disk takes: `push` for two syncs, `remove` for one, and for two more when nothing
/// waits any longer.
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
        let lock = lock(&directory)?;
        let pending = scan(&directory)?;
        let boot = next_boot(&directory, &pending)?;
        let key = if pending.is_empty() {
            KeyFile::draw(&directory)?
        } else {
            KeyFile::load(&directory)?
        };
        let state = Mutex::new(State {
            pending,
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
            if state.pending.contains(&position) {
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
        let written = write_durably(directory, &position.file_name(), &content);
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

    /// Whether every message has been acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().pending.is_empty()
    }

    /// A message, as it was pushed, and its content key.
    ///
    /// # Errors
    /// [`OutboxError::Io`], also if it was removed.
    pub fn read(&self, position: Position) -> Result<Waiting, OutboxError> {
        let path = self.shared.directory.join(position.file_name());
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

    /// Forgets a message and its content key, and only on the server's acknowledgement. Removing what is not there is
    /// not an error.
    ///
    /// # Errors
    /// [`OutboxError::Key`], [`OutboxError::Io`]
    pub fn remove(&self, position: Position) -> Result<(), OutboxError> {
        let path = self.shared.directory.join(position.file_name());
        match wipe(&path).and_then(|()| fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("removing the acknowledged message", &path)(error));
            }
            _ => {}
        }
        let mut state = self.state();
        if state.pending.remove(&position) && state.pending.is_empty() && state.arriving == 0 {
            state.key.renew()?;
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

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outbox")
            .field("directory", &self.shared.directory)
            .field("boot", &self.shared.boot)
            .field("pending", &self.len())
            .finish_non_exhaustive()
    }
}

fn lock(directory: &Path) -> Result<File, OutboxError> {
    let path = directory.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(at("opening the lock", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OutboxError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(at("locking", &path)(error)),
    }
}

/// The messages that wait. Removes what a crash left half written or half removed; leaves files of others alone.
fn scan(directory: &Path) -> Result<BTreeSet<Position>, OutboxError> {
    let listing = || at("listing", directory);
    let mut pending = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(listing())? {
        let path = entry.map_err(listing())?.path();
        if path
            .extension()
            .is_some_and(|suffix| suffix == TEMPORARY_SUFFIX)
        {
            fs::remove_file(&path).map_err(at("removing the unfinished write", &path))?;
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(position) = name.and_then(Position::from_file_name) else {
            continue;
        };
        if is_wiped(&path).map_err(at("reading the message", &path))? {
            fs::remove_file(&path).map_err(at("removing the acknowledged message", &path))?;
        } else {
            pending.insert(position);
        }
    }
    Ok(pending)
}

/// In the place of a wrapped content key: the message was acknowledged.
const WIPED: [u8; 40] = [0; 40];

/// Overwrites the wrapped content key, durably.
fn wipe(path: &Path) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(&WIPED)?;
    file.sync_data()
}

fn is_wiped(path: &Path) -> io::Result<bool> {
    let mut wrapped = Vec::with_capacity(WIPED.len());
    let first = u64::try_from(WIPED.len()).unwrap_or(u64::MAX);
    File::open(path)?.take(first).read_to_end(&mut wrapped)?;
    Ok(wrapped == WIPED)
}

/// Takes the next boot number and writes down the one after it.
fn next_boot(directory: &Path, pending: &BTreeSet<Position>) -> Result<u64, OutboxError> {
    let path = directory.join(BOOT_FILE);
    let written = match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(boot) => boot,
            Err(_) => return Err(OutboxError::BootCounter { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(at("reading the boot counter", &path)(error)),
    };
    // Messages that wait show that their boots have been, whatever the counter says.
    let boot = pending
        .last()
        .map_or(written, |last| written.max(last.boot.saturating_add(1)));
    write_durably(
        directory,
        BOOT_FILE,
        format!("{}\n", boot.saturating_add(1)).as_bytes(),
    )?;
    Ok(boot)
}

/// Writes a file so that after a power cut it is there whole or not at all, and whole once this has returned.
fn write_durably(directory: &Path, name: &str, content: &[u8]) -> Result<(), OutboxError> {
    let temporary = directory.join(format!("{name}.{TEMPORARY_SUFFIX}"));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()
    })();
    written.map_err(at("writing", &temporary))?;
    let path = directory.join(name);
    fs::rename(&temporary, &path).map_err(at("renaming to", &path))?;
    sync(directory)
}

/// Makes the names in a directory durable.
fn sync(directory: &Path) -> Result<(), OutboxError> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(at("syncing", directory))
}

#[cfg(test)]
mod tests;
