//! The plaintext of a chunk's `evidence` column: the at-rest envelopes that its readings came in, bit for bit, and what the
//! rows of messages said beside them, so that no patient's key is needed to say it again.
//!
//! ```text
//! evidence = 01 | envelopes unsigned | bytes unsigned | compressed unsigned | Zstandard frame (RFC 8878) | zero bytes
//!
//! decompressed  for each envelope, in the order of message indexes:
//!               received_at µs signed | first_at µs, less received_at, signed | last_at, less first_at, signed
//!               | readings unsigned | length unsigned | the envelope
//! ```
//!
//! The readings of the chunk name it by the SHA-256 of what is decompressed (`head.rs`).
//!
//! Envelopes are ciphertext, so what compresses is what they repeat: device, pseudonym, certificate, key identifiers.

use std::io::Read;
use std::ops::Range;

use vitalseal_crypto::default_backend;

use super::bytes::{Reader, put_length, put_signed, put_unsigned};
use super::error::{ChunkError, MAX_MESSAGES};
use super::head::Digest;
use super::pad;

const VERSION: u8 = 1;

/// Zstandard's level: what is mostly ciphertext becomes no smaller with a higher one, and takes 2 to 10 times as long.
const LEVEL: i32 = 1;

/// The most that evidence may hold: what a damaged chunk can make its reader allocate.
pub const MAX_EVIDENCE_BYTES: usize = 1 << 30;

/// What the server noted of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// When the server took it, µs since the Unix epoch.
    pub received_at_us: i64,
    /// Earliest instant measured, µs since the Unix epoch.
    pub first_at_us: i64,
    /// Latest instant measured, µs since the Unix epoch.
    pub last_at_us: i64,
    /// How many readings, or samples, are inside.
    pub readings: u32,
}

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

    /// Adds the next message.
    pub fn push(&mut self, noted: &Noted, envelope: &[u8]) {
        self.envelopes += 1;
        put_signed(&mut self.bytes, noted.received_at_us);
        for (instant, before) in [
            (noted.first_at_us, noted.received_at_us),
            (noted.last_at_us, noted.first_at_us),
        ] {
            put_signed(&mut self.bytes, instant.wrapping_sub(before));
        }
        put_unsigned(&mut self.bytes, noted.readings.into());
        put_length(&mut self.bytes, envelope.len());
        self.bytes.extend(envelope);
    }

    /// What [`Evidence::digest`] will be.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.bytes)
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
    /// What was noted of each message, and where its envelope is.
    messages: Vec<(Noted, Range<usize>)>,
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
        let mut messages = Vec::new();
        for _ in 0..count {
            let received_at_us = reader.signed()?;
            let first_at_us = received_at_us.wrapping_add(reader.signed()?);
            let last_at_us = first_at_us.wrapping_add(reader.signed()?);
            let readings = u32::try_from(reader.unsigned()?);
            let noted = Noted {
                received_at_us,
                first_at_us,
                last_at_us,
                readings: readings.map_err(|_| ChunkError::TooMany)?,
            };
            let length = reader.count(bytes.len())?;
            reader.take(length)?;
            let end = bytes.len() - reader.rest().len();
            messages.push((noted, end - length..end));
        }
        if !reader.rest().is_empty() {
            return Err(ChunkError::Damaged(
                "something stands behind the last envelope",
            ));
        }
        Ok(Self { bytes, messages })
    }

    /// SHA-256 of all that was decompressed: the chunk's readings name it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.bytes)
    }

    /// How many envelopes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// The envelopes, in the order of message indexes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.messages().map(|(_, envelope)| envelope)
    }

    /// The same with what was noted of each message.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = (&Noted, &[u8])> {
        let messages = self.messages.iter();
        messages.map(|(noted, envelope)| (noted, &self.bytes[envelope.clone()]))
    }
}

/// The bytes say themselves where each part of them ends, so that no other evidence has the same.
fn digest(bytes: &[u8]) -> Digest {
    default_backend().sha256(&[bytes])
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
