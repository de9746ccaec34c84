//! What the readings of a series amount to.

use vitalseal_vitals::{Quality, Signal};

/// What can be said of a series without decoding it.
#[derive(Clone, Copy, PartialEq)]
pub struct Stats {
    /// How many readings it has; at least one.
    pub count: usize,
    /// How many of them are [flagged](Quality::Flagged).
    pub flagged: usize,
    /// First instant, µs since the Unix epoch.
    pub first_us: i64,
    /// Last instant, µs since the Unix epoch.
    pub last_us: i64,
    /// Lowest value; of zeros the negative one, as Arrow orders them.
    pub min: f64,
    /// Highest value.
    pub max: f64,
    /// The values added up in the order of the series.
    pub sum: f64,
    /// Value of the last reading.
    pub last_value: f64,
}

impl Stats {
    pub(super) fn of(signal: &Signal, at_us: &[i64], values: &[f64]) -> Self {
        let flagged = |value: &&f64| signal.quality(**value) == Quality::Flagged;
        Self {
            count: values.len(),
            flagged: values.iter().filter(flagged).count(),
            first_us: at_us.first().copied().unwrap_or_default(),
            last_us: at_us.last().copied().unwrap_or_default(),
            min: values
                .iter()
                .copied()
                .min_by(f64::total_cmp)
                .unwrap_or_default(),
            max: values
                .iter()
                .copied()
                .max_by(f64::total_cmp)
                .unwrap_or_default(),
            sum: values.iter().sum(),
            last_value: values.last().copied().unwrap_or_default(),
        }
    }
}

super::quiet::quiet_debug! { Stats: count = |it: &Stats| it.count; }
