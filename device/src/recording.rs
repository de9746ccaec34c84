//! Real recordings, played as if a sensor delivered them now.
//!
//! | Recording | Columns | Source |
//! |---|---|---|
//! | heart rate of a runner, about 1 Hz with real gaps | `time,heart_rate_bpm` | Python package `sweat`, MIT |
//! | pulse waveform, about 117 Hz, raw counts | `time_ms,sample` | Python package `heartpy`, MIT |
//!
//! Both are built in, so that a demonstration needs no files, and `load` takes files of the same form.
//! Attribution: `tests/data/README.md`.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{MAX_READINGS, Period, Reading, Signal, Waveform, WaveformError, signal};

const HEART_RATE: &str = "8867-4";
const HEART_RATE_CSV: &str = include_str!("../../tests/data/heart_rate_run.csv");
const PULSE_WAVEFORM_CSV: &str = include_str!("../../tests/data/pulse_waveform.csv");

/// How far a sample may lie from its even place, as a part of the period: beyond that it is not one waveform.
const MAX_UNEVENNESS: f64 = 0.25;

/// Why a recording could not be used. Names lines, never values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The file could not be read.
    #[error("reading the recording {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The first line is not the expected one.
    #[error("a recording of this kind begins with the line {expected:?}")]
    Header {
        /// The line that was expected.
        expected: &'static str,
    },
    /// A line is not two columns of the expected kind, or goes back in time.
    #[error("line {line} of the recording is not understood")]
    Line {
        /// Number of the line, from 1.
        line: usize,
    },
    /// The samples are not evenly spaced, or fewer than two.
    #[error("the recording is not an evenly sampled waveform")]
    Uneven,
    /// The signal is not in the table of signals.
    #[error("the recorded signal {0} is not in the table of signals")]
    UnknownSignal(&'static str),
}

/// A recorded heart rate, with its own gaps.
///
/// `Debug` shows how much was recorded, not what.
#[derive(Clone)]
pub struct HeartRateRecording {
    readings: Vec<Reading>,
}

impl HeartRateRecording {
    /// The recording that is built in: 3,507 samples of one run.
    ///
    /// # Errors
    /// [`RecordingError`], which the tests show not to happen.
    pub fn embedded() -> Result<Self, RecordingError> {
        Self::parse(HEART_RATE_CSV)
    }

    /// A recording from a file of the same form.
    ///
    /// # Errors
    /// [`RecordingError`]
    pub fn load(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        Self::parse(&read(path.as_ref())?)
    }

    /// The readings, each at the instant at which it was recorded.
    #[must_use]
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// The readings, moved in time so that the first one is at `start`; gaps stay as they were.
    #[must_use]
    pub fn readings_from(&self, start: Timestamp) -> Vec<Reading> {
        let Some(first) = self.readings.first() else {
            return Vec::new();
        };
        let moved = |reading: &Reading| {
            let at = start
                .checked_add(reading.at.duration_since(first.at))
                .ok()?;
            Some(Reading { at, ..*reading })
        };
        self.readings.iter().filter_map(moved).collect()
    }

    fn parse(csv: &str) -> Result<Self, RecordingError> {
        let signal = known(HEART_RATE)?;
        let mut readings: Vec<Reading> = Vec::new();
        for row in rows(csv, "time,heart_rate_bpm")? {
            let (line, time, bpm) = row?;
            let unreadable = RecordingError::Line { line };
            let (Ok(at), Ok(bpm)) = (time.parse::<Timestamp>(), bpm.parse::<u16>()) else {
                return Err(unreadable);
            };
            if readings.last().is_some_and(|before| before.at >= at) {
                return Err(unreadable);
            }
            readings.push(Reading {
                signal,
                value: f64::from(bpm),
                at,
            });
        }
        Ok(Self { readings })
    }
}

impl fmt::Debug for HeartRateRecording {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HeartRateRecording")
            .field("len", &self.readings.len())
            .finish_non_exhaustive()
    }
}

