//! Columns of measured values: decimal numbers, as devices show them, are integers and a scale.
//!
//! ```text
//! column = for each 1,024 values: scale 1 | block
//! scale    00..=09  value = integer ÷ 10^scale
//!              ff   the bits of an IEEE 754 double, as an integer of the same order
//! ```
//!
//! Every value comes back bit for bit: a scale is taken only if all values of its block do. A quotient of two exact
//! doubles is the double nearest to the decimal, which is what a device's decoder made of it.

use super::error::ChunkError;
use super::pack::{BLOCK, Column, Word, encode_block};

const BITS: u8 = 0xff;

const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// 1.5 × 2^52. Added to an integer within ±2^51 it leaves that in the lowest bits, and vector units have no other way
/// from 64-bit integers to doubles and back.
const SHIFT: f64 = 6_755_399_441_055_744.0;

/// Writes a column.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    for block in values.chunks(BLOCK) {
        if let Some((scale, integers)) = scaled_block(block) {
            out.push(scale);
            encode_block(&integers, out);
        } else {
            out.push(BITS);
            let ordered: Vec<i64> = block.iter().map(|value| ordered(value.bits())).collect();
            encode_block(&ordered, out);
        }
    }
}

/// Appends a column.
pub(super) fn decode(mut column: Column<'_>, out: &mut Vec<f64>) -> Result<(), ChunkError> {
    out.reserve(column.left());
    while column.left() > 0 {
        let scale = column.byte()?;
        let start = out.len();
        column.block(out)?;
        let block = &mut out[start..];
        match (scale, POWERS.get(usize::from(scale))) {
            (0, _) => block
                .iter_mut()
                .for_each(|value| *value = float(value.bits())),
            (_, Some(power)) => block
                .iter_mut()
                .for_each(|value| *value = float(value.bits()) / power),
            (BITS, None) => block
                .iter_mut()
                .for_each(|value| *value = f64::of(ordered(value.bits()))),
            _ => {
                return Err(ChunkError::Damaged(
                    "a block has a scale that is not written",
                ));
            }
        }
    }
    column.finish()
}

/// A value as the integer of the smallest scale that it is exact in.
pub(super) fn scaled(value: f64) -> Option<(u8, i64)> {
    let (scale, integers) = scaled_block(&[value])?;
    Some((scale, *integers.first()?))
}

/// The value that [`scaled`] found; `None` for a scale that it never finds.
pub(super) fn unscaled(scale: u8, integer: i64) -> Option<f64> {
    POWERS
        .get(usize::from(scale))
        .map(|power| float(integer) / power)
}

/// The values as integers of the smallest scale that all are exact in.
fn scaled_block(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let exact = |value: f64, power: f64| {
        let integer = integer(value * power);
        (float(integer) / power).bits() == value.bits()
    };
    // What is exact in one scale is so in the next: the quotient is of the same two numbers.
    let mut scales = (0..).zip(POWERS);
    let (mut scale, mut power) = scales.next()?;
    for value in values {
        while !exact(*value, power) {
            (scale, power) = scales.next()?;
        }
    }
    let integers = values.iter().map(|value| integer(value * power)).collect();
    // Unless ten times it has no room any more.
    let all = values.iter().all(|value| exact(*value, power));
    all.then_some((scale, integers))
}

fn integer(value: f64) -> i64 {
    (value + SHIFT).bits().wrapping_sub(SHIFT.bits())
}

fn float(integer: i64) -> f64 {
    f64::of(integer.wrapping_add(SHIFT.bits())) - SHIFT
}

/// Bits of a double as an integer that is larger where the double is, and back.
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}
