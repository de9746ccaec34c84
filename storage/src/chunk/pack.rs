//! Columns of integers, in blocks of 1,024: a prediction, and how far off it each value is, in as few bits as will do.
//!
//! ```text
//! block = mode 1 | width 1 | base signed | parameter signed, if any | exceptions, if any | what is off, `width` bits each
//!
//! mode  prediction of value i                              parameter
//!    0  base
//!    1  base + ⌊i × slope ÷ 65536⌋                         slope
//!    2  value i-1 + base; value 0 + base is the parameter  that
//! +128  exceptions: count unsigned, then for each index unsigned, what is off unsigned
//! ```
//!
//! What is off is never negative. All arithmetic is modulo 2^64, so that every sequence of integers comes back. An
//! exception is written in full where one value (a gap in time, a spike) would widen all.
//!
//! A full block of at most 32 bits is laid out for vector units ([`lanes`]). Any other must not cost a full one's bytes:
//! its bits stand one after the other, the lowest first, and are read eight or sixteen bytes at a time. Therefore
//! [`SLACK`] bytes, of whatever kind, stand behind every column.

use std::iter::repeat_n;

use super::bytes::{Reader, put_length, put_signed, put_unsigned};
use super::error::ChunkError;
use super::lanes;

/// Values of a block.
pub(super) const BLOCK: usize = 1024;

/// How many bytes stand behind a column at least.
pub(super) const SLACK: usize = 16;

/// Fewest bytes of a block.
const MIN_BLOCK: usize = 3;

const FRAME: u8 = 0;
const LINE: u8 = 1;
const DELTA: u8 = 2;
const EXCEPTIONS: u8 = 128;

/// About what a parameter costs, in bits.
const PARAMETER_BITS: usize = 24;

const DAMAGED: ChunkError = ChunkError::Damaged("a block is not of a form that is written");

/// Writes a column.
pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    for block in values.chunks(BLOCK) {
        encode_block(block, out);
    }
}

/// Writes one block of 1 to [`BLOCK`] values.
pub(super) fn encode_block(values: &[i64], out: &mut Vec<u8>) {
    let mut best = Fit::of(FRAME, values);
    for mode in [LINE, DELTA] {
        if best.bits > PARAMETER_BITS {
            let fit = Fit::of(mode, values);
            if fit.bits < best.bits {
                best = fit;
            }
        }
    }
    best.write(out);
}

/// One prediction of a block, and what it costs.
struct Fit {
    mode: u8,
    base: i64,
    parameter: i64,
    off: Vec<u64>,
    width: u32,
    bits: usize,
}

impl Fit {
    fn of(mode: u8, values: &[i64]) -> Self {
        let first = values.first().copied().unwrap_or_default();
        let mut parameter = 0;
        let off: Vec<i64> = match mode {
            LINE => {
                parameter = slope(values);
                let along = multiples(parameter);
                let both = values.iter().zip(along);
                both.map(|(value, along)| value.wrapping_sub(along))
                    .collect()
            }
            DELTA => values
                .windows(2)
                .map(|pair| pair[1].wrapping_sub(pair[0]))
                .collect(),
            _ => values.to_vec(),
        };
        let base = off.iter().copied().min().unwrap_or_default();
        let mut off: Vec<u64> = off
            .into_iter()
            .map(|off| off.wrapping_sub(base).cast_unsigned())
            .collect();
        if mode == DELTA {
            parameter = first.wrapping_sub(base);
            off.insert(0, 0);
        }
        let (width, bits) = cheapest_width(&off);
        let bits = bits + if mode == FRAME { 0 } else { PARAMETER_BITS };
        Self {
            mode,
            base,
            parameter,
            off,
            width,
            bits,
        }
    }

    fn write(mut self, out: &mut Vec<u8>) {
        let width = self.width;
        let too_wide = |off: &u64| off.checked_shr(width).unwrap_or(0) > 0;
        let count = self.off.iter().filter(|off| too_wide(off)).count();
        out.push(self.mode | if count > 0 { EXCEPTIONS } else { 0 });
        out.push(width.to_le_bytes()[0]);
        put_signed(out, self.base);
        if self.mode != FRAME {
            put_signed(out, self.parameter);
        }
        if count > 0 {
            put_length(out, count);
            for (index, off) in self.off.iter_mut().enumerate() {
                if too_wide(off) {
                    put_length(out, index);
                    put_unsigned(out, std::mem::take(off));
                }
            }
        }
        match <&[u64; BLOCK]>::try_from(self.off.as_slice()) {
            Ok(block) if width <= lanes::WIDEST => lanes::pack(width, block, out),
            _ => pack_tightly(width, &self.off, out),
        }
    }
}

