//! A backup as it lies on somebody's medium: read once, shown to be the store's own, and only then copied.
//!
//! [`Received`] may be anybody's: nothing that it names is opened, or believed to be where keys are. [`Authentic`] was
//! written by the store of the key snapshots, down to the last digest. `backup.json` is read into memory once: a medium
//! that answers otherwise the second time gains nothing.

use std::path::{Component, Path, PathBuf};

use vitalseal_crypto::default_backend;

use super::RestoreError;
use crate::backup::{self, BackupManifest};
use crate::durable;
use crate::keys::{KeyCustody, snapshot};
use crate::paths::StorePaths;
use crate::store::StoreError;

/// What a backup says of itself.
#[derive(Debug)]
pub(crate) struct Received {
    from: PathBuf,
    manifest: BackupManifest,
    /// SHA-256 of `backup.json`.
    id: [u8; 32],
    mac: Vec<u8>,
}

/// A backup whose description its store wrote.
#[derive(Debug)]
pub(crate) struct Authentic {
    from: PathBuf,
    pub(super) manifest: BackupManifest,
    /// SHA-256 of `backup.json`, in hexadecimal.
    pub(super) id: String,
}

impl Received {
    /// Reads `backup.json` and `backup.mac`.
    ///
    /// # Errors
    /// When one is missing, or is not what this version of the program writes.
    pub(crate) fn read(from: &Path) -> Result<Self, RestoreError> {
        let whole = |e: Box<dyn std::error::Error + Send + Sync>| {
            RestoreError::NotABackup(from.to_path_buf(), e)
        };
        let json = durable::read(&backup::manifest_path(from)).map_err(|e| whole(e.into()))?;
        let manifest: BackupManifest =
            serde_json::from_slice(&json).map_err(|e| whole(e.into()))?;
        if manifest.format != backup::FORMAT {
            return Err(RestoreError::Format {
                path: from.to_path_buf(),
                found: manifest.format,
            });
        }
        // It becomes a part of the paths at which key snapshots are looked for.
        hex::decode_to_slice(&manifest.store_id, &mut [0; 16]).map_err(|e| whole(e.into()))?;
        for file in &manifest.files {
            let inside = |part| matches!(part, Component::Normal(_));
            if file.path.is_empty() || !Path::new(&file.path).components().all(inside) {
                return Err(RestoreError::Outside(file.path.clone()));
            }
        }
        Ok(Self {
            from: from.to_path_buf(),
            manifest,
            id: default_backend().sha256(&[&json]),
            mac: durable::read(&backup::mac_path(from))?,
        })
    }

    /// Holds it against the secret of its store, which the newest key snapshot has.
    ///
    /// # Errors
    /// When it is not that store's, or there is no snapshot that opens.
    pub(crate) fn authenticate(self, custody: &KeyCustody) -> Result<Authentic, RestoreError> {
        let secret = snapshot::secret(custody, &self.manifest.store_id, backup::SECRET)
            .map_err(|cause| RestoreError::Keys(self.from.clone(), cause))?;
        let own = secret
            .map(|secret| backup::mac(&secret, &self.id))
            .transpose()
            .map_err(StoreError::from)?;
        if own.map(String::into_bytes) != Some(self.mac) {
            return Err(RestoreError::Forged(backup::manifest_path(&self.from)));
        }
        Ok(Authentic {
            from: self.from,
            manifest: self.manifest,
            id: hex::encode(self.id),
        })
    }
}

impl Authentic {
    /// Copies every file into the new directory `data` and holds the copy against its digest.
    ///
    /// # Errors
    /// When a file is missing or is not what it was; `data` may then hold a part of it.
    pub(crate) fn unpack(&self, data: &Path) -> Result<(), RestoreError> {
        // A store that never flushed has no file there, and needs the directory all the same.
        for dir in [data.to_path_buf(), StorePaths::new(data, None).parquet()] {
            durable::create_dir(&dir)?;
        }
        for file in &self.manifest.files {
            let (source, copy) = (self.from.join(&file.path), data.join(&file.path));
            backup::copy_file(&source, &copy)?;
            if backup::digest(&copy)? != (file.size, file.sha256.clone()) {
                return Err(RestoreError::Damaged(source));
            }
        }
        Ok(())
    }
}
