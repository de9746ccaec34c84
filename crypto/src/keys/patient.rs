//! The patient's key: the one whose destruction is an erasure.

use zeroize::Zeroizing;

use super::content::Dek;
use super::secret::Secret;
use super::{KeyError, blank_debug, sealed};
use crate::backend::{Backend, BackendError};
use crate::ids::Kid;

/// What the sealing key of a patient's identity is derived for.
const IDENTITY: &[u8] = b"vitalseal patient identity, version 1";

/// One patient's key-encryption key, drawn at random: a derived key could be derived again after an erasure.
///
/// It wraps content keys and seals the patient's identity; it touches no reading.
pub struct Kek {
    kid: Kid,
    key: Secret,
}

impl Kek {
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

    /// Its identifier, as at-rest envelopes carry it.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Seals the patient's entry in the identity map. `context` names where it is kept.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        sealed::seal(&self.key, IDENTITY, context, plaintext)
    }

    /// Opens what [`Kek::seal`] made in the same context.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::Open`].
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        sealed::open(&self.key, IDENTITY, context, sealed)
    }

    pub(crate) fn wrap(&self, dek: &Dek, backend: &dyn Backend) -> Result<[u8; 40], BackendError> {
        backend.wrap(self.key.bytes(), dek.bytes())
    }

    pub(crate) fn unwrap(
        &self,
        wrapped: &[u8; 40],
        backend: &dyn Backend,
    ) -> Result<Dek, BackendError> {
        backend
            .unwrap(self.key.bytes(), wrapped)
            .map(|key| Dek::from_bytes(&key))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.key
    }
}

blank_debug! { Kek }
