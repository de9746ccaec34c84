//! The table of signals: everything that is known about a code, as data.
//!
//! A code that is not in this table does not enter the store. Codes and units are LOINC and UCUM; the
//! FHIR R4 vital-signs profile makes the LOINC code mandatory even where an MDC code is sent too. Ranges
//! are engineering defaults for adults, not clinical limits.

/// One kind of measured value.
#[derive(Debug, PartialEq)]
pub struct Signal {
    /// LOINC code, which is also the name of the signal on the wire and in SQL.
    ///
    /// One row, the pulse waveform, carries its MDC code instead: no LOINC code for it is verified.
    pub code: &'static str,
    /// Its number in stored chunks, 0 to 62 (so that a set of signals is a 64-bit integer). Given once, never to
    /// another signal, whatever becomes of this one.
    pub number: u16,
    /// What a person reads: the LOINC display name, or the MDC reference id's meaning.
    pub display: &'static str,
    /// UCUM unit of every stored value of this signal.
    pub unit: &'static str,
    /// IEEE 11073-10101 code, `partition × 65536 + term`; `None` where none is verified. Codes that name the
    /// method too (respiratory rate by impedance, 151578, or by CO2, 151594) are not kept apart.
    pub mdc: Option<u32>,
    /// A further LOINC code that the same value bears whenever it is sent on (a FHIR Observation has both as
    /// codings). It is stored once, under `code`.
    pub also: Option<&'static str>,
    /// Lowest and highest value that can be true. Outside: the message is quarantined, never dropped.
    pub hard: (f64, f64),
    /// Lowest and highest value that raises no doubt. Outside: stored, and flagged.
    pub flag: (f64, f64),
}

/// Milligrams of glucose in a decilitre for one millimole in a litre.
pub(crate) const GLUCOSE_MG_DL_PER_MMOL_L: f64 = 18.016;

/// The pulse waveform: the light that a pulse oximeter sees, in counts of its converter.
///
/// Its `code` is `MDC_PULS_OXIM_PLETH` (150452) because no LOINC code is verified for it. Counts have no
/// unit, so UCUM's annotation `{counts}` stands for one; the range is that of a 16-bit converter.
pub const PULSE_WAVEFORM: &str = "150452";

/// Retired drafts of a code and the code that replaced it: accepted on input, never written.
///
/// 14745-4 is glucose in *body fluid*; drafts of the HL7 CGM guide used it for interstitial fluid.
const REPLACED: [(&str, &str); 1] = [("14745-4", "105272-9")];

macro_rules! signals {
    ($($number:literal $code:literal $display:literal $unit:literal $mdc:expr, $hard:expr, $flag:expr $(, also $also:literal)?;)*) => {
        &[$(Signal {
            code: $code,
            number: $number,
            display: $display,
            unit: $unit,
            mdc: $mdc,
            also: signals!(@also $($also)?),
            hard: $hard,
            flag: $flag,
        }),*]
    };
    (@also) => { None };
    (@also $also:literal) => { Some($also) };
}

/// Number, code, display, unit, MDC code, hard range, flag range. Frequent signals first: look-up is a scan.
///
/// A blood pressure [panel](crate::panel) has no value of its own, so it is not here. Nor is insulin: no LOINC code
/// for a dose is verified, and FHIR has it as the dose of a `MedicationAdministration`, not as an Observation.
static SIGNALS: &[Signal] = signals! {
    0  "8867-4"   "Heart rate" "/min" Some(147_842), (0.0, 350.0), (30.0, 220.0);
    1  "59408-5"  "Oxygen saturation in Arterial blood by Pulse oximetry" "%" Some(150_456), (0.0, 100.0), (70.0, 100.0),
        also "2708-6";
    2  "9279-1"   "Respiratory rate" "/min" Some(151_562), (0.0, 120.0), (5.0, 60.0);
    3  "8310-5"   "Body temperature" "Cel" Some(150_364), (10.0, 50.0), (30.0, 43.0);
    4  "8480-6"   "Systolic blood pressure" "mm[Hg]" Some(150_021), (0.0, 350.0), (50.0, 260.0);
    5  "8462-4"   "Diastolic blood pressure" "mm[Hg]" Some(150_022), (0.0, 250.0), (20.0, 160.0);
    6  "8478-0"   "Mean blood pressure" "mm[Hg]" Some(150_023), (0.0, 300.0), (30.0, 200.0);
    7  "150452"   "Pulse waveform by Pulse oximetry" "{counts}" Some(150_452), (0.0, 65_535.0), (0.0, 65_535.0);
    8  "76282-3"  "Heart rate.beat-to-beat by EKG" "/min" Some(147_842), (0.0, 350.0), (30.0, 220.0);
    9  "8889-8"   "Heart rate by Pulse oximetry" "/min" Some(149_530), (0.0, 350.0), (30.0, 220.0);
    10 "2708-6"   "Oxygen saturation in Arterial blood" "%" Some(150_456), (0.0, 100.0), (70.0, 100.0);
    11 "19891-1"  "Carbon dioxide partial pressure, end expiration" "mm[Hg]" Some(151_708), (0.0, 200.0), (10.0, 100.0);
    12 "29463-7"  "Body weight" "kg" Some(188_736), (0.2, 650.0), (20.0, 300.0);
    13 "8302-2"   "Body height" "cm" Some(188_740), (15.0, 280.0), (50.0, 230.0);
    14 "39156-5"  "Body mass index" "kg/m2" Some(188_752), (5.0, 200.0), (10.0, 80.0);
    15 "2339-0"   "Glucose [Mass/volume] in Blood" "mg/dL" Some(160_184), (0.0, 2000.0), (40.0, 500.0);
    16 "15074-8"  "Glucose [Moles/volume] in Blood" "mmol/L" Some(160_184),
        (0.0, 2000.0 / GLUCOSE_MG_DL_PER_MMOL_L), (40.0 / GLUCOSE_MG_DL_PER_MMOL_L, 500.0 / GLUCOSE_MG_DL_PER_MMOL_L);
    17 "99504-3"  "Glucose [Mass/volume] in Interstitial fluid" "mg/dL" Some(160_212), (0.0, 1000.0), (40.0, 400.0);
    18 "105272-9" "Glucose [Moles/volume] in Interstitial fluid" "mmol/L" Some(160_212),
        (0.0, 1000.0 / GLUCOSE_MG_DL_PER_MMOL_L), (40.0 / GLUCOSE_MG_DL_PER_MMOL_L, 400.0 / GLUCOSE_MG_DL_PER_MMOL_L);
    // The hard limit of steps is only there to refuse nonsense: ten times the flag of a whole day.
    19 "55423-8"  "Number of steps in unspecified time" "{steps}" None, (0.0, 1_000_000.0), (0.0, 100_000.0);
    20 "41950-7"  "Number of steps in 24 hours" "{steps}" None, (0.0, 1_000_000.0), (0.0, 100_000.0);
};

