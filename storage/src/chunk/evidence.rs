//! The plaintext of a chunk's `evidence` column: the at-rest envelopes that its readings came in, bit for bit.
//!
//! ```text
//! evidence = 01 | envelopes unsigned | bytes unsigned | compressed unsigned | Zstandard frame (RFC 8878) | zero bytes
//!
//! decompressed  for each envelope, in the order of message indexes: length unsigned, the envelope
//! ```
//!
//! Envelopes are ciphertext, so what compresses is what they repeat: device, pseudonym, certificate, key identifiers.

use std::io::Read;

use super::bytes::{Reader, put_length};
use super::error::{ChunkError, MAX_MESSAGES};
use super::pad;

const VERSION: u8 = 1;

/// Zstandard's level: three is its own default, and higher ones gain nothing on what is mostly ciphertext.
const LEVEL: i32 = 3;

/// The most that evidence may hold: what a damaged chunk can make its reader allocate.
pub const MAX_EVIDENCE_BYTES: usize = 1 << 30;

/// Collects the envelopes of one chunk.
#[derive(Debug, Default)]
pub struct EvidenceBuilder {
    envelopes: usize,
    bytes: Vec<u8>,
}

impl EvidenceBuilder {
    /// Evidence of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the envelope of the next message.
    pub fn push(&mut self, envelope: &[u8]) {
        self.envelopes += 1;
        put_length(&mut self.bytes, envelope.len());
        self.bytes.extend(envelope);
    }

    /// The chunk's plaintext, as long as its size class.
    ///
    /// # Errors
    /// [`ChunkError::TooMany`] for more than one chunk may hold.
    pub fn finish(self) -> Result<Vec<u8>, ChunkError> {
        if self.envelopes > MAX_MESSAGES || self.bytes.len() > MAX_EVIDENCE_BYTES {
            return Err(ChunkError::TooMany);
        }
        let compressed = zstd::bulk::compress(&self.bytes, LEVEL);
        let compressed = compressed.map_err(|_| ChunkError::Damaged("it cannot be compressed"))?;
        let mut out = vec![VERSION];
        for length in [self.envelopes, self.bytes.len(), compressed.len()] {
            put_length(&mut out, length);
        }
        out.extend(compressed);
        pad::pad(&mut out);
        Ok(out)
    }
}

/// The envelopes of one chunk.
#[derive(Debug)]
pub struct Evidence {
    bytes: Vec<u8>,
    /// Where each envelope ends, and its length.
    envelopes: Vec<(usize, usize)>,
}

impl Evidence {
    /// Takes the plaintext of a chunk's evidence.
    ///
    /// # Errors
    /// [`ChunkError::Version`] or [`ChunkError::Damaged`].
    pub fn parse(plain: &[u8]) -> Result<Self, ChunkError> {
        let mut reader = Reader::new(plain);
        if reader.byte()? != VERSION {
            return Err(ChunkError::Version);
        }
        let count = reader.count(MAX_MESSAGES)?;
        let length = reader.count(MAX_EVIDENCE_BYTES)?;
        let compressed = reader.count(plain.len())?;
        let compressed = reader.take(compressed)?;
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(ChunkError::Damaged("it does not end in zero bytes"));
        }
        let bytes = decompressed(compressed, length)?;
        let mut reader = Reader::new(&bytes);
        let mut envelopes = Vec::new();
        for _ in 0..count {
            let length = reader.count(bytes.len())?;
            reader.take(length)?;
            envelopes.push((bytes.len() - reader.rest().len(), length));
        }
        if !reader.rest().is_empty() {
            return Err(ChunkError::Damaged(
                "something stands behind the last envelope",
            ));
        }
        Ok(Self { bytes, envelopes })
    }

    /// How many envelopes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.envelopes.len()
    }

    /// The envelopes, in the order of message indexes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let envelope = |(end, length): &(usize, usize)| &self.bytes[end - length..*end];
        self.envelopes.iter().map(envelope)
    }
}

/// Decompresses to exactly `length` bytes, which are allocated as they come.
fn decompressed(compressed: &[u8], length: usize) -> Result<Vec<u8>, ChunkError> {
    const DAMAGED: ChunkError =
        ChunkError::Damaged("its compressed part is not as long as it says");
    let decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(|_| DAMAGED)?;
    let mut bytes = Vec::new();
    let limit = length as u64 + 1;
    let read = decoder.take(limit).read_to_end(&mut bytes);
    match read {
        Ok(read) if read == length => Ok(bytes),
        _ => Err(DAMAGED),
    }
}
