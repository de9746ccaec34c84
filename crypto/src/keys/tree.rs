//! Page and root keys.

use std::fmt;

use zeroize::Zeroizing;

use super::secret::Secret;
use super::{Kek, KeyError};
use crate::backend::Backend;
use crate::ids::{KeyEpoch, Kid};

/// A page key.
pub struct PageKey(Secret);

impl PageKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        todo!()
    }
    /// Wraps a patient's key.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn wrap_kek(&self, kek: &Kek) -> Result<[u8; 40], KeyError> {
        todo!()
    }
    /// Unwraps.
    ///
    /// # Errors
    /// When the wrap does not hold.
    pub fn unwrap_kek(&self, kid: Kid, wrapped: &[u8]) -> Result<Kek, KeyError> {
        todo!()
    }
    /// Seals.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        todo!()
    }
    /// Opens.
    ///
    /// # Errors
    /// When it does not hold.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        todo!()
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageKey").finish_non_exhaustive()
    }
}

/// The root key of one epoch.
pub struct RootKey {
    epoch: KeyEpoch,
    key: Secret,
}

impl RootKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(epoch: KeyEpoch, backend: &dyn Backend) -> Result<Self, KeyError> {
        todo!()
    }
    /// Its epoch.
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }
    /// Wraps.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn wrap_page(&self, page: &PageKey) -> Result<[u8; 40], KeyError> {
        todo!()
    }
    /// Unwraps.
    ///
    /// # Errors
    /// When the wrap does not hold.
    pub fn unwrap_page(&self, wrapped: &[u8]) -> Result<PageKey, KeyError> {
        todo!()
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey").finish_non_exhaustive()
    }
}
