//! The patient's key.

use std::fmt;

use zeroize::Zeroizing;

use super::KeyError;
use super::secret::Secret;
use crate::backend::Backend;
use crate::ids::Kid;

/// One patient's key-encryption key.
pub struct Kek {
    kid: Kid,
    key: Secret,
}

impl Kek {
    /// Draws a new key with a random 16-byte kid.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        todo!()
    }
    /// Its identifier.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }
    /// Seals the patient's identity.
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

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kek").finish_non_exhaustive()
    }
}
