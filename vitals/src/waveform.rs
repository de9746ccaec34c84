//! Evenly sampled signals (ECG, pulse waveform: 50–500 Hz), modelled on FHIR R4 `SampledData`.
//!
//! A hundred samples a second as SenML records would cost 20 bytes each; here a sample costs one or two.
//!
//! ```cddl
//! waveform = {            ; keys in this order, definite lengths
//!   0: 1,                 ; version of this layout
//!   1: tstr,              ; code of the signal
//!   2: uint,              ; instant of the first sample, µs since the Unix epoch
//!   3: [uint, uint],      ; period: so many µs pass in so many samples
//!   4: number,            ; factor
//!   5: number,            ; origin: the value that a zero sample stands for
//!   6: [1*10000 int],     ; the first sample, then each one's difference to the one before
//! }
//! value(i) = origin + factor × sample(i)       ; in the signal's unit
//! at(i)    = start + i × µs ÷ samples          ; rounded to the nearest µs
//! ```
//!
//! `factor`, `origin` and `period` are those of FHIR, the period as an exact ratio: 117 Hz has no finite
//! decimal one. Content type `application/vnd.vitalseal.waveform+cbor`.

use std::fmt;
use std::num::NonZeroU32;

use jiff::Timestamp;

use crate::cbor::{Reader, Writer};
use crate::{DecodeError, MAX_READINGS, Reading, Signal, signal};

const VERSION: i64 = 1;

const EXPECTED: &str = "a waveform is a map of the keys 0 to 6, in order";

/// The time between two samples, as an exact ratio: `micros` microseconds pass in `samples` samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Microseconds.
    pub micros: NonZeroU32,
    /// Samples in that time.
    pub samples: NonZeroU32,
}

impl Period {
    /// A ratio of microseconds to samples; `None` if either is zero.
    #[must_use]
    pub fn new(micros: u32, samples: u32) -> Option<Self> {
        Some(Self {
            micros: NonZeroU32::new(micros)?,
            samples: NonZeroU32::new(samples)?,
        })
    }

    /// Microseconds from the first sample to sample `index`, rounded to the nearest.
    #[must_use]
    pub fn offset_us(self, index: usize) -> i64 {
        let (micros, samples) = (
            u128::from(self.micros.get()),
            u128::from(self.samples.get()),
        );
        let offset = (index as u128 * micros + samples / 2) / samples;
        i64::try_from(offset).unwrap_or(i64::MAX)
    }
}

/// Samples of one signal at even distances. Every value of this type encodes to a payload that decodes.
///
/// `Debug` shows everything but the samples: they are health data.
#[derive(Clone, PartialEq)]
pub struct Waveform {
    signal: &'static Signal,
    start: Timestamp,
    period: Period,
    factor: f64,
    origin: f64,
    samples: Vec<i32>,
}

/// Why samples do not make a waveform. Without a value in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaveformError {
    /// No samples, or more than [`MAX_READINGS`].
    #[error("a waveform holds 1 to {MAX_READINGS} samples")]
    Count,
    /// Factor or origin is not finite, or makes a sample's value infinite.
    #[error("factor, origin or a value of the waveform is not finite")]
    Value,
    /// The first sample is before 1970 or the last one beyond the calendar.
    #[error("the waveform's time is out of range")]
    Time,
}

impl Waveform {
    /// Samples whose values are `origin + factor × sample`, the first one taken at `start` (to the microsecond).
    ///
    /// # Errors
    /// [`WaveformError`] for what the receiver would refuse.
    pub fn new(
        signal: &'static Signal,
        start: Timestamp,
        period: Period,
        factor: f64,
        origin: f64,
        samples: Vec<i32>,
    ) -> Result<Self, WaveformError> {
        if samples.is_empty() || samples.len() > MAX_READINGS {
            return Err(WaveformError::Count);
        }
        let waveform = Self {
            signal,
            // What is finer is lost on the wire, so it is not kept here either.
            start: Timestamp::from_microsecond(start.as_microsecond())
                .map_err(|_| WaveformError::Time)?,
            period,
            factor,
            origin,
            samples,
        };
        let finite = |sample: &i32| waveform.value(*sample).is_finite();
        if !factor.is_finite() || !origin.is_finite() || !waveform.samples.iter().all(finite) {
            return Err(WaveformError::Value);
        }
        if start.as_microsecond() < 0 || waveform.at(waveform.samples.len() - 1).is_none() {
            return Err(WaveformError::Time);
        }
        Ok(waveform)
    }

