//! Root keys: one per epoch, outside the data directory, destroyed whenever something below is
//! erased.

use std::error::Error;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use vitalseal_crypto::{Backend, KeyEpoch, RootKey, danger, default_backend};
use zeroize::Zeroizing;

use crate::durable::{self, FileError, failed};
use crate::pkcs11::TokenError;

/// Which key of a provider. Numbers are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KeySlot {
    /// The root of the key tree, for one epoch of it.
    Root(KeyEpoch),
    /// The cover of one envelope key of the server: destroyed with it, so that no copy of the data directory gives
    /// that key back.
    Recipient(KeyEpoch),
}

impl KeySlot {
    /// Its epoch.
    #[must_use]
    pub fn epoch(self) -> KeyEpoch {
        match self {
            Self::Root(epoch) | Self::Recipient(epoch) => epoch,
        }
    }
}

impl fmt::Display for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(epoch) => write!(f, "root key of epoch {epoch}"),
            Self::Recipient(epoch) => write!(f, "cover of envelope key {epoch}"),
        }
    }
}

/// A key that a provider made.
#[derive(Debug)]
pub struct NewRoot {
    /// The key.
    pub key: RootKey,
    /// What [`RootProvider::load`] needs to give it again, beside what the provider holds itself; may be empty. It is
    /// kept with the data and in its backups, so it must be worth nothing without the provider.
    pub blob: Vec<u8>,
}

/// Where root keys live: files, a hardware module, another machine.
///
/// # Security
/// What a provider holds must never be part of a backup of the data directory, and `destroy` must
/// mean it: an erasure is exactly as final as that.
pub trait RootProvider: Send + Sync + fmt::Debug {
    /// Names the provider in erasure certificates.
    fn name(&self) -> &str;

    /// The key of a slot, with the blob that [`RootProvider::create`] gave for it.
    ///
    /// # Errors
    /// [`RootError::Missing`] when it does not exist (any more); others when it cannot be read.
    fn load(&self, slot: KeySlot, blob: &[u8]) -> Result<RootKey, RootError>;

    /// Draws the key of a new slot; returns once it is durable.
    ///
    /// # Errors
    /// [`RootError::Exists`] when the slot was used before; others when it is not durable.
    fn create(&self, slot: KeySlot, backend: &dyn Backend) -> Result<NewRoot, RootError>;

    /// Destroys the key of a slot; returns once that is durable. One that is not there is no
    /// error.
    ///
    /// # Errors
    /// When it may still exist.
    fn destroy(&self, slot: KeySlot) -> Result<(), RootError>;

    /// The slots that exist, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn slots(&self) -> Result<Vec<KeySlot>, RootError>;
}

/// A key of a provider could not be loaded, made or destroyed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// It does not exist (any more).
    #[error("the {slot} is not in {place} (held there: {held})")]
    Missing {
        /// The slot that was wanted.
        slot: KeySlot,
        /// Where it was looked for.
        place: String,
        /// The epochs of such keys that are there.
        held: String,
    },
    /// The slot was used before.
    #[error("the {slot} exists already in {place}")]
    Exists {
        /// The slot.
        slot: KeySlot,
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
    /// Not a file of this format and slot, or damaged.
    #[error(
        "{path} does not hold the {slot} in the format of this version; put a whole copy of it there"
    )]
    Damaged {
        /// The slot.
        slot: KeySlot,
        /// The file.
        path: PathBuf,
    },
    /// The random source or another primitive failed.
    #[error("drawing random bytes for the {slot}")]
    Draw {
        /// The slot.
        slot: KeySlot,
        /// Why it failed.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The token failed.
    #[error("using the PKCS#11 token")]
    Token(#[from] TokenError),
    /// The file system failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RootError {
    pub(crate) fn draw<E: Error + Send + Sync + 'static>(slot: KeySlot) -> impl FnOnce(E) -> Self {
        move |cause| Self::Draw {
            slot,
            cause: Box::new(cause),
        }
    }
}