/// A recorded pulse waveform: evenly sampled counts.
///
/// `Debug` shows how much was recorded, not what.
#[derive(Clone)]
pub struct PulseRecording {
    period: Period,
    samples: Vec<i32>,
}

impl PulseRecording {
    /// The recording that is built in: 15,000 samples in 128 seconds.
    ///
    /// # Errors
    /// [`RecordingError`], which the tests show not to happen.
    pub fn embedded() -> Result<Self, RecordingError> {
        Self::parse(PULSE_WAVEFORM_CSV)
    }

    /// A recording from a file of the same form.
    ///
    /// # Errors
    /// [`RecordingError`]
    pub fn load(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        Self::parse(&read(path.as_ref())?)
    }

    /// The time between two samples.
    #[must_use]
    pub fn period(&self) -> Period {
        self.period
    }

    /// How many samples were recorded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The recording as waveforms of at most `samples_per_message` samples, the first sample at `start`.
    ///
    /// # Errors
    /// [`WaveformError`] if the recording would reach beyond the calendar.
    pub fn waveforms_from(
        &self,
        start: Timestamp,
        samples_per_message: usize,
    ) -> Result<Vec<Waveform>, WaveformError> {
        // `parse` has found it in the table.
        let Some(signal) = signal(PULSE_WAVEFORM) else {
            return Ok(Vec::new());
        };
        let length = samples_per_message.clamp(1, MAX_READINGS);
        let (micros, count) = (
            u128::from(self.period.micros.get()),
            u128::from(self.period.samples.get()),
        );
        let waveform = |(index, samples): (usize, &[i32])| {
            let offset_us = (index * length) as u128 * micros / count;
            let offset = i64::try_from(offset_us).map(SignedDuration::from_micros);
            let at = offset
                .ok()
                .and_then(|offset| start.checked_add(offset).ok());
            let at = at.ok_or(WaveformError::Time)?;
            Waveform::new(signal, at, self.period, 1.0, 0.0, samples.to_vec())
        };
        self.samples
            .chunks(length)
            .enumerate()
            .map(waveform)
            .collect()
    }

    fn parse(csv: &str) -> Result<Self, RecordingError> {
        known(PULSE_WAVEFORM)?;
        let (mut times_us, mut samples) = (Vec::new(), Vec::new());
        for row in rows(csv, "time_ms,sample")? {
            let (line, time, sample) = row?;
            let (Some(time_us), Ok(sample)) = (micros(time), sample.parse()) else {
                return Err(RecordingError::Line { line });
            };
            times_us.push(time_us);
            samples.push(sample);
        }
        Ok(Self {
            period: even_period(&times_us).ok_or(RecordingError::Uneven)?,
            samples,
        })
    }
}

impl fmt::Debug for PulseRecording {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PulseRecording")
            .field("period", &self.period)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The period of samples that are evenly spaced from first to last; `None` if they are not.
fn even_period(times_us: &[u32]) -> Option<Period> {
    let (first, last) = (times_us.first()?, times_us.last()?);
    let (span, steps) = (
        last.checked_sub(*first)?,
        u32::try_from(times_us.len() - 1).ok()?,
    );
    let period = Period::new(span, steps)?;
    let step = f64::from(span) / f64::from(steps);
    let is_even = times_us.iter().enumerate().all(|(index, time)| {
        let even = f64::from(*first) + index as f64 * step;
        (f64::from(*time) - even).abs() <= step * MAX_UNEVENNESS
    });
    is_even.then_some(period)
}

/// Milliseconds with up to three decimals, as microseconds.
fn micros(milliseconds: &str) -> Option<u32> {
    let (whole, decimals) = milliseconds.split_once('.').unwrap_or((milliseconds, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let micros: u32 = format!("{decimals:0<3}").parse().ok()?;
    whole
        .parse::<u32>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(micros)
}

type Row<'a> = Result<(usize, &'a str, &'a str), RecordingError>;

/// The rows of a two-column CSV without quotes: number of the line, first column, second column.
fn rows<'a>(
    csv: &'a str,
    expected: &'static str,
) -> Result<impl Iterator<Item = Row<'a>>, RecordingError> {
    let mut lines = csv.lines().enumerate();
    if lines.next().map(|(_, header)| header.trim()) != Some(expected) {
        return Err(RecordingError::Header { expected });
    }
    Ok(lines
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(index, text)| {
            let line = index + 1;
            let (first, second) = text.split_once(',').ok_or(RecordingError::Line { line })?;
            Ok((line, first.trim(), second.trim()))
        }))
}

