//! Columns of instants: how many of the largest unit that fits all have passed since the first.
//!
//! ```text
//! column = unit 1 | blocks of (instant − first) ÷ unit
//! unit     00  1 µs     01  1 ms     02  1 s
//! ```
//!
//! Clocks of devices count whole milliseconds or seconds more often than not, and what is sampled at a steady rate lies
//! on a line: then an instant costs a fraction of a bit.

use super::error::ChunkError;
use super::pack::{self, Column};

const UNITS_US: [i64; 3] = [1, 1_000, 1_000_000];

/// Writes a column of instants, the first of them `first_us`.
pub(super) fn encode(times: &[i64], first_us: i64, out: &mut Vec<u8>) {
    let since = |time: &i64| time.wrapping_sub(first_us);
    let fits = |unit: i64| times.iter().all(|time| since(time) % unit == 0);
    let (unit, us) = match UNITS_US {
        [.., s] if fits(s) => (2, s),
        [_, ms, _] if fits(ms) => (1, ms),
        [us, ..] => (0, us),
    };
    out.push(unit);
    let passed: Vec<i64> = times.iter().map(|time| since(time) / us).collect();
    pack::encode(&passed, out);
}

/// Appends a column of instants, µs since the Unix epoch.
pub(super) fn decode(
    mut column: Column<'_>,
    first_us: i64,
    out: &mut Vec<i64>,
) -> Result<(), ChunkError> {
    let unit = UNITS_US.get(usize::from(column.byte()?));
    let unit = *unit.ok_or(ChunkError::Damaged(
        "instants have a unit that is not written",
    ))?;
    let start = out.len();
    column.decode(out)?;
    let passed = &mut out[start..];
    // Apart, so that each is a multiplication by a constant.
    match unit {
        1 => passed
            .iter_mut()
            .for_each(|at| *at = at.wrapping_add(first_us)),
        1_000 => passed
            .iter_mut()
            .for_each(|at| *at = at.wrapping_mul(1_000).wrapping_add(first_us)),
        _ => passed
            .iter_mut()
            .for_each(|at| *at = at.wrapping_mul(1_000_000).wrapping_add(first_us)),
    }
    Ok(())
}
