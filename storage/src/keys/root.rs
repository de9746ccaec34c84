//! Root keys: one per epoch, outside the data directory, destroyed whenever something below is
//! erased.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use vitalseal_crypto::{Backend, BackendError, KeyEpoch, RootKey, danger, default_backend};
use zeroize::Zeroizing;

use crate::durable;

/// Where root keys live: files, a hardware module, another machine.
///
/// # Security
/// What a provider holds must never be part of a backup of the data directory, and `destroy` must
/// mean it: an erasure is exactly as final as that.
pub trait RootProvider: Send + Sync + std::fmt::Debug {
    /// Names the provider in erasure certificates.
    fn name(&self) -> &str;

    /// The root key of an epoch.
    ///
    /// # Errors
    /// [`RootError::Missing`] when it does not exist (any more); others when it cannot be read.
    fn load(&self, epoch: KeyEpoch) -> Result<RootKey, RootError>;

    /// Draws the root key of a new epoch; returns once it is durable.
    ///
    /// # Errors
    /// [`RootError::Exists`] when the epoch was used before; others when it is not durable.
    fn create(&self, epoch: KeyEpoch, backend: &dyn Backend) -> Result<RootKey, RootError>;

    /// Destroys the root key of an epoch; returns once that is durable. One that is not there is no
    /// error.
    ///
    /// # Errors
    /// When it may still exist.
    fn destroy(&self, epoch: KeyEpoch) -> Result<(), RootError>;

    /// The epochs that exist, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn epochs(&self) -> Result<Vec<KeyEpoch>, RootError>;
}

/// A root key could not be loaded, made or destroyed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// It does not exist (any more).
    #[error("root key of epoch {epoch} is not in {place} (held there: {held})")]
    Missing {
        /// The epoch that was wanted.
        epoch: KeyEpoch,
        /// Where it was looked for.
        place: String,
        /// The epochs that are there.
        held: String,
    },
    /// The epoch was used before.
    #[error("root key of epoch {epoch} exists already in {place}")]
    Exists {
        /// The epoch.
        epoch: KeyEpoch,
        /// Where.
        place: String,
    },
    /// Others than the owner may read the key or list its directory.
    #[error(
        "{path} is open to others than its owner (mode {mode:o}); run `chmod go=` on it, and think of who may have read it"
    )]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a root key file of this format, or damaged.
    #[error("{0} is not a whole root key file of this version")]
    Damaged(PathBuf),
    /// The random source or another primitive failed.
    #[error("drawing a root key")]
    Draw(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file system failed.
    #[error("{what} {path}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
}

/// Root keys as files `root-<epoch>.key` in a directory of their own.
///
/// ```text
/// 0        8           16            48             56
/// +--------+-----------+-------------+--------------+
/// | VSROOT | epoch     | key         | first 8 of   |
/// | \x01\n | u64 BE    | 32 bytes    | SHA-256      |   of the 48 bytes before
/// +--------+-----------+-------------+--------------+
/// ```
///
/// Destroying overwrites, syncs, unlinks and syncs again. On flash and on copy-on-write file
/// systems the overwritten block may survive out of sight: who must exclude that puts the directory
/// on a medium with an erase command of its own or uses a hardware module.
#[derive(Clone, Debug)]
pub struct FileRootProvider {
    dir: PathBuf,
}

const MAGIC: &[u8; 8] = b"VSROOT\x01\n";
const FILE_BYTES: usize = 56;

