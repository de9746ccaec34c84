//! Buckets of time, and how wide a patient's are.
//!
//! A scan pays for each chunk, and a point query for each reading in one: at 10,000 readings a chunk costs little and
//! still is small. So a patient's buckets are the shortest that hold as many on average, of those that the level allows.

use std::collections::{BTreeSet, HashMap};

/// Shortest bucket, s.
pub(super) const QUARTER: u32 = 900;
/// Middle bucket, s.
pub(super) const HOUR: u32 = 3600;
/// Longest bucket, s.
pub(super) const DAY: u32 = 86_400;

/// Every length of a bucket, s.
pub(crate) const BUCKETS: [u32; 3] = [QUARTER, HOUR, DAY];

/// Readings that a chunk should have.
const ENOUGH: u64 = 10_000;

/// A bucket: where it begins, µs since the Unix epoch, and how long it is, s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bucket {
    pub(super) start_us: i64,
    pub(super) seconds: u32,
}

impl Bucket {
    /// The one of this length that an instant falls into; they are aligned to the Unix epoch.
    pub(super) fn around(at_us: i64, seconds: u32) -> Self {
        let length_us = length_us(seconds);
        Self {
            start_us: at_us.div_euclid(length_us).saturating_mul(length_us),
            seconds,
        }
    }
}

/// How wide the buckets of a level may become, s.
pub(super) const fn widest(level: u8) -> u32 {
    match level {
        0 | 1 => QUARTER,
        2 => HOUR,
        _ => DAY,
    }
}

/// What each patient brings, counted before anything is merged.
#[derive(Default)]
pub(super) struct Rates(HashMap<String, Rate>);

#[derive(Default)]
struct Rate {
    readings: u64,
    quarters: BTreeSet<i64>,
    /// No chunk is ever split.
    least: u32,
}

impl Rates {
    /// Counts a row that begins at this instant and came in a bucket of this length; a message has none, 0.
    pub(super) fn add(&mut self, subject: &str, start_us: i64, seconds: u32, readings: u64) {
        if !self.0.contains_key(subject) {
            self.0.insert(subject.to_owned(), Rate::default());
        }
        if let Some(rate) = self.0.get_mut(subject) {
            rate.readings = rate.readings.saturating_add(readings);
            rate.quarters
                .insert(start_us.div_euclid(length_us(QUARTER)));
            rate.least = rate.least.max(seconds);
        }
    }

    /// How wide this patient's buckets are on a level, s.
    pub(super) fn width(&self, subject: &str, level: u8) -> u32 {
        let widest = widest(level);
        let Some(rate) = self.0.get(subject) else {
            return widest;
        };
        let is_enough = |seconds: &u32| {
            let quarters = i64::from(seconds / QUARTER);
            let wide = |quarter: &i64| quarter.div_euclid(quarters);
            let occupied: BTreeSet<i64> = rate.quarters.iter().map(wide).collect();
            rate.readings >= ENOUGH.saturating_mul(occupied.len() as u64)
        };
        let allowed = BUCKETS.into_iter().filter(|s| *s <= widest);
        let enough = allowed.into_iter().find(is_enough).unwrap_or(widest);
        enough.max(rate.least)
    }
}

fn length_us(seconds: u32) -> i64 {
    i64::from(seconds.max(1)) * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_quarter: u64, quarters: i64) -> Rates {
        let mut rates = Rates::default();
        for quarter in 0..quarters {
            rates.add("p", quarter * length_us(QUARTER), QUARTER, per_quarter);
        }
        rates
    }

    #[test]
    fn a_patients_buckets_are_the_shortest_that_hold_enough_of_those_that_the_level_allows() {
        for (per_quarter, hour, day) in [
            (10_000, QUARTER, QUARTER),
            (9_999, HOUR, HOUR),
            (2_500, HOUR, HOUR),
            (2_499, HOUR, DAY),
            (1, HOUR, DAY),
        ] {
            let rates = rates(per_quarter, 96);
            assert_eq!(rates.width("p", 1), QUARTER);
            assert_eq!(rates.width("p", 2), hour, "{per_quarter}");
            assert_eq!(rates.width("p", 3), day, "{per_quarter}");
        }
    }

    #[test]
    fn empty_stretches_do_not_count_and_what_is_long_already_is_never_split() {
        // A busy quarter on each of two days: enough in each.
        let mut rates = Rates::default();
        for start in [0, i64::from(DAY)] {
            rates.add("p", start * 1_000_000, QUARTER, 10_000);
        }
        assert_eq!(rates.width("p", 3), QUARTER);
        rates.add("p", 0, HOUR, 10_000);
        assert_eq!(rates.width("p", 3), HOUR);
    }

    #[test]
    fn buckets_are_aligned_to_the_epoch_on_either_side_of_it() {
        let quarter = i64::from(QUARTER) * 1_000_000;
        for (at_us, start_us) in [
            (0, 0),
            (quarter - 1, 0),
            (quarter, quarter),
            (-1, -quarter),
            (-quarter, -quarter),
        ] {
            assert_eq!(Bucket::around(at_us, QUARTER).start_us, start_us, "{at_us}");
        }
    }
}
