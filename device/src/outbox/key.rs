//! The key under which the content keys of messages are wrapped, in a file beside them.
//!
//! It is drawn anew whenever no message is left, over the bytes of the one before: a wrap that outlived its message on the
//! disk then opens for nobody. Overwriting in place is all that a file allows. Flash with wear levelling,
//! copy-on-write file systems and snapshots may keep the old bytes, so an outbox belongs on an encrypted disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use vitalseal_crypto::{Dek, KeyError, OutboxKey, danger, default_backend};
use zeroize::Zeroizing;

use super::error::{OutboxError, at};
use super::files::sync;

/// 32 bytes, readable to the owner only.
pub(super) const KEY_FILE: &str = "outbox.key";

/// The key, in memory and in its file.
pub(super) struct KeyFile {
    directory: PathBuf,
    /// `None` after it could not be written: what is in the file is then unknown, so it is not used.
    key: Option<OutboxKey>,
}

impl KeyFile {
    /// Of an outbox that holds messages: the key that is there, or a new one, which addresses none of them, if it is
    /// missing.
    pub(super) fn load(directory: &Path) -> Result<Self, OutboxError> {
        let path = directory.join(KEY_FILE);
        match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                let key = danger::outbox_key_from_bytes(&bytes);
                Ok(Self {
                    directory: directory.to_owned(),
                    key: Some(key.map_err(|cause| OutboxError::Key { path, cause })?),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::draw(directory),
            Err(error) => Err(at("reading the outbox key", &path)(error)),
        }
    }

    /// Of an outbox without messages: a new key, over the old one if there is one. Durable when this returns.
    pub(super) fn draw(directory: &Path) -> Result<Self, OutboxError> {
        let mut file = Self {
            directory: directory.to_owned(),
            key: None,
        };
        file.renew()?;
        Ok(file)
    }

    /// Puts a new key in the place of the old one; nothing that this one wrapped opens afterwards.
    pub(super) fn renew(&mut self) -> Result<&OutboxKey, OutboxError> {
        self.key = None;
        let key = OutboxKey::generate(default_backend()).map_err(|cause| self.failed(cause))?;
        let path = self.path();
        overwrite(&path, danger::outbox_key_to_bytes(&key).as_slice())
            .map_err(at("writing the outbox key", &path))?;
        sync(&self.directory)?;
        Ok(self.key.insert(key))
    }

    pub(super) fn wrap(&mut self, content_key: &Dek) -> Result<[u8; 40], OutboxError> {
        let key = match &self.key {
            Some(key) => key,
            None => self.renew()?,
        };
        let wrapped = key.wrap(content_key);
        wrapped.map_err(|cause| self.failed(cause))
    }

    /// `None` when it was wrapped under another key.
    pub(super) fn unwrap(&self, wrapped: &[u8; 40]) -> Option<Dek> {
        self.key.as_ref()?.unwrap(wrapped).ok()
    }

    fn path(&self) -> PathBuf {
        self.directory.join(KEY_FILE)
    }

    fn failed(&self, cause: KeyError) -> OutboxError {
        let path = self.path();
        OutboxError::Key { path, cause }
    }
}

/// Writes in place, so that the bytes that were there are gone from the file and not only from the directory.
///
/// Cut short by a crash, it leaves neither key. Then no message is there, and the next start draws another.
fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