    /// The signal that was sampled.
    #[must_use]
    pub fn signal(&self) -> &'static Signal {
        self.signal
    }

    /// When the first sample was taken.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The time between two samples.
    #[must_use]
    pub fn period(&self) -> Period {
        self.period
    }

    /// What one step of a sample is worth, in the signal's unit.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// The value that a zero sample stands for, in the signal's unit.
    #[must_use]
    pub fn origin(&self) -> f64 {
        self.origin
    }

    /// The samples as they were taken, 1 to [`MAX_READINGS`].
    #[must_use]
    pub fn samples(&self) -> &[i32] {
        &self.samples
    }

    /// How many samples it has, 1 to [`MAX_READINGS`].
    #[expect(clippy::len_without_is_empty, reason = "a waveform is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// The samples as readings, in the order of time.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        let samples = self.samples.iter().enumerate();
        samples
            .filter_map(|(index, sample)| {
                // `new` saw that the last sample has an instant, so every sample has.
                let at = self.at(index)?;
                Some(Reading {
                    signal: self.signal,
                    value: self.value(*sample),
                    at,
                })
            })
            .collect()
    }

    fn value(&self, sample: i32) -> f64 {
        self.origin + self.factor * f64::from(sample)
    }

    fn at(&self, index: usize) -> Option<Timestamp> {
        let at_us = self
            .start
            .as_microsecond()
            .checked_add(self.period.offset_us(index))?;
        Timestamp::from_microsecond(at_us).ok()
    }
}

impl fmt::Debug for Waveform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Waveform")
            .field("code", &self.signal.code)
            .field("start", &self.start)
            .field("period", &self.period)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Encodes a waveform in the layout of the [module](self), deterministically.
#[must_use]
pub fn encode(waveform: &Waveform) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.map(7);
    writer.integer(0);
    writer.integer(VERSION);
    writer.integer(1);
    writer.text(waveform.signal.code);
    writer.integer(2);
    writer.integer(waveform.start.as_microsecond());
    writer.integer(3);
    writer.array(2);
    writer.integer(waveform.period.micros.get().into());
    writer.integer(waveform.period.samples.get().into());
    writer.integer(4);
    writer.number(waveform.factor);
    writer.integer(5);
    writer.number(waveform.origin);
    writer.integer(6);
    writer.array(waveform.samples.len());
    let mut before = 0;
    for sample in &waveform.samples {
        writer.integer(i64::from(*sample) - before);
        before = i64::from(*sample);
    }
    writer.into_bytes()
}

/// Decodes a payload into one reading per sample.
///
/// # Errors
/// As for [`read`].
pub fn decode(payload: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    Ok(read(payload)?.readings())
}

/// Reads a payload as the samples that it is.
///
/// # Errors
/// [`DecodeError`], at the first thing that is not exactly the layout of the [module](self).
pub fn read(payload: &[u8]) -> Result<Waveform, DecodeError> {
    let mut reader = Reader::new(payload);
    if reader.map(EXPECTED)?.announced() != Some(7) {
        return Err(DecodeError::Shape(EXPECTED));
    }
    key(&mut reader, 0)?;
    if reader.integer("a version is an integer")? != i128::from(VERSION) {
        return Err(DecodeError::Unsupported(
            "the version of the waveform layout is not 1",
        ));
    }
    key(&mut reader, 1)?;
    let signal =
        signal(reader.text("a code is a text")?).ok_or(DecodeError::UnknownSignal { record: 0 })?;
    key(&mut reader, 2)?;
    let start = i64::try_from(reader.integer("a start is an integer")?)
        .ok()
        .and_then(|start| Timestamp::from_microsecond(start).ok())
        .ok_or(DecodeError::Number { record: 0 })?;
    key(&mut reader, 3)?;
    let period = period(&mut reader)?;
    key(&mut reader, 4)?;
    let factor = reader.number("a factor is a number")?.to_f64();
    key(&mut reader, 5)?;
    let origin = reader.number("an origin is a number")?.to_f64();
    key(&mut reader, 6)?;
    let samples = samples(&mut reader)?;
    reader.finish()?;
    let waveform = Waveform::new(signal, start, period, factor, origin, samples);
    waveform.map_err(|error| match error {
        WaveformError::Count => DecodeError::Count,
        WaveformError::Value | WaveformError::Time => DecodeError::Number { record: 0 },
    })
}

fn key(reader: &mut Reader<'_>, expected: i128) -> Result<(), DecodeError> {
    if reader.integer(EXPECTED)? == expected {
        Ok(())
    } else {
        Err(DecodeError::Shape(EXPECTED))
    }
}

fn period(reader: &mut Reader<'_>) -> Result<Period, DecodeError> {
    const EXPECTED: &str = "a period is two positive integers of at most 32 bits";
    if reader.array(EXPECTED)?.announced() != Some(2) {
        return Err(DecodeError::Shape(EXPECTED));
    }
    let mut part = || {
        let part = u32::try_from(reader.integer(EXPECTED)?)
            .ok()
            .and_then(NonZeroU32::new);
        part.ok_or(DecodeError::Shape(EXPECTED))
    };
    Ok(Period {
        micros: part()?,
        samples: part()?,
    })
}

fn samples(reader: &mut Reader<'_>) -> Result<Vec<i32>, DecodeError> {
    const EXPECTED: &str = "samples are an array of integers within 32 bits";
    let count = reader
        .array(EXPECTED)?
        .announced()
        .ok_or(DecodeError::Shape(EXPECTED))?;
    if count == 0 || count > MAX_READINGS as u64 {
        return Err(DecodeError::Count);
    }
    let mut sample = 0_i128;
    (0..count)
        .map(|_| {
            sample += reader.integer(EXPECTED)?;
            i32::try_from(sample).map_err(|_| DecodeError::Shape(EXPECTED))
        })
        .collect()
}

#[cfg(test)]
mod tests;