/// The width that costs least, exceptions included, and what it costs in bits.
fn cheapest_width(off: &[u64]) -> (u32, usize) {
    let mut of_length = [0_usize; 65];
    for off in off {
        of_length[(64 - off.leading_zeros()) as usize] += 1;
    }
    // What is wider costs an index and, in the end, eight bits for seven.
    let costs_alone = |length: usize| 16 + length + length / 7;
    let mut exceptions: usize = of_length
        .iter()
        .enumerate()
        .map(|(length, count)| count * costs_alone(length))
        .sum();
    let costs = (0..).zip(of_length).map(|(width, count)| {
        exceptions -= count * costs_alone(width as usize);
        (width, off.len() * width as usize + exceptions)
    });
    costs.min_by_key(|(_, bits)| *bits).unwrap_or_default()
}

/// The slope of the line through the values (least squares), in 65536ths a value.
fn slope(values: &[i64]) -> i64 {
    let first = values.first().copied().unwrap_or_default();
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let (mut at, mut sum) = (-middle, 0.0);
    for value in values {
        sum += at * value.wrapping_sub(first) as f64;
        at += 1.0;
    }
    let slope = sum / (count * (count * count - 1.0) / 12.0) * 65536.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a slope that is none, or none that fits, only predicts badly"
    )]
    let slope = slope.round() as i64;
    slope
}

/// 0, slope, 2 × slope, … in 65536ths, rounded down.
fn multiples(slope: i64) -> impl Iterator<Item = i64> {
    let mut along = 0_i64;
    std::iter::repeat_with(move || {
        let here = along >> 16;
        along = along.wrapping_add(slope);
        here
    })
}

fn pack_tightly(width: u32, off: &[u64], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0_u128, 0);
    for off in off {
        bits |= u128::from(*off) << held;
        held += width;
        while held >= 8 {
            out.push(bits.to_le_bytes()[0]);
            bits >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        out.push(bits.to_le_bytes()[0]);
    }
}

/// A value as the 64 bits that a block is of.
pub(super) trait Word: Copy {
    fn of(bits: i64) -> Self;
    fn bits(self) -> i64;
}

impl Word for i64 {
    fn of(bits: i64) -> Self {
        bits
    }

    fn bits(self) -> i64 {
        self
    }
}

impl Word for f64 {
    fn of(bits: i64) -> Self {
        Self::from_bits(bits.cast_unsigned())
    }

    fn bits(self) -> i64 {
        self.to_bits().cast_signed()
    }
}

/// A column on its way out.
pub(super) struct Column<'a> {
    reader: Reader<'a>,
    /// The column and all that stands behind it.
    bytes: &'a [u8],
    length: usize,
    left: usize,
}

impl<'a> Column<'a> {
    /// The first `length` of these bytes, as a column of `count` values.
    pub(super) fn new(bytes: &'a [u8], length: usize, count: usize) -> Result<Self, ChunkError> {
        let holds = |column: &&[u8]| {
            bytes.len() >= column.len() + SLACK
                // So that a count makes nobody reserve what the bytes cannot be.
                && column.len() >= count.div_ceil(BLOCK) * MIN_BLOCK
        };
        let column = bytes.get(..length).filter(holds);
        Ok(Self {
            reader: Reader::new(column.ok_or(DAMAGED)?),
            bytes,
            length,
            left: count,
        })
    }

