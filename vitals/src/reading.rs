//! One measured value.

use std::fmt;

use jiff::Timestamp;

use crate::Signal;

/// The most readings that one message may carry, whichever codec it uses.
///
/// Ten thousand are 80 s of a 125 Hz waveform, or half an hour of five signals at 1 Hz. The bound keeps the memory
/// that a hostile message of 256 KiB can claim below half a megabyte.
pub const MAX_READINGS: usize = 10_000;

/// One value of one signal at one instant.
///
/// `Debug` shows the signal and the instant, never the value: a reading is health data, and what can be
/// printed will one day be logged.
#[derive(Clone, Copy, PartialEq)]
pub struct Reading {
    /// What was measured.
    pub signal: &'static Signal,
    /// The value, in the signal's unit. Finite in every reading that a codec returns.
    pub value: f64,
    /// When it was measured, to the microsecond; finer parts are lost on the wire.
    pub at: Timestamp,
}

impl fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reading")
            .field("code", &self.signal.code)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal;

    #[test]
    fn debug_is_silent_about_the_value() {
        let reading = Reading {
            signal: signal("8867-4").unwrap(),
            value: 71.25,
            at: Timestamp::from_second(1_767_312_000).unwrap(),
        };
        assert_eq!(
            format!("{reading:?}"),
            r#"Reading { code: "8867-4", at: 2026-01-02T00:00:00Z, .. }"#
        );
    }
}
