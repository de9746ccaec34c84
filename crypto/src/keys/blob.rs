//! A sealed column of one chunk: many readings, or the envelopes that they came in, under a content key of their own.
//!
//! ```text
//! offset  bytes
//!      0      1   version, 01
//!      1     16   kid of the key that wraps the content key
//!     17     40   content key, A256KW (RFC 3394)
//!     57     12   IV, random
//!     69      n   AES-256-GCM ciphertext
//!   69+n     16   tag
//! ```
//!
//! The AAD names the place, so that a blob which was moved to another row, column or table does not open:
//!
//! ```text
//!  bytes
//!     18   "vitalseal/blob/1" and two zero bytes: no other AAD of ours begins so
//!     16   kid, as above
//!      1   schema version of the plaintext
//!      4   length of the bucket in seconds, big-endian
//!      8   start of the bucket, µs since the Unix epoch, big-endian, two's complement
//!   8 + n  table: its length (big-endian) and its name
//!   8 + n  pseudonym, likewise
//!   8 + n  column, likewise
//! ```
//!
//! Padding stands above: what is sealed here is as long as it looks, less [`BLOB_OVERHEAD`].

use zeroize::Zeroizing;

use super::{Dek, Kek, KeyError, Secret, StoreKey};
use crate::backend::Backend;
use crate::ids::{Kid, SubjectPseudonym};

const VERSION: u8 = 1;
const DOMAIN: &[u8; 18] = b"vitalseal/blob/1\0\0";
const KID: usize = 16;

/// How many bytes a sealed blob is longer than what is in it.
pub const BLOB_OVERHEAD: usize = 1 + KID + 40 + 12 + 16;

/// Where a blob stands. All of it is bound, none of it is carried.
#[derive(Clone, Copy, Debug)]
pub struct BlobContext<'a> {
    /// Table, such as `vitals`.
    pub table: &'a str,
    /// Whose readings they are.
    pub subject: &'a SubjectPseudonym,
    /// Start of the bucket, µs since the Unix epoch.
    pub bucket_start_us: i64,
    /// Length of the bucket, s.
    pub bucket_seconds: u32,
    /// Version of the layout inside.
    pub schema_version: u8,
    /// Column, such as `sealed`.
    pub column: &'a str,
}

impl BlobContext<'_> {
    fn aad(&self, kid: &[u8; KID]) -> Vec<u8> {
        let mut aad = [DOMAIN.as_slice(), kid, &[self.schema_version]].concat();
        aad.extend(self.bucket_seconds.to_be_bytes());
        aad.extend(self.bucket_start_us.to_be_bytes());
        for name in [self.table, self.subject.as_str(), self.column] {
            aad.extend((name.len() as u64).to_be_bytes());
            aad.extend(name.as_bytes());
        }
        aad
    }
}

/// Whose key wraps a blob's content key.
#[derive(Clone, Copy, Debug)]
pub enum BlobKey<'a> {
    /// A patient's: readings. They end with it.
    Patient(&'a Kek),
    /// The store's: evidence. The envelopes inside are sealed for the patient already.
    Store(&'a StoreKey),
}

impl BlobKey<'_> {
    fn kid(&self) -> Result<&[u8; KID], KeyError> {
        let kid = match self {
            Self::Patient(kek) => kek.kid(),
            Self::Store(key) => key.kid(),
        };
        kid.as_bytes().try_into().map_err(|_| KeyError::Malformed)
    }

    fn secret(&self) -> &Secret {
        match self {
            Self::Patient(kek) => kek.secret(),
            Self::Store(key) => key.secret(),
        }
    }
}

/// Seals a blob under a new content key.
///
/// # Errors
/// [`KeyError::Malformed`] when the key's identifier has not 16 bytes, [`KeyError::Backend`] when a primitive fails.
pub fn seal_blob(
    plain: &[u8],
    key: BlobKey<'_>,
    context: &BlobContext<'_>,
    backend: &dyn Backend,
) -> Result<Vec<u8>, KeyError> {
    let kid = key.kid()?;
    let content = Dek::generate(backend)?;
    let wrapped = backend.wrap(key.secret().bytes(), content.bytes())?;
    let mut iv = [0; 12];
    backend.fill_random(&mut iv)?;
    let ciphertext = backend.seal(content.bytes(), &iv, &context.aad(kid), plain)?;
    Ok([&[VERSION], kid.as_slice(), &wrapped, &iv, &ciphertext].concat())
}

/// Opens what [`seal_blob`] made in the same place. `key` is the one that [`blob_kid`] names.
///
/// # Errors
/// [`KeyError::Malformed`] for what is no sealed blob. [`KeyError::Open`] for everything else: another key, another
/// place and damaged bytes look alike.
pub fn open_blob(
    bytes: &[u8],
    key: BlobKey<'_>,
    context: &BlobContext<'_>,
    backend: &dyn Backend,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let parts = Parts::of(bytes)?;
    if parts.kid != key.kid()? {
        return Err(KeyError::Open);
    }
    let opened = backend
        .unwrap(key.secret().bytes(), parts.wrapped)
        .and_then(|content| {
            backend.open(
                &content,
                parts.iv,
                &context.aad(parts.kid),
                parts.ciphertext,
            )
        });
    opened.map_err(|_| KeyError::Open)
}

/// The identifier of the key that a blob's content key is wrapped under.
///
/// # Errors
/// [`KeyError::Malformed`] for what is no sealed blob.
pub fn blob_kid(bytes: &[u8]) -> Result<Kid, KeyError> {
    Kid::from_bytes(Parts::of(bytes)?.kid).map_err(|_| KeyError::Malformed)
}

struct Parts<'a> {
    kid: &'a [u8; KID],
    wrapped: &'a [u8; 40],
    iv: &'a [u8; 12],
    ciphertext: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, KeyError> {
        let parts = || {
            let rest = bytes.strip_prefix(&[VERSION])?;
            let (kid, rest) = rest.split_first_chunk()?;
            let (wrapped, rest) = rest.split_first_chunk()?;
            let (iv, ciphertext) = rest.split_first_chunk()?;
            Some(Self {
                kid,
                wrapped,
                iv,
                ciphertext,
            })
        };
        parts().ok_or(KeyError::Malformed)
    }
}
