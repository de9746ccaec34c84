//! Keys.

mod agreement;
mod content;
mod patient;
mod secret;
mod tree;

pub use self::agreement::{DeviceSigner, RecipientKey, RecipientKeyRing, SessionKey};
pub use self::content::Dek;
pub use self::patient::Kek;
pub use self::tree::{PageKey, RootKey};

use crate::backend::BackendError;

/// Why a key operation failed. Mute about which check it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The wrapped key, sealed bytes or encoded key has a length or form that no such thing has.
    #[error("the stored bytes are not of this kind")]
    Malformed,
    /// The wrap's integrity check failed: another key, or damaged bytes.
    #[error("the wrapped key could not be unwrapped")]
    Unwrap,
    /// The seal did not hold: another key, another context, or damaged bytes.
    #[error("the sealed bytes could not be opened")]
    Open,
    /// A key and its certificate do not belong together.
    #[error("the private key is not the one that the certificate names")]
    Mismatch,
    /// A primitive failed.
    #[error("a key operation failed inside the cryptographic backend")]
    Backend(#[source] BackendError),
}

impl From<BackendError> for KeyError {
    fn from(cause: BackendError) -> Self {
        Self::Backend(cause)
    }
}
