//! Files and directories that are there after a power cut, and that nobody else may read.
//!
//! A new file is durable once its bytes *and* the directory entry were synced. Everything made here
//! is 0600, every directory 0700, whatever the umask says. Every failure is a [`FileError`].

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The file system failed.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}")]
#[non_exhaustive]
pub struct FileError {
    /// What was attempted.
    pub what: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// Says of an I/O error what was attempted, and on which path.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError {
        what,
        path: path.to_path_buf(),
        source,
    }
}

/// Makes a 0700 directory (and its parents), or takes one that is there. An empty one becomes 0700;
/// one with something in it is left as it is, since it might be anybody's: `/tmp` must not be shut
/// by a slip on the command line.
pub(crate) fn create_dir(path: &Path) -> Result<(), FileError> {
    let make = || {
        let known = path.is_dir();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        if known && fs::read_dir(path)?.next().is_some() {
            return Ok(());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        sync_parent(path)
    };
    make().map_err(failed("making", path))
}

/// The names in a directory; none where there is no directory.
pub(crate) fn names(dir: &Path) -> Result<Vec<OsString>, FileError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("listing", dir))?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name()));
    names
        .collect::<io::Result<_>>()
        .map_err(failed("listing", dir))
}

/// Whether others than the owner may look into a file or directory; its permission bits if so.
pub(crate) fn open_to_others(path: &Path) -> Result<Option<u32>, FileError> {
    let found = fs::metadata(path).map_err(failed("reading", path))?;
    let mode = found.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(failed("reading", path))
}

/// Makes a file that must not exist yet.
pub(crate) fn create_new(path: &Path) -> Result<File, FileError> {
    let make = || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        // The umask can only take bits away; this gives back the owner's in case it did.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(file)
    };
    make().map_err(failed("making", path))
}

/// Writes a whole file that must not exist yet; returns once it is durable.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = create_new(path)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_parent(path))
        .map_err(failed("writing", path))
}

/// Renames inside one directory; returns once the new name is durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to)
        .and_then(|()| sync_parent(to))
        .map_err(failed("renaming", from))
}

/// Removes a file if it is there; returns once it is gone for good.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let removed = match fs::remove_file(path) {
        Err(e) if gone(&e) => Ok(()),
        removed => removed,
    };
    // What is not there may have been removed by a call whose sync failed.
    match removed.and_then(|()| sync_parent(path)) {
        Err(e) if gone(&e) => Ok(()),
        synced => synced.map_err(failed("removing", path)),
    }
}

/// Makes the bytes of a file, or the entries of a directory, durable.
pub(crate) fn sync(path: &Path) -> Result<(), FileError> {
    sync_all(path).map_err(failed("syncing", path))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_all(parent),
        _ => sync_all(Path::new(".")),
    }
}

fn sync_all(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