/// Root keys as files `root-<epoch>.key` and `recipient-<epoch>.key` in a directory of their own.
///
/// ```text
/// 0        8           16            48             56
/// +--------+-----------+-------------+--------------+
/// | VSROOT | epoch     | key         | first 8 of   |   VSRCPT in the cover of an
/// | \x01\n | u64 BE    | 32 bytes    | SHA-256      |   envelope key; of the 48 before
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

const FILE_BYTES: usize = 56;

impl FileRootProvider {
    /// Keeps root keys in `dir`, which is made (0700) with the first key.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, slot: KeySlot) -> PathBuf {
        let (kind, epoch) = (kind(slot), slot.epoch());
        self.dir.join(format!("{kind}-{epoch}.key"))
    }

    fn missing(&self, slot: KeySlot) -> RootError {
        let held = match self.slots() {
            Ok(slots) => epochs(slot, &slots),
            Err(_) => "unreadable".to_owned(),
        };
        let place = self.dir.display().to_string();
        RootError::Missing { slot, place, held }
    }
}

/// The epochs of those slots that are for the same as `like`, for people.
pub(crate) fn epochs(like: KeySlot, slots: &[KeySlot]) -> String {
    let epochs: Vec<_> = slots
        .iter()
        .filter(|slot| kind(**slot) == kind(like))
        .map(|slot| slot.epoch().to_string())
        .collect();
    if epochs.is_empty() {
        "none".to_owned()
    } else {
        epochs.join(", ")
    }
}

fn kind(slot: KeySlot) -> &'static str {
    match slot {
        KeySlot::Root(_) => "root",
        KeySlot::Recipient(_) => "recipient",
    }
}

fn magic(slot: KeySlot) -> &'static [u8; 8] {
    match slot {
        KeySlot::Root(_) => b"VSROOT\x01\n",
        KeySlot::Recipient(_) => b"VSRCPT\x01\n",
    }
}

fn refuse_if_open(path: &Path) -> Result<(), RootError> {
    match durable::open_to_others(path)? {
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

    fn load(&self, slot: KeySlot, _: &[u8]) -> Result<RootKey, RootError> {
        let path = self.path(slot);
        let bytes = durable::read(&path).map_err(|e| match e.source.kind() {
            io::ErrorKind::NotFound => self.missing(slot),
            _ => e.into(),
        })?;
        let bytes = Zeroizing::new(bytes);
        refuse_if_open(&path)?;
        let whole = bytes.len() == FILE_BYTES
            && bytes[..8] == *magic(slot)
            && bytes[8..16] == slot.epoch().0.to_be_bytes()
            && bytes[48..] == checksum(&bytes[..48]);
        if !whole {
            return Err(RootError::Damaged { slot, path });
        }
        danger::root_key_from_bytes(slot.epoch(), &bytes[16..48])
            .map_err(|_| RootError::Damaged { slot, path })
    }

    fn create(&self, slot: KeySlot, backend: &dyn Backend) -> Result<NewRoot, RootError> {
        durable::create_dir(&self.dir)?;
        refuse_if_open(&self.dir)?;
        let epoch = slot.epoch();
        let key = RootKey::generate(epoch, backend).map_err(RootError::draw(slot))?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        bytes.extend_from_slice(magic(slot));
        bytes.extend_from_slice(&epoch.0.to_be_bytes());
        bytes.extend_from_slice(danger::root_key_to_bytes(&key).as_slice());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let path = self.path(slot);
        durable::write_new(&path, &bytes).map_err(|e| match e.source.kind() {
            io::ErrorKind::AlreadyExists => RootError::Exists {
                slot,
                place: self.dir.display().to_string(),
            },
            _ => e.into(),
        })?;
        let blob = Vec::new();
        Ok(NewRoot { key, blob })
    }

    fn destroy(&self, slot: KeySlot) -> Result<(), RootError> {
        let path = self.path(slot);
        let mut file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed("opening for destruction", &path)(e).into()),
        };
        let mut noise = [0; FILE_BYTES];
        // Noise rather than zeros: a compressing or sparse file system might not write zeros in
        // place.
        default_backend()
            .fill_random(&mut noise)
            .map_err(RootError::draw(slot))?;
        file.write_all(&noise)
            .and_then(|()| file.sync_all())
            .map_err(failed("overwriting", &path))?;
        drop(file);
        Ok(durable::remove(&path)?)
    }

    fn slots(&self) -> Result<Vec<KeySlot>, RootError> {
        let names = durable::names(&self.dir)?;
        let slots = names.iter().filter_map(|name| slot_of(name.to_str()?));
        let mut slots: Vec<KeySlot> = slots.collect();
        slots.sort_unstable();
        Ok(slots)
    }
}

