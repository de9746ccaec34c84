//! The content key.

use super::blank_debug;
use super::secret::Secret;
use crate::backend::{Backend, BackendError};

/// The key that seals one message, and nothing else. On the server it lives for one `open` and `rewrap`; a device may
/// keep it, wrapped under its [`OutboxKey`](crate::OutboxKey), until the message is acknowledged.
pub struct Dek(Secret);

impl Dek {
    pub(crate) fn generate(backend: &dyn Backend) -> Result<Self, BackendError> {
        Secret::generate(backend).map(Self)
    }

    pub(crate) fn from_bytes(key: &[u8; 32]) -> Self {
        Self(Secret::from_bytes(key))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

blank_debug! { Dek }
