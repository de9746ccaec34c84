//! Thirty-two secret bytes, kept in one place.

use zeroize::Zeroizing;

use crate::backend::{Backend, BackendError};

/// A 256-bit key. Boxed, so that moving it leaves no copy behind; wiped on drop; no `Debug`, no `Clone`.
pub(crate) struct Secret(Box<Zeroizing<[u8; 32]>>);

impl Secret {
    /// Draws a new key, filled in place.
    pub(crate) fn generate(backend: &dyn Backend) -> Result<Self, BackendError> {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        backend.fill_random(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    pub(crate) fn from_bytes(key: &[u8; 32]) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        bytes.copy_from_slice(key);
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
