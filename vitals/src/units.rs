//! Units on the wire that are not the stored one, and how they convert.
//!
//! A device may send the unit that its display shows. After decoding every value is in its signal's UCUM
//! unit. Nothing is guessed: a unit that is not listed for the stored unit is refused.

use crate::Signal;
use crate::signal::GLUCOSE_MG_DL_PER_MMOL_L;

/// `stored = (sent + shift) × scale`.
struct Conversion {
    sent: &'static str,
    stored: &'static str,
    shift: f64,
    scale: f64,
}

/// Pascals in a millimetre of mercury, as UCUM defines `mm[Hg]`.
const PA_PER_MM_HG: f64 = 133.322_387_415;

const fn scaled(sent: &'static str, stored: &'static str, scale: f64) -> Conversion {
    Conversion {
        sent,
        stored,
        shift: 0.0,
        scale,
    }
}

/// The left column is UCUM, or the name that the SenML unit registry (RFC 8428 §12.1) uses for the same thing.
static CONVERSIONS: &[Conversion] = &[
    scaled("beat/min", "/min", 1.0),
    scaled("1/min", "/min", 1.0),
    scaled("{beats}/min", "/min", 1.0),
    scaled("{breaths}/min", "/min", 1.0),
    scaled("/", "%", 100.0),
    Conversion {
        sent: "[degF]",
        stored: "Cel",
        shift: -32.0,
        scale: 5.0 / 9.0,
    },
    Conversion {
        sent: "K",
        stored: "Cel",
        shift: -273.15,
        scale: 1.0,
    },
    scaled("kPa", "mm[Hg]", 1000.0 / PA_PER_MM_HG),
    scaled("g", "kg", 0.001),
    scaled("[lb_av]", "kg", 0.453_592_37),
    scaled("m", "cm", 100.0),
    scaled("[in_i]", "cm", 2.54),
    // Only glucose is stored in these two, so the molar mass is glucose's.
    scaled("mmol/L", "mg/dL", GLUCOSE_MG_DL_PER_MMOL_L),
    scaled("mg/dL", "mmol/L", 1.0 / GLUCOSE_MG_DL_PER_MMOL_L),
    scaled("count", "{steps}", 1.0),
    scaled("count", "{counts}", 1.0),
];

/// The value in the signal's own unit; `None` for a unit that does not convert to it.
pub(crate) fn to_stored(signal: &Signal, unit: &str, value: f64) -> Option<f64> {
    if unit == signal.unit {
        return Some(value);
    }
    let conversion = CONVERSIONS
        .iter()
        .find(|entry| entry.sent == unit && entry.stored == signal.unit)?;
    Some((value + conversion.shift) * conversion.scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{signal, signals};

    #[test]
    fn known_pairs_convert() {
        for (code, unit, sent, stored) in [
            ("8310-5", "[degF]", 98.6, 37.0),
            ("8310-5", "K", 310.15, 37.0),
            ("59408-5", "/", 0.97, 97.0),
            ("8480-6", "kPa", 16.0, 120.0),
            ("29463-7", "[lb_av]", 154.3, 70.0),
            ("8302-2", "[in_i]", 70.0, 177.8),
            ("99504-3", "mmol/L", 5.5, 99.1),
            ("105272-9", "mg/dL", 99.1, 5.5),
            ("8867-4", "beat/min", 62.0, 62.0),
        ] {
            let converted = to_stored(signal(code).unwrap(), unit, sent).unwrap();
            assert!((converted - stored).abs() < 0.05, "{code} {unit}");
        }
    }

    #[test]
    fn glucose_in_either_unit_is_the_same_glucose() {
        let (mass, moles) = (signal("99504-3").unwrap(), signal("105272-9").unwrap());
        assert_eq!(to_stored(mass, moles.unit, 1.0), Some(18.016));
        for tenths in 0..=600 {
            let sent = f64::from(tenths) / 10.0;
            let there = to_stored(mass, moles.unit, sent).unwrap();
            let back = to_stored(moles, mass.unit, there).unwrap();
            assert!((back - sent).abs() < 1e-12, "{sent} mmol/L");
        }
    }

    #[test]
    fn glucose_alone_is_stored_in_the_units_that_its_molar_mass_converts() {
        for signal in signals()
            .iter()
            .filter(|signal| matches!(signal.unit, "mg/dL" | "mmol/L"))
        {
            assert!(signal.display.starts_with("Glucose"), "{}", signal.code);
        }
    }

    #[test]
    fn a_foreign_unit_is_refused() {
        let temperature = signal("8310-5").unwrap();
        for unit in ["", "cel", "°C", "/min", "mm[Hg]"] {
            assert_eq!(to_stored(temperature, unit, 37.0), None);
        }
    }
}
