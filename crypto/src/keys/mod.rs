//! Keys, one type a duty.
//!
//! ```text
//! RootKey, epoch e      outside the data directory; destroyed and replaced when anything below is erased
//!   └─ PageKey          one for about a thousand patients, and one for the service's own secrets
//!       └─ Kek          one a patient at a time; random, never derived ([`PatientKeys`]: with those before it)
//!           └─ Dek      one a message or sealed blob; A256KW, stored beside its ciphertext
//!
//! StoreKey              over the store's own files; kept among the service's secrets
//!   ├─ FileKey          one a Parquet file
//!   └─ Dek              one a blob of evidence
//!
//! RecipientKey          the server's envelope key of one epoch: what devices seal for
//! SessionKey            a device's agreement key for one session
//! OutboxKey             a device's key over the content keys of messages that wait there
//! DeviceSigner          a device's signing key
//! ```
//!
//! Every key is boxed (a move leaves no copy), wiped on drop, and has no `Clone`, no `Serialize` and a blank `Debug`.
//! Raw bytes leave and enter through [`crate::danger`] and nowhere else.
//!
//! The key tree's own operations (wrapping keys, sealing the identity map) use
//! [`default_backend`](crate::default_backend): they are rare, and both backends yield the same bytes.

mod agreement;
mod blob;
mod content;
mod outbox;
mod patient;
mod patient_keys;
mod ring;
mod sealed;
mod secret;
mod store;
mod tree;

pub use self::agreement::{DeviceSigner, RecipientKey, SessionKey};
pub use self::blob::{BLOB_OVERHEAD, BlobContext, BlobKey, blob_kid, open_blob, seal_blob};
pub use self::content::Dek;
pub use self::outbox::OutboxKey;
pub use self::patient::Kek;
pub use self::patient_keys::PatientKeys;
pub use self::ring::RecipientKeyRing;
pub(crate) use self::secret::Secret;
pub use self::store::{FileKey, StoreKey};
pub use self::tree::{PageKey, RootKey};

use crate::backend::BackendError;
use crate::certificate::CertificateError;

/// Why a key operation failed. Mute about which check inside it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A wrapped key, sealed bytes or an encoded key has a length or form that no such thing has.
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
    /// A key's certificate could not be read.
    #[error("reading the key's certificate")]
    Certificate(#[from] CertificateError),
    /// A primitive failed.
    #[error("a key operation failed inside the cryptographic backend")]
    Backend(#[from] BackendError),
}

/// The `Debug` of everything secret: its name.
macro_rules! blank_debug {
    ($($name:ident)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
pub(crate) use blank_debug;

/// Reads a wrapped key's 40 bytes and unwraps them.
fn unwrap(kek: &Secret, wrapped: &[u8]) -> Result<Secret, KeyError> {
    let wrapped = wrapped.try_into().map_err(|_| KeyError::Malformed)?;
    let key = crate::backend::default_backend()
        .unwrap(kek.bytes(), wrapped)
        .map_err(|_| KeyError::Unwrap)?;
    Ok(Secret::from_bytes(&key))
}
