//! Small files with the right permissions, durable before the call returns.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

/// Makes a directory that only its owner may enter.
///
/// # Errors
/// It exists, or its parent does not.
pub(crate) fn create_private_dir(path: &Path) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .with_context(|| format!("creating {}", path.display()))
}

/// Writes a new file that everyone may read.
///
/// # Errors
/// It exists already, or cannot be written.
pub(crate) fn write_public(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    write_new(path, contents, 0o644)
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// It exists already, or cannot be written.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    write_new(path, contents, 0o600)
}

/// Writes a document that only its owner may read into a directory that is made if it is missing: whole,
/// or not at all.
///
/// # Errors
/// It cannot be written.
pub(crate) fn keep_document(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        create_private_dir(directory)?;
        sync_parent(directory)?;
    }
    let partial = path.with_extension("partial");
    let _ = fs::remove_file(&partial);
    write_private(&partial, contents)?;
    fs::rename(&partial, path).with_context(|| format!("writing {}", path.display()))?;
    sync_parent(path)
}

/// Reads a text that nobody else may read.
///
/// # Errors
/// It cannot be read, or others may read it too.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let read = || format!("reading {}", path.display());
    let mode = fs::metadata(path).with_context(read)?.permissions().mode();
    anyhow::ensure!(
        mode & 0o077 == 0,
        "others than its owner may read {} (mode {:o}): `chmod 600` it, and renew the secret if others may have",
        path.display(),
        mode & 0o777
    );
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .with_context(read)
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> anyhow::Result<()> {
    let attempt = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(contents)?;
        file.sync_all()
    };
    attempt().with_context(|| format!("writing {}", path.display()))?;
    sync_parent(path)
}

/// Makes the entry of `path` in its directory durable.
///
/// # Errors
/// The directory cannot be synced.
pub(crate) fn sync_parent(path: &Path) -> anyhow::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("syncing {}", parent.display()))
}

/// The user id this process runs as.
#[must_use]
pub(crate) fn own_uid() -> u32 {
    nix::unistd::getuid().as_raw()
}