impl FileRootProvider {
    /// Keeps root keys in `dir`, which is made (0700) with the first key.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, epoch: KeyEpoch) -> PathBuf {
        self.dir.join(format!("root-{epoch}.key"))
    }

    fn held(&self) -> String {
        match self.epochs() {
            Ok(epochs) if epochs.is_empty() => "none".to_owned(),
            Ok(epochs) => epochs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            Err(_) => "unreadable".to_owned(),
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError {
    move |cause| RootError::Io {
        what,
        path: path.to_path_buf(),
        cause,
    }
}

fn refuse_if_open(path: &Path) -> Result<(), RootError> {
    match durable::open_to_others(path).map_err(failed("reading", path))? {
        Some(mode) => Err(RootError::TooOpen {
            path: path.to_path_buf(),
            mode,
        }),
        None => Ok(()),
    }
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let digest = default_backend().sha256(&[body]);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}

impl RootProvider for FileRootProvider {
    fn name(&self) -> &str {
        "file"
    }

    fn load(&self, epoch: KeyEpoch) -> Result<RootKey, RootError> {
        let path = self.path(epoch);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let place = self.dir.display().to_string();
                return Err(RootError::Missing {
                    epoch,
                    place,
                    held: self.held(),
                });
            }
            Err(e) => return Err(failed("reading", &path)(e)),
        };
        refuse_if_open(&path)?;
        let whole = bytes.len() == FILE_BYTES
            && bytes[..8] == *MAGIC
            && bytes[8..16] == epoch.0.to_be_bytes()
            && bytes[48..] == checksum(&bytes[..48]);
        if !whole {
            return Err(RootError::Damaged(path));
        }
        danger::root_key_from_bytes(epoch, &bytes[16..48]).map_err(|_| RootError::Damaged(path))
    }

    fn create(&self, epoch: KeyEpoch, backend: &dyn Backend) -> Result<RootKey, RootError> {
        durable::create_dir(&self.dir).map_err(failed("making", &self.dir))?;
        refuse_if_open(&self.dir)?;
        let key = RootKey::generate(epoch, backend).map_err(|e| RootError::Draw(Box::new(e)))?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&epoch.0.to_be_bytes());
        bytes.extend_from_slice(danger::root_key_to_bytes(&key).as_slice());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let path = self.path(epoch);
        durable::write_new(&path, &bytes).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => RootError::Exists {
                epoch,
                place: self.dir.display().to_string(),
            },
            _ => failed("writing", &path)(e),
        })?;
        Ok(key)
    }

    fn destroy(&self, epoch: KeyEpoch) -> Result<(), RootError> {
        let path = self.path(epoch);
        let mut file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed("opening for destruction", &path)(e)),
        };
        let mut noise = [0; FILE_BYTES];
        // Noise rather than zeros: a compressing or sparse file system might not write zeros in
        // place.
        default_backend()
            .fill_random(&mut noise)
            .map_err(|e: BackendError| RootError::Draw(e.into()))?;
        file.write_all(&noise)
            .and_then(|()| file.sync_all())
            .map_err(failed("overwriting", &path))?;
        drop(file);
        durable::remove(&path).map_err(failed("unlinking", &path))
    }

    fn epochs(&self) -> Result<Vec<KeyEpoch>, RootError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed("listing", &self.dir)(e)),
        };
        let mut epochs = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("listing", &self.dir))?.file_name();
            let number = name
                .to_str()
                .and_then(|n| n.strip_prefix("root-")?.strip_suffix(".key"));
            epochs.extend(number.and_then(|n| n.parse().ok()).map(KeyEpoch));
        }
        epochs.sort_unstable();
        Ok(epochs)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_root_key_is_private_whole_and_gone_when_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FileRootProvider::new(dir.path().join("roots"));
        let (backend, epoch) = (default_backend(), KeyEpoch(7));
        assert!(matches!(
            provider.load(epoch),
            Err(RootError::Missing { .. })
        ));
        let key = provider.create(epoch, backend).unwrap();
        let again = provider.load(epoch).unwrap();
        assert_eq!(
            *danger::root_key_to_bytes(&key),
            *danger::root_key_to_bytes(&again)
        );
        assert!(matches!(
            provider.create(epoch, backend),
            Err(RootError::Exists { .. })
        ));
        assert_eq!(provider.epochs().unwrap(), [epoch]);

        let path = provider.path(epoch);
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let bytes = fs::read(&path).unwrap();
        for at in [0, 8, 15, 16, 47, 48, 55] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(
                matches!(provider.load(epoch), Err(RootError::Damaged(_))),
                "byte {at}"
            );
        }
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            provider.load(epoch),
            Err(RootError::TooOpen { mode: 0o640, .. })
        ));

        provider.destroy(epoch).unwrap();
        provider.destroy(epoch).unwrap();
        assert!(!path.exists());

        // A directory that is somebody else's already is not shut for them, and no key goes into
        // it.
        let shared = FileRootProvider::new(dir.path().join("shared"));
        fs::create_dir(dir.path().join("shared")).unwrap();
        fs::write(dir.path().join("shared/notes"), b"").unwrap();
        fs::set_permissions(dir.path().join("shared"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            shared.create(epoch, backend),
            Err(RootError::TooOpen { .. })
        ));
        assert_eq!(mode(&dir.path().join("shared")), 0o755);
        assert!(matches!(
            provider.load(epoch),
            Err(RootError::Missing { .. })
        ));
    }
}
