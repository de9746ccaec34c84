//! The key of a device's outbox.

use super::content::Dek;
use super::secret::Secret;
use super::{KeyError, blank_debug, unwrap};
use crate::backend::{Backend, default_backend};

/// Wraps the content keys of messages that wait on a device, so that they can be [addressed
/// anew](crate::envelope::readdress) when the server's epoch ended meanwhile.
///
/// It never leaves the device. Whoever takes it together with the outbox reads what waits there, so a device destroys a
/// wrap as soon as its message is acknowledged.
pub struct OutboxKey(Secret);

impl OutboxKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        Ok(Self(Secret::generate(backend)?))
    }

    pub(crate) fn from_secret(key: Secret) -> Self {
        Self(key)
    }

    /// Wraps a content key (AES-256 key wrap, RFC 3394).
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn wrap(&self, content_key: &Dek) -> Result<[u8; 40], KeyError> {
        Ok(default_backend().wrap(self.0.bytes(), content_key.bytes())?)
    }

    /// Unwraps a content key. That it is the message's is checked where it is used.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] unless there are 40 bytes, or [`KeyError::Unwrap`].
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<Dek, KeyError> {
        Ok(Dek::from_bytes(unwrap(&self.0, wrapped)?.bytes()))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }
}

blank_debug! { OutboxKey }
