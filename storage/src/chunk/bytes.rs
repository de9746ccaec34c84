//! The small parts of a chunk: integers of variable length, floats, and lengths that never lie.
//!
//! ```text
//! unsigned  LEB128: seven bits a byte, the lowest first, the top bit set on every byte but the last; at most ten
//! signed    zigzag (0, -1, 1, -2, …), then as unsigned
//! float     00..=09 and a signed integer m: m ÷ 10^that   |   ff and the 8 bytes of an IEEE 754 double, little-endian
//! ```

use super::error::ChunkError;
use super::values;

/// Begins a float that is no short decimal.
const BITS: u8 = 0xff;

pub(super) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    put_unsigned(out, length as u64);
}

pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(super) fn put_float(out: &mut Vec<u8>, value: f64) {
    if let Some((scale, scaled)) = values::scaled(value) {
        out.push(scale);
        put_signed(out, scaled);
    } else {
        out.push(BITS);
        out.extend(value.to_le_bytes());
    }
}

/// Takes a chunk's bytes from the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not taken yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], ChunkError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ChunkError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ChunkError> {
        let (byte, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, ChunkError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ChunkError::Damaged("an integer has at most 64 bits"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, ChunkError> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    pub(super) fn float(&mut self) -> Result<f64, ChunkError> {
        match self.byte()? {
            BITS => Ok(f64::from_le_bytes(self.array()?)),
            scale => values::unscaled(scale, self.signed()?)
                .ok_or(ChunkError::Damaged("a float has at most nine decimals")),
        }
    }

    /// A count of things, of which there are at most `limit`.
    pub(super) fn count(&mut self, limit: usize) -> Result<usize, ChunkError> {
        usize::try_from(self.unsigned()?)
            .ok()
            .filter(|count| *count <= limit)
            .ok_or(ChunkError::Damaged("a count is larger than it can be"))
    }
}

const SHORT: ChunkError = ChunkError::Damaged("it ends too early");
