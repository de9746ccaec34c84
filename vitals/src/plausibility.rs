//! Which values cannot be true, and which are only doubtful.
//!
//! A value outside a signal's *hard* range did not come from a living person, so its whole message is
//! quarantined: a device that sends one such value is not to be trusted with its neighbours. A value
//! outside the *flag* range can be true, and may then be the most important one of the day, so it is
//! stored and marked.

use std::collections::HashMap;

use crate::panel::{DIASTOLIC, SYSTOLIC};
use crate::{Reading, Signal};

/// How far a stored reading is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quality {
    /// Inside the flag range.
    Ok,
    /// Outside the flag range, inside the hard one: possible, but to be looked at.
    Flagged,
}

impl Quality {
    /// The value of the SQL column `quality`: `ok` or `flagged`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Flagged => "flagged",
        }
    }
}

/// A value that cannot be true. Names the signal and the rule, never the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Implausible {
    /// The value lies outside the signal's hard range, or is not a number.
    #[error("a reading of {code} is outside the range that is possible")]
    OutOfRange {
        /// Code of the signal.
        code: &'static str,
    },
    /// Systolic and diastolic pressure of one instant contradict each other.
    #[error("a reading of {code} is not above the diastolic pressure of the same instant")]
    PressureOrder {
        /// Code of the signal.
        code: &'static str,
    },
}

impl Implausible {
    /// Code of the signal whose value cannot be true.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OutOfRange { code } | Self::PressureOrder { code } => code,
        }
    }
}

/// Refuses readings that cannot be true: each value against its hard range, and of a blood pressure that is
/// sent as two readings of one instant, the systolic value above the diastolic one.
///
/// # Errors
/// [`Implausible`] for the first reading that fails.
pub fn check_hard(readings: &[Reading]) -> Result<(), Implausible> {
    for reading in readings {
        let (low, high) = reading.signal.hard;
        // Not `value < low || value > high`: that would let NaN through.
        if !(low..=high).contains(&reading.value) {
            return Err(Implausible::OutOfRange {
                code: reading.signal.code,
            });
        }
    }
    check_pressures(readings)
}

fn check_pressures(readings: &[Reading]) -> Result<(), Implausible> {
    let mut diastolic = HashMap::new();
    for low in of(readings, DIASTOLIC) {
        // Of two for one instant the higher counts, or the second would hide the first.
        let highest = diastolic.entry(low.at).or_insert(low.value);
        *highest = low.value.max(*highest);
    }
    if diastolic.is_empty() {
        return Ok(());
    }
    for high in of(readings, SYSTOLIC) {
        if diastolic
            .get(&high.at)
            .is_some_and(|low| *low >= high.value)
        {
            return Err(Implausible::PressureOrder { code: SYSTOLIC });
        }
    }
    Ok(())
}

fn of<'a>(readings: &'a [Reading], code: &'a str) -> impl Iterator<Item = &'a Reading> {
    readings
        .iter()
        .filter(move |reading| reading.signal.code == code)
}

impl Signal {
    /// Whether a value of this signal lies inside its flag range.
    #[must_use]
    pub fn quality(&self, value: f64) -> Quality {
        let (low, high) = self.flag;
        if (low..=high).contains(&value) {
            Quality::Ok
        } else {
            Quality::Flagged
        }
    }
}

impl Reading {
    /// Whether the value lies inside the signal's flag range.
    #[must_use]
    pub fn quality(&self) -> Quality {
        self.signal.quality(self.value)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{signal, signals};

    fn reading(code: &str, value: f64, second: i64) -> Reading {
        Reading {
            signal: signal(code).unwrap(),
            value,
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn both_ends_of_every_range_belong_to_it() {
        for signal in signals() {
            let at = |value| reading(signal.code, value, 1_767_312_000);
            for edge in [signal.hard.0, signal.hard.1] {
                assert_eq!(check_hard(&[at(edge)]), Ok(()), "{}", signal.code);
            }
            for beyond in [
                signal.hard.0.next_down(),
                signal.hard.1.next_up(),
                f64::NAN,
                f64::INFINITY,
            ] {
                let refused = check_hard(&[at(signal.hard.0), at(beyond)]);
                assert_eq!(refused, Err(Implausible::OutOfRange { code: signal.code }));
            }
            assert_eq!(at(signal.flag.0).quality(), Quality::Ok);
            assert_eq!(at(signal.flag.1).quality(), Quality::Ok);
            assert_eq!(at(signal.flag.1.next_up()).quality(), Quality::Flagged);
        }
    }

    #[test]
    fn a_systolic_pressure_is_above_the_diastolic_one_of_the_same_instant() {
        let pair = |high, low, later| {
            [
                reading(SYSTOLIC, high, 300_000_000),
                reading(DIASTOLIC, low, later),
            ]
        };
        assert_eq!(check_hard(&pair(120.0, 80.0, 300_000_000)), Ok(()));
        assert_eq!(
            check_hard(&pair(80.0, 120.0, 300_000_001)),
            Ok(()),
            "two measurements"
        );
        for low in [80.0, 120.0] {
            let refused = check_hard(&pair(80.0, low, 300_000_000)).unwrap_err();
            assert_eq!(refused.code(), SYSTOLIC);
        }
        let hidden = [
            pair(120.0, 130.0, 300_000_000).as_slice(),
            &[reading(DIASTOLIC, 80.0, 300_000_000)],
        ]
        .concat();
        assert!(check_hard(&hidden).is_err(), "a second one hides nothing");
    }
}