fn known(code: &'static str) -> Result<&'static Signal, RecordingError> {
    signal(code).ok_or(RecordingError::UnknownSignal(code))
}

fn read(path: &Path) -> Result<String, RecordingError> {
    std::fs::read_to_string(path).map_err(|cause| RecordingError::Read {
        path: path.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use vitalseal_vitals::{check_hard, waveform};

    use super::*;

    #[test]
    fn the_run_is_whole_plausible_and_keeps_its_gaps_when_moved() {
        let recording = HeartRateRecording::embedded().unwrap();
        assert_eq!(recording.readings().len(), 3507);
        check_hard(recording.readings()).unwrap();
        let start = Timestamp::from_second(1_767_312_000).unwrap();
        let moved = recording.readings_from(start);
        assert_eq!(moved[0].at, start);
        let span = |readings: &[Reading]| readings[3506].at.duration_since(readings[0].at);
        assert_eq!(span(&moved), span(recording.readings()));
        assert!(
            moved
                .iter()
                .zip(recording.readings())
                .all(|(a, b)| a.value == b.value)
        );
    }

    #[test]
    fn the_pulse_waveform_is_whole_and_its_messages_join_without_a_seam() {
        let recording = PulseRecording::embedded().unwrap();
        assert_eq!(recording.len(), 15_000);
        let start = Timestamp::from_second(1_767_312_000).unwrap();
        let waveforms = recording.waveforms_from(start, 1170).unwrap();
        assert_eq!(waveforms.len(), 13);
        let mut readings = Vec::new();
        for part in &waveforms {
            readings.extend(waveform::decode(&waveform::encode(part)).unwrap());
        }
        check_hard(&readings).unwrap();
        assert_eq!(readings.len(), 15_000);
        for pair in readings.windows(2) {
            let step = pair[1].at.duration_since(pair[0].at).as_micros();
            assert!(
                (8546..=8550).contains(&step),
                "{step} µs between two samples"
            );
        }
        let bytes: usize = waveforms
            .iter()
            .map(|part| waveform::encode(part).len())
            .sum();
        assert!(
            bytes < 2 * readings.len(),
            "a sample costs less than two bytes: {bytes}"
        );
    }

    #[test]
    fn damaged_recordings_are_refused_by_line_without_showing_values() {
        let heart = |csv: &str| HeartRateRecording::parse(csv).unwrap_err().to_string();
        let pulse = |csv: &str| PulseRecording::parse(csv).unwrap_err().to_string();
        assert!(heart("").contains("time,heart_rate_bpm"));
        let twice = "time,heart_rate_bpm\n2019-01-29T10:25:13Z,109\n2019-01-29T10:25:13Z,109\n";
        assert!(heart(twice).contains("line 3"));
        let negative = heart("time,heart_rate_bpm\n2019-01-29T10:25:13Z,-109\n");
        assert!(negative.contains("line 2") && !negative.contains("109"));
        assert!(pulse("time_ms,sample\n0.000,1\n8.5x,2\n").contains("line 3"));
        assert!(pulse("time_ms,sample\n0.000,1\n").contains("evenly"));
        assert!(pulse("time_ms,sample\n0,1\n8,2\n99,3\n").contains("evenly"));
    }
}
