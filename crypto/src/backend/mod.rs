//! The primitives, behind one small trait.
//!
//! Nothing above this module names a cryptographic crate. Two implementations must agree on every byte: the
//! portable [`rust_crypto`] and the server's faster [`aws_lc`]; published vectors and a property test hold them
//! against each other. What never stands here: COSE, key identifiers, policy.

#[cfg(feature = "aws-lc")]
mod aws_lc;
mod p256_key;
mod rust_crypto;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

use zeroize::Zeroizing;

#[cfg(feature = "authority")]
pub(crate) use self::p256_key::signature_to_der;
pub use self::p256_key::{P256Point, P256Secret};
pub(crate) use self::p256_key::{scalar_from_pkcs8, signature_from_der};

/// The portable implementation, from the RustCrypto crates.
pub fn rust_crypto() -> &'static dyn Backend {
    &rust_crypto::RustCrypto
}

/// The server's implementation, from aws-lc: about three times faster at P-256 and up to four times at AES-GCM.
#[cfg(feature = "aws-lc")]
pub fn aws_lc() -> &'static dyn Backend {
    &aws_lc::AwsLc
}

/// [`aws_lc`] where it was compiled in, [`rust_crypto`] elsewhere.
pub fn default_backend() -> &'static dyn Backend {
    #[cfg(feature = "aws-lc")]
    return aws_lc();
    #[cfg(not(feature = "aws-lc"))]
    return rust_crypto();
}

/// Why a primitive gave no answer. Deliberately mute: which check failed inside is no caller's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A signature, tag or wrap did not verify, or an input was not a valid key, point or length.
    #[error("the cryptographic operation was refused")]
    Refused,
    /// The system's random source failed.
    #[error("the random source failed")]
    Random,
}

/// The primitives of the profile, and no others: there is no algorithm to choose.
///
/// Keys and hashes are 32 bytes, IVs 12, signatures 64 (`r || s`, as COSE and IEEE P1363 write them).
pub trait Backend: Send + Sync + Debug {
    /// A short name for logs and reports.
    fn name(&self) -> &'static str;

    /// SHA-256 (FIPS 180-4) of the parts, one after the other.
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32];

    /// HKDF with SHA-256 (RFC 5869), 32 bytes of output. An empty salt stands for "no salt".
    ///
    /// # Errors
    /// [`BackendError::Refused`] when `info` is longer than the implementation takes (never below 1 KiB).
    fn hkdf_sha256(
        &self,
        salt: &[u8],
        secret: &[u8],
        info: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, BackendError>;

    /// ECDSA with P-256 and SHA-256 over the parts one after the other. Both halves of `s` are accepted, as COSE does.
    ///
    /// # Errors
    /// [`BackendError::Refused`] unless the signature is valid under `key`.
    fn verify(
        &self,
        key: &P256Point,
        message: &[&[u8]],
        signature: &[u8; 64],
    ) -> Result<(), BackendError>;

    /// ECDSA with P-256 and SHA-256 over the parts one after the other.
    ///
    /// # Errors
    /// [`BackendError`] when the key is unusable or no randomness is left.
    fn sign(&self, key: &P256Secret, message: &[&[u8]]) -> Result<[u8; 64], BackendError>;

    /// A new P-256 key pair.
    ///
    /// # Errors
    /// [`BackendError::Random`] when the random source fails.
    fn generate_p256(&self) -> Result<P256Secret, BackendError>;

    /// The public half of a private scalar.
    ///
    /// # Errors
    /// [`BackendError::Refused`] for zero and for scalars not below the group order.
    fn p256_from_scalar(&self, scalar: &[u8; 32]) -> Result<P256Secret, BackendError>;

    /// ECDH on P-256: the x coordinate (RFC 9053 §6.3.1). The peer's point is checked to be on the curve.
    ///
    /// # Errors
    /// [`BackendError::Refused`] when it is not.
    fn agree(
        &self,
        own: &P256Secret,
        peer: &P256Point,
    ) -> Result<Zeroizing<[u8; 32]>, BackendError>;

    /// AES-256-GCM: the ciphertext with its 16-byte tag appended (RFC 9053 §4.1).
    ///
    /// # Errors
    /// [`BackendError::Refused`] when the plaintext is longer than the mode allows.
    fn seal(
        &self,
        key: &[u8; 32],
        iv: &[u8; 12],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, BackendError>;

    /// Opens what [`Backend::seal`] made.
    ///
    /// # Errors
    /// [`BackendError::Refused`] when tag, IV, AAD or key do not fit together.
    fn open(
        &self,
        key: &[u8; 32],
        iv: &[u8; 12],
        aad: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, BackendError>;

    /// AES-256 key wrap of a 32-byte key (RFC 3394).
    ///
    /// # Errors
    /// [`BackendError::Refused`] only if the implementation fails inside.
    fn wrap(&self, kek: &[u8; 32], key: &[u8; 32]) -> Result<[u8; 40], BackendError>;

    /// Unwraps what [`Backend::wrap`] made.
    ///
    /// # Errors
    /// [`BackendError::Refused`] when the integrity check fails.
    fn unwrap(
        &self,
        kek: &[u8; 32],
        wrapped: &[u8; 40],
    ) -> Result<Zeroizing<[u8; 32]>, BackendError>;

    /// Fills `out` from the system's random source. For keys and IVs only.
    ///
    /// # Errors
    /// [`BackendError::Random`] when the source fails.
    fn fill_random(&self, out: &mut [u8]) -> Result<(), BackendError>;
}
