//! How the plaintext of a chunk's `sealed` column begins, in either table: with what it was made of.
//!
//! ```text
//! head = 02 | evidence, 32 bytes     SHA-256 of the evidence's plaintext, decompressed
//!      | 01                          of a chunk that was sealed before there was a 02: bound to nothing
//! ```
//!
//! Evidence is sealed under the store's key. Whoever has that key could put other evidence beside a patient's readings,
//! that of another chunk of the same bucket for one; what stands here is sealed for the patient, and tells. If the
//! evidence is lost, it still says which it was.

use super::bytes::Reader;
use super::error::ChunkError;

const UNBOUND: u8 = 1;
const BOUND: u8 = 2;

/// SHA-256 of evidence.
pub(super) type Digest = [u8; 32];

/// The evidence that the plaintext of a `sealed` column names; `None` for one of version 01, which names none.
///
/// # Errors
/// [`ChunkError::Version`] or [`ChunkError::Damaged`].
pub fn evidence_of(plain: &[u8]) -> Result<Option<Digest>, ChunkError> {
    take(&mut Reader::new(plain))
}

pub(super) fn put(evidence: &Digest, out: &mut Vec<u8>) {
    out.push(BOUND);
    out.extend(evidence);
}

pub(super) fn take(reader: &mut Reader<'_>) -> Result<Option<Digest>, ChunkError> {
    match reader.byte()? {
        UNBOUND => Ok(None),
        BOUND => reader.array().map(Some),
        _ => Err(ChunkError::Version),
    }
}
