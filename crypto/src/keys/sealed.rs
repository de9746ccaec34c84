//! Small secrets sealed under a key of the tree: the identity map, and what the service itself must keep.
//!
//! ```text
//! offset  bytes
//!      0      1   version, 01
//!      1     12   IV, random
//!     13      n   AES-256-GCM ciphertext
//!   13+n     16   tag
//! ```
//!
//! The AAD is the version byte followed by the caller's context, which names the place: a value moved to another
//! row does not open. The AEAD key is `HKDF-SHA-256(key, info = purpose)` and never the key itself, which wraps
//! other keys. Random IVs are safe for 2^32 seals under one key (NIST SP 800-38D §8.3); identity maps and service
//! secrets are some dozens.

use zeroize::Zeroizing;

use super::KeyError;
use super::secret::Secret;
use crate::backend::{Backend, default_backend};

const VERSION: u8 = 1;

pub(super) fn seal(
    key: &Secret,
    purpose: &[u8],
    context: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let backend = default_backend();
    let mut iv = [0; 12];
    backend.fill_random(&mut iv)?;
    let key = backend.hkdf_sha256(b"", key.bytes(), purpose)?;
    let ciphertext = backend.seal(&key, &iv, &aad(context), plaintext)?;
    Ok([&[VERSION], &iv[..], &ciphertext].concat())
}

pub(super) fn open(
    key: &Secret,
    purpose: &[u8],
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let [VERSION, rest @ ..] = sealed else {
        return Err(KeyError::Malformed);
    };
    let (iv, ciphertext) = rest.split_first_chunk::<12>().ok_or(KeyError::Malformed)?;
    let backend: &dyn Backend = default_backend();
    let key = backend.hkdf_sha256(b"", key.bytes(), purpose)?;
    backend
        .open(&key, iv, &aad(context), ciphertext)
        .map_err(|_| KeyError::Open)
}

fn aad(context: &[u8]) -> Vec<u8> {
    [&[VERSION], context].concat()
}