    /// Appends the whole column.
    pub(super) fn decode<T: Word>(mut self, out: &mut Vec<T>) -> Result<(), ChunkError> {
        out.reserve(self.left);
        while self.left > 0 {
            self.block(out)?;
        }
        self.finish()
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn byte(&mut self) -> Result<u8, ChunkError> {
        self.reader.byte()
    }

    /// That the column ends where its last value does.
    pub(super) fn finish(self) -> Result<(), ChunkError> {
        if self.reader.rest().is_empty() {
            Ok(())
        } else {
            Err(DAMAGED)
        }
    }

    /// Appends the next block's values.
    pub(super) fn block<T: Word>(&mut self, out: &mut Vec<T>) -> Result<(), ChunkError> {
        let count = self.left.min(BLOCK);
        self.left -= count;
        let mode = self.reader.byte()?;
        let width = u32::from(self.reader.byte()?);
        if width > 64 {
            return Err(DAMAGED);
        }
        let base = self.reader.signed()?;
        let rule = match mode & !EXCEPTIONS {
            FRAME => Rule::Frame { base },
            LINE => Rule::Line {
                base,
                slope: self.reader.signed()?,
            },
            DELTA => Rule::Delta {
                base,
                before: self.reader.signed()?,
            },
            _ => return Err(DAMAGED),
        };
        let exceptions = if mode & EXCEPTIONS == 0 {
            Vec::new()
        } else {
            self.exceptions(count)?
        };
        let at = self.length - self.reader.rest().len();
        let packed = self.reader.take((count * width as usize).div_ceil(8))?;
        let with_slack = &self.bytes[at..at + packed.len() + SLACK];
        if !exceptions.is_empty() || width > NARROW {
            let mut off = unpack(width, packed, with_slack, count);
            for (index, exception) in exceptions {
                off[index] = exception;
            }
            rule.apply(off.into_iter(), out);
        } else if width == 0 {
            rule.apply(repeat_n(0, count), out);
        } else if count == BLOCK && width <= lanes::WIDEST {
            let mut off = [0; BLOCK];
            lanes::unpack(width, packed, &mut off);
            rule.apply(off.iter().map(|off| u64::from(*off)), out);
        } else if width <= 8 {
            rule.apply(small(width, with_slack, count), out);
        } else {
            rule.apply(narrow(width, with_slack, count), out);
        }
        Ok(())
    }

    fn exceptions(&mut self, count: usize) -> Result<Vec<(usize, u64)>, ChunkError> {
        let exceptions = self.reader.count(count)?;
        (0..exceptions)
            .map(|_| Ok((self.reader.count(count - 1)?, self.reader.unsigned()?)))
            .collect()
    }
}

/// How a block's values follow from what is off.
#[derive(Clone, Copy)]
enum Rule {
    Frame { base: i64 },
    Line { base: i64, slope: i64 },
    Delta { base: i64, before: i64 },
}

impl Rule {
    fn apply<T: Word>(self, off: impl Iterator<Item = u64>, out: &mut Vec<T>) {
        let off = off.map(u64::cast_signed);
        match self {
            Self::Frame { base } => out.extend(off.map(|off| T::of(base.wrapping_add(off)))),
            Self::Line { base, slope } => {
                let mut along = 0_i64;
                out.extend(off.map(|off| {
                    let value = base.wrapping_add(along >> 16).wrapping_add(off);
                    along = along.wrapping_add(slope);
                    T::of(value)
                }));
            }
            Self::Delta { base, mut before } => out.extend(off.map(|off| {
                before = before.wrapping_add(base).wrapping_add(off);
                T::of(before)
            })),
        }
    }
}

/// The widest value that is whole in the eight bytes where it begins.
const NARROW: u32 = 57;

/// Bits one after the other, of 1 to [`NARROW`] bits a value.
fn narrow(width: u32, bytes: &[u8], count: usize) -> impl Iterator<Item = u64> {
    let (mask, width) = (u64::MAX >> (64 - width), width as usize);
    (0..count).map(move |index| {
        let bit = index * width;
        let eight = bytes.get(bit / 8..).and_then(<[u8]>::first_chunk);
        (eight.map_or(0, |eight| u64::from_le_bytes(*eight)) >> (bit % 8)) & mask
    })
}

/// The same of 1 to 8 bits a value: eight values are as many bytes as one is bits, and are read at once.
fn small(width: u32, mut bytes: &[u8], count: usize) -> impl Iterator<Item = u64> {
    let (mask, mut eight) = (u64::MAX >> (64 - width), 0_u64);
    (0..count).map(move |index| {
        if index % 8 == 0 {
            eight = bytes
                .first_chunk()
                .map_or(0, |eight| u64::from_le_bytes(*eight));
            bytes = bytes.get(width as usize..).unwrap_or_default();
        }
        let value = eight & mask;
        eight >>= width;
        value
    })
}

/// The same of any width.
fn unpack(width: u32, packed: &[u8], with_slack: &[u8], count: usize) -> Vec<u64> {
    if width == 0 {
        vec![0; count]
    } else if count == BLOCK && width <= lanes::WIDEST {
        let mut off = [0; BLOCK];
        lanes::unpack(width, packed, &mut off);
        off.iter().map(|off| u64::from(*off)).collect()
    } else if width <= NARROW {
        narrow(width, with_slack, count).collect()
    } else {
        let (mask, width) = (u128::from(u64::MAX >> (64 - width)), width as usize);
        let wide = (0..count).map(|index| {
            let bit = index * width;
            let sixteen = with_slack.get(bit / 8..).and_then(<[u8]>::first_chunk);
            let bits = sixteen.map_or(0, |sixteen| u128::from_le_bytes(*sixteen));
            u64::try_from((bits >> (bit % 8)) & mask).unwrap_or_default()
        });
        wide.collect()
    }
}
