//! What a backup says of itself, and the proof that its store said it.
//!
//! The secret behind `backup.mac` is in the key snapshots: a backup that somebody rewrote, say to grant themselves a
//! patient, is refused even if every digest in `backup.json` was put right.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vitalseal_crypto::{BackendError, KeyEpoch, default_backend};

use crate::durable::{self, FileError, failed};

/// The layout of a backup that this program writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// Name of the secret behind `backup.mac`.
pub(crate) const SECRET: &str = "backup/authenticity";

/// `backup.json`: what a backup is and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupManifest {
    /// Layout of the backup.
    pub format: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The store; only its own key snapshots are joined with it.
    pub store_id: String,
    /// When. Everything acknowledged before is in it.
    pub taken_at: Timestamp,
    /// Root that the keys were wrapped under.
    pub root_epoch: KeyEpoch,
    /// Erasures that it knows of. One that was ordered later is learned from the newest key snapshot.
    pub erasures: u64,
    /// Every other file of the backup.
    pub files: Vec<BackupFile>,
}

/// One file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFile {
    /// Below the backup's directory, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
}

/// Where a backup describes itself.
pub(crate) fn manifest_path(backup: &Path) -> PathBuf {
    backup.join("backup.json")
}

/// Where it proves that it is the store's.
pub(crate) fn mac_path(backup: &Path) -> PathBuf {
    backup.join("backup.mac")
}

/// What `backup.mac` holds for a `backup.json` with this SHA-256: in hexadecimal,
/// `HKDF-SHA-256(secret, "vitalseal/backup/1" || 0x00 || id)`.
pub(crate) fn mac(secret: &[u8], id: &[u8; 32]) -> Result<String, BackendError> {
    let info = [b"vitalseal/backup/1\0", id.as_slice()].concat();
    let mac: [u8; 32] = *default_backend().hkdf_sha256(&[], secret, &info)?;
    Ok(hex::encode(mac))
}

/// Every file below a directory, in order of paths; syncs what it reads, directories too.
pub(super) fn describe(root: &Path) -> Result<Vec<BackupFile>, FileError> {
    let mut files = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let directory = root.join(&below);
        for name in durable::names(&directory)? {
            let below = below.join(name);
            let path = root.join(&below);
            if path.is_dir() {
                waiting.push(below);
                continue;
            }
            durable::sync(&path)?;
            let (size, sha256) = digest(&path)?;
            let path = below.to_string_lossy().into_owned();
            files.push(BackupFile { path, size, sha256 });
        }
        durable::sync(&directory)?;
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Size and [`BackupFile::sha256`] of a file, which may be larger than memory.
pub(crate) fn digest(path: &Path) -> Result<(u64, String), FileError> {
    let mut hash = HashWriter(Sha256::new());
    let mut hashing = || io::copy(&mut File::open(path)?, &mut hash);
    let size = hashing().map_err(failed("reading", path))?;
    Ok((size, hex::encode(hash.0.finalize())))
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