fn slot_of(file: &str) -> Option<KeySlot> {
    let (kind, epoch) = file.strip_suffix(".key")?.split_once('-')?;
    let epoch = KeyEpoch(epoch.parse().ok()?);
    match kind {
        "root" => Some(KeySlot::Root(epoch)),
        "recipient" => Some(KeySlot::Recipient(epoch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_root_key_is_private_whole_and_gone_when_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let provider = FileRootProvider::new(dir.path().join("roots"));
        let (backend, slot) = (default_backend(), KeySlot::Root(KeyEpoch(7)));
        assert!(matches!(
            provider.load(slot, &[]),
            Err(RootError::Missing { .. })
        ));
        let key = provider.create(slot, backend).unwrap().key;
        let again = provider.load(slot, &[]).unwrap();
        assert_eq!(
            *danger::root_key_to_bytes(&key),
            *danger::root_key_to_bytes(&again)
        );
        assert!(matches!(
            provider.create(slot, backend),
            Err(RootError::Exists { .. })
        ));
        assert_eq!(provider.slots().unwrap(), [slot]);

        // The cover of an envelope key is a key of its own, and neither passes for the other.
        let cover = KeySlot::Recipient(KeyEpoch(7));
        provider.create(cover, backend).unwrap();
        assert_eq!(provider.slots().unwrap(), [slot, cover]);
        fs::copy(provider.path(slot), provider.path(cover)).unwrap();
        assert!(matches!(
            provider.load(cover, &[]),
            Err(RootError::Damaged { slot, .. }) if slot == cover
        ));
        provider.destroy(cover).unwrap();
        let missing = provider.load(cover, &[]).unwrap_err().to_string();
        assert!(
            missing.starts_with("the cover of envelope key 7 is not in"),
            "{missing}"
        );
        assert!(missing.ends_with("(held there: none)"), "{missing}");

        let path = provider.path(slot);
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let bytes = fs::read(&path).unwrap();
        for at in [0, 8, 15, 16, 47, 48, 55] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert!(
                matches!(provider.load(slot, &[]), Err(RootError::Damaged { .. })),
                "byte {at}"
            );
        }
        fs::write(&path, &bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            provider.load(slot, &[]),
            Err(RootError::TooOpen { mode: 0o640, .. })
        ));

        provider.destroy(slot).unwrap();
        provider.destroy(slot).unwrap();
        assert!(!path.exists());

        // A directory that is somebody else's already is not shut for them, and no key goes into
        // it.
        let shared = FileRootProvider::new(dir.path().join("shared"));
        fs::create_dir(dir.path().join("shared")).unwrap();
        fs::write(dir.path().join("shared/notes"), b"").unwrap();
        fs::set_permissions(dir.path().join("shared"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            shared.create(slot, backend),
            Err(RootError::TooOpen { .. })
        ));
        assert_eq!(mode(&dir.path().join("shared")), 0o755);
        assert!(matches!(
            provider.load(slot, &[]),
            Err(RootError::Missing { .. })
        ));
    }
}
