//! Evenly sampled signals, modelled on FHIR R4 `SampledData`.

use std::fmt;
use std::num::NonZeroU32;

use jiff::Timestamp;

use crate::{DecodeError, Reading, Signal};

/// The time between two samples, as an exact ratio: `micros` microseconds pass in `samples` samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Microseconds.
    pub micros: NonZeroU32,
    /// Samples in that time.
    pub samples: NonZeroU32,
}

/// A run of samples.
#[derive(Clone, PartialEq)]
pub struct Waveform {
    signal: &'static Signal,
    start: Timestamp,
    period: Period,
    factor: f64,
    origin: f64,
    samples: Vec<i32>,
}

impl fmt::Debug for Waveform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Waveform").finish_non_exhaustive()
    }
}

/// Why a waveform could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaveformError {
    /// Too many or no samples.
    #[error("a waveform holds 1 to {} samples", crate::MAX_READINGS)]
    Count,
    /// A value or time is out of range.
    #[error("a sample of the waveform is not finite or its time is out of range")]
    Range,
}

impl Waveform {
    /// A waveform whose sample `i` has the value `origin + factor × samples[i]`.
    ///
    /// # Errors
    /// [`WaveformError`].
    pub fn new(
        _signal: &'static Signal,
        _start: Timestamp,
        _period: Period,
        _factor: f64,
        _origin: f64,
        _samples: Vec<i32>,
    ) -> Result<Self, WaveformError> {
        todo!()
    }

    /// Its samples as readings.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        todo!()
    }
}

/// Encodes.
#[must_use]
pub fn encode(_waveform: &Waveform) -> Vec<u8> {
    todo!()
}

/// Decodes.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(_payload: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    todo!()
}