/// The signal of a code, or `None` for a code that is not in the table.
///
/// A code that a draft used and a standard replaced finds its replacement.
#[must_use]
pub fn signal(code: &str) -> Option<&'static Signal> {
    find(code).or_else(|| {
        let (_, current) = REPLACED.iter().find(|(replaced, _)| *replaced == code)?;
        find(current)
    })
}

/// The signal of a number in a stored chunk, or `None` for a number that was never given.
#[must_use]
pub fn signal_of_number(number: u16) -> Option<&'static Signal> {
    SIGNALS.iter().find(|signal| signal.number == number)
}

/// The whole table.
#[must_use]
pub fn signals() -> &'static [Signal] {
    SIGNALS
}

fn find(code: &str) -> Option<&'static Signal> {
    SIGNALS.iter().find(|signal| signal.code == code)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_is_consistent() {
        let codes: HashSet<_> = signals().iter().map(|signal| signal.code).collect();
        assert_eq!(codes.len(), signals().len(), "a code appears twice");
        for signal in signals() {
            let code = signal.code;
            assert!(
                signal.hard.0 <= signal.flag.0 && signal.flag.1 <= signal.hard.1,
                "{code}"
            );
            assert!(
                signal.hard.0 < signal.hard.1 && signal.flag.0 < signal.flag.1,
                "{code}"
            );
            assert!(
                !signal.unit.is_empty() && !signal.display.is_empty(),
                "{code}"
            );
            assert!(signal.number < 63, "{code}: no place in a set of 64 bits");
            assert_eq!(signal_of_number(signal.number), Some(signal), "{code}");
            // One value, two names: whatever holds for one must hold for the other.
            if let Some(also) = signal.also.map(|also| find(also).unwrap()) {
                assert_eq!(
                    (also.unit, also.mdc, also.also),
                    (signal.unit, signal.mdc, None)
                );
                assert_eq!((also.hard, also.flag), (signal.hard, signal.flag));
            }
        }
    }

    /// LOINC's last digit is a Luhn (mod 10) check digit, so that a typing error in this table shows.
    #[test]
    fn every_loinc_code_has_its_check_digit() {
        for code in signals()
            .iter()
            .map(|signal| signal.code)
            .chain(["14745-4"])
        {
            let Some((digits, check)) = code.split_once('-') else {
                assert_eq!(code, PULSE_WAVEFORM);
                continue;
            };
            let sum: u32 = digits
                .chars()
                .rev()
                .enumerate()
                .map(|(place, digit)| {
                    let doubled = digit.to_digit(10).unwrap() * if place % 2 == 0 { 2 } else { 1 };
                    doubled / 10 + doubled % 10
                })
                .sum();
            assert_eq!(check, ((10 - sum % 10) % 10).to_string(), "{code}");
        }
    }

    #[test]
    fn a_replaced_code_finds_its_replacement() {
        assert_eq!(
            signal("14745-4").map(|signal| signal.code),
            Some("105272-9")
        );
        assert_eq!(signal("0000-0"), None);
    }
}
