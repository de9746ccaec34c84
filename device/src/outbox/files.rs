//! The files of an outbox: their names, and what of them survives a power cut.
//!
//! Never here: which message waits and which does not, beyond what the names say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::Position;
use super::error::{OutboxError, at};

const LOCK_FILE: &str = "lock";
const BOOT_FILE: &str = "boot";
const SESSION_FILE: &str = "session";
const WAITING_SUFFIX: &str = "msg";
const KEPT_SUFFIX: &str = "acked";
const TEMPORARY_SUFFIX: &str = "tmp";

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Messages that wait.
    pub(super) pending: BTreeSet<Position>,
    /// Acknowledged ones, and the second until which each is kept.
    pub(super) kept: BTreeMap<Position, i64>,
}

/// Name of a message that waits.
pub(super) fn waiting(position: Position) -> String {
    let Position { boot, sequence } = position;
    format!("{boot:016x}-{sequence:016x}.{WAITING_SUFFIX}")
}

/// Name of a message that was acknowledged and is kept.
pub(super) fn kept(position: Position, until_s: i64) -> String {
    let Position { boot, sequence } = position;
    format!("{boot:016x}-{sequence:016x}.{until_s:016x}.{KEPT_SUFFIX}")
}

/// Only the one spelling that is written, or a removal would miss the file.
fn parse(name: &str) -> Option<(Position, Option<i64>)> {
    let mut parts = name.split('.');
    let (boot, sequence) = parts.next()?.split_once('-')?;
    let position = Position {
        boot: u64::from_str_radix(boot, 16).ok()?,
        sequence: u64::from_str_radix(sequence, 16).ok()?,
    };
    if waiting(position) == name {
        return Some((position, None));
    }
    let until_s = i64::from_str_radix(parts.next()?, 16).ok()?;
    (kept(position, until_s) == name).then_some((position, Some(until_s)))
}

pub(super) fn lock(directory: &Path) -> Result<File, OutboxError> {
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

/// The messages that are there. Removes what a crash left half written or half removed; leaves files of others alone.
pub(super) fn scan(directory: &Path) -> Result<Found, OutboxError> {
    let listing = || at("listing", directory);
    let mut found = Found::default();
    for entry in fs::read_dir(directory).map_err(listing())? {
        let path = entry.map_err(listing())?.path();
        if path
            .extension()
            .is_some_and(|suffix| suffix == TEMPORARY_SUFFIX)
        {
            fs::remove_file(&path).map_err(at("removing the unfinished write", &path))?;
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let Some((position, until_s)) = name.and_then(parse) else {
            continue;
        };
        if is_wiped(&path).map_err(at("reading the message", &path))? {
            fs::remove_file(&path).map_err(at("removing the acknowledged message", &path))?;
        } else if let Some(until_s) = until_s {
            found.kept.insert(position, until_s);
        } else {
            found.pending.insert(position);
        }
    }
    Ok(found)
}

/// In the place of a wrapped content key: the message is over.
const WIPED: [u8; 40] = [0; 40];

/// Overwrites the wrapped content key, durably, and removes the file. One that is gone is no error.
pub(super) fn destroy(path: &Path) -> Result<(), OutboxError> {
    match wipe(path).and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(at("removing the acknowledged message", path)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn wipe(path: &Path) -> io::Result<()> {
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

/// Gives a message its other name. `false` when it is not there.
pub(super) fn rename(directory: &Path, from: &str, to: &str) -> Result<bool, OutboxError> {
    let from = directory.join(from);
    match fs::rename(&from, directory.join(to)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("renaming", &from)(error)),
    }
}

/// Takes the next boot number and writes down the one after it.
pub(super) fn next_boot(directory: &Path, found: &Found) -> Result<u64, OutboxError> {
    let path = directory.join(BOOT_FILE);
    let written = match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(boot) => boot,
            Err(_) => return Err(OutboxError::BootCounter { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(at("reading the boot counter", &path)(error)),
    };
    // Messages that are there show that their boots have been, whatever the counter says.
    let last = found.pending.last().max(found.kept.keys().last());
    let boot = last.map_or(written, |last| written.max(last.boot.saturating_add(1)));
    write_durably(
        directory,
        BOOT_FILE,
        format!("{}\n", boot.saturating_add(1)).as_bytes(),
    )?;
    Ok(boot)
}

/// Takes away the mark of [`mark_session`], durably; says whether it was there.
pub(super) fn unmark_session(directory: &Path) -> Result<bool, OutboxError> {
    let path = directory.join(SESSION_FILE);
    match fs::remove_file(&path) {
        Ok(()) => sync(directory).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("removing", &path)(error)),
    }
}

/// Marks that the server's session is the one in which everything was acknowledged that is kept. Not synced: without it
/// too much is sent, not too little.
pub(super) fn mark_session(directory: &Path) -> Result<(), OutboxError> {
    let path = directory.join(SESSION_FILE);
    File::create(&path).map_err(at("writing", &path)).map(drop)
}

/// Writes a file so that after a power cut it is there whole or not at all, and whole once this has returned.
pub(super) fn write_durably(
    directory: &Path,
    name: &str,
    content: &[u8],
) -> Result<(), OutboxError> {
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
pub(super) fn sync(directory: &Path) -> Result<(), OutboxError> {
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(at("syncing", directory))
}
