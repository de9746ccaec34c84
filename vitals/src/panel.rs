//! Blood pressure: one measurement that is two or three readings.
//!
//! LOINC's panel 85354-9 has no value of its own, and FHIR R4 writes it as an Observation without a value whose
//! components have them. In SenML, which has one value a record and links records by their time (RFC 8428 §4.5.4),
//! a panel is its components at one instant. Their names may be bare codes, or have the panel in front, which a base
//! name writes once:
//!
//! ```text
//! [ { bn: "85354-9/", bt: 1767312000, bu: "mm[Hg]", n: "8480-6", v: 120 },
//!   { n: "8462-4", v: 80 }, { n: "8478-0", v: 93 } ]
//! ```
//!
//! Either way the store holds three readings, each under its own code, and the instant joins them again. That the
//! systolic value is the higher one is checked with what else cannot be true, by [`check_hard`](crate::check_hard).

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::{Reading, Signal, signal};

/// LOINC code of the panel, "Blood pressure panel with all children optional".
pub const BLOOD_PRESSURE: &str = "85354-9";

/// IEEE 11073-10101 code of the panel, `MDC_PRESS_BLD_NONINV`.
pub const BLOOD_PRESSURE_MDC: u32 = 150_020;

pub(crate) const SYSTOLIC: &str = "8480-6";
pub(crate) const DIASTOLIC: &str = "8462-4";
const MEAN: &str = "8478-0";

/// The pressures of one instant, in mm\[Hg\].
///
/// `Debug` shows the instant alone, as for a [`Reading`].
#[derive(Clone, Copy, PartialEq)]
pub struct BloodPressure {
    /// When it was measured.
    pub at: Timestamp,
    /// LOINC 8480-6.
    pub systolic: f64,
    /// LOINC 8462-4.
    pub diastolic: f64,
    /// LOINC 8478-0, where the device says it.
    pub mean: Option<f64>,
}

impl fmt::Debug for BloodPressure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BloodPressure")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// The panels among readings of one patient, in the order of time: every instant that has both a systolic and a
/// diastolic value. Of two values of one kind at one instant the first counts.
#[must_use]
pub fn blood_pressure(readings: &[Reading]) -> Vec<BloodPressure> {
    let mut instants: BTreeMap<Timestamp, [Option<f64>; 3]> = BTreeMap::new();
    for reading in readings {
        let component = [SYSTOLIC, DIASTOLIC, MEAN]
            .iter()
            .position(|code| *code == reading.signal.code);
        if let Some(component) = component {
            instants.entry(reading.at).or_default()[component].get_or_insert(reading.value);
        }
    }
    instants
        .into_iter()
        .filter_map(|(at, [systolic, diastolic, mean])| {
            Some(BloodPressure {
                at,
                systolic: systolic?,
                diastolic: diastolic?,
                mean,
            })
        })
        .collect()
}

/// The signal that a name like `85354-9/8480-6` stands for; `None` unless it is a component of the panel.
pub(crate) fn component(name: &str) -> Option<&'static Signal> {
    let code = name.strip_prefix(BLOOD_PRESSURE)?.strip_prefix('/')?;
    [SYSTOLIC, DIASTOLIC, MEAN]
        .contains(&code)
        .then(|| signal(code))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(code: &str, value: f64, second: i64) -> Reading {
        Reading {
            signal: signal(code).unwrap(),
            value,
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn components_of_one_instant_make_a_panel_in_any_order() {
        let readings = [
            reading(MEAN, 90.0, 300_000_020),
            reading(DIASTOLIC, 81.0, 300_000_020),
            reading("8867-4", 62.0, 300_000_010),
            reading(SYSTOLIC, 121.0, 300_000_020),
            reading(SYSTOLIC, 120.0, 300_000_010),
            reading(DIASTOLIC, 80.0, 300_000_010),
            reading(SYSTOLIC, 119.0, 300_000_010),
            reading(SYSTOLIC, 122.0, 300_000_030),
            reading(MEAN, 91.0, 300_000_030),
        ];
        let found: Vec<_> = blood_pressure(&readings)
            .into_iter()
            .map(|panel| {
                (
                    panel.at.as_second(),
                    panel.systolic,
                    panel.diastolic,
                    panel.mean,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (300_000_010, 120.0, 80.0, None),
                (300_000_020, 121.0, 81.0, Some(90.0)),
            ],
            "an instant without a diastolic value is no panel"
        );
    }

    #[test]
    fn only_the_panels_own_components_may_have_its_name_in_front() {
        assert_eq!(component("85354-9/8480-6"), signal(SYSTOLIC));
        for name in [
            "85354-9",
            "85354-9/",
            "85354-9/8867-4",
            "85354-98480-6",
            "8480-6",
        ] {
            assert_eq!(component(name), None, "{name}");
        }
    }

    #[test]
    fn debug_is_silent_about_the_values() {
        let readings = [
            reading(SYSTOLIC, 121.5, 300_000_000),
            reading(DIASTOLIC, 81.5, 300_000_000),
        ];
        let shown = format!("{:?}", blood_pressure(&readings));
        assert_eq!(shown, "[BloodPressure { at: 1979-07-05T05:20:00Z, .. }]");
    }
}
