//! The domain: which vital signs exist, what one measured value is, how values travel, and which values
//! cannot be true.
//!
//! - [`signal`](mod@signal): the table of signals with LOINC code, UCUM unit, IEEE 11073 (MDC) code and ranges.
//! - [`Reading`]: one value of one signal at one instant.
//! - [`panel`]: blood pressure, one measurement that is two or three readings.
//! - [`senml`] and [`waveform`]: the two payload codecs of an envelope. Both decode to readings.
//! - [`check_hard`] and [`Quality`]: impossible values are refused, doubtful ones are kept and flagged.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no key. No error, `Debug` output or panic
//! message of this crate ever contains a measured value.
//!
//! ```
//! use vitalseal_vitals::{Reading, Quality, senml, signal};
//!
//! let reading = Reading {
//!     signal: signal("8867-4").ok_or("heart rate is in the table")?,
//!     value: 62.0,
//!     at: "2026-01-02T00:00:00Z".parse()?,
//! };
//! let payload = senml::encode(&[reading]);
//! assert_eq!(senml::decode(&payload)?, [reading]);
//! assert_eq!(reading.quality(), Quality::Ok);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cbor;
mod decode_error;
pub mod panel;
mod plausibility;
mod reading;
pub mod senml;
pub mod signal;
mod units;
pub mod waveform;

pub use decode_error::DecodeError;
pub use panel::{BloodPressure, blood_pressure};
pub use plausibility::{Implausible, Quality, check_hard};
pub use reading::{MAX_READINGS, Reading};
pub use signal::{Signal, signal, signal_of_number, signals};
pub use waveform::{Period, Waveform, WaveformError};
