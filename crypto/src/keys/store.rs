//! The store's own key, and the keys of its files.
//!
//! They keep pseudonyms, times and statistics from whoever holds the files alone. What was measured is sealed once more,
//! for each patient, so that none of these keys opens a reading; and destroying none of them is an erasure.

use super::secret::Secret;
use super::{KeyError, blank_debug, unwrap};
use crate::backend::{Backend, default_backend};
use crate::ids::Kid;

/// The key over the store's files: it wraps the key of each file, and the content keys of sealed evidence, so that
/// signatures can be checked without any patient's key.
pub struct StoreKey {
    kid: Kid,
    key: Secret,
}

impl StoreKey {
    /// Draws a new key, and a random 16-byte identifier for it.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        Ok(Self {
            kid: Kid::random(backend)?,
            key: Secret::generate(backend)?,
        })
    }

    pub(crate) fn from_parts(kid: Kid, key: Secret) -> Self {
        Self { kid, key }
    }

    /// Its identifier, as files and sealed evidence carry it.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Wraps a file's key (AES-256 key wrap, RFC 3394).
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn wrap_file_key(&self, key: &FileKey) -> Result<[u8; 40], KeyError> {
        Ok(default_backend().wrap(self.key.bytes(), key.0.bytes())?)
    }

    /// Unwraps a file's key.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] unless there are 40 bytes, or [`KeyError::Unwrap`].
    pub fn unwrap_file_key(&self, wrapped: &[u8]) -> Result<FileKey, KeyError> {
        unwrap(&self.key, wrapped).map(FileKey)
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.key
    }
}

/// The key of one Parquet file, used for nothing else: Parquet counts the seals of one file, not of many
/// (Parquet Modular Encryption §4.4.1).
pub struct FileKey(Secret);

impl FileKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        Ok(Self(Secret::generate(backend)?))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }
}

blank_debug! { StoreKey FileKey }
