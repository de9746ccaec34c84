//! Simulated signals, for which no free recording was found: oxygen saturation, blood pressure, temperature,
//! respiration; and a pulse wave, sampled as fast as one likes.
//!
//! Nothing here was measured on anybody, and whatever shows these values says so: see [`LABEL`]. The numbers are
//! plausible for a resting adult and wander slowly, so that queries over them have something to find.

use std::f64::consts::TAU;
use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};
use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{Period, Reading, Signal, Waveform, WaveformError, signal};

use crate::prng::Prng;

/// What to call these values wherever they are shown.
pub const LABEL: &str = "simulated";

/// A value that is pulled to its mean and pushed by chance (an Ornstein–Uhlenbeck walk with unit steps).
#[derive(Clone, Debug)]
struct Walk {
    signal: &'static Signal,
    mean: f64,
    /// Chance of one step, in the signal's unit.
    push: f64,
    /// What is left of the distance to the mean after one step, without chance.
    memory: f64,
    bounds: (f64, f64),
    /// Decimal places that a device of this kind shows, as a factor: 1 or 10.
    resolution: f64,
    value: f64,
}

impl Walk {
    fn step(&mut self, prng: &mut Prng) -> f64 {
        let wandered =
            self.mean + (self.value - self.mean) * self.memory + prng.normal() * self.push;
        self.value = wandered.clamp(self.bounds.0, self.bounds.1);
        (self.value * self.resolution).round() / self.resolution
    }
}

/// A simulated resting adult: five signals at every step, the same ones for the same seed.
#[derive(Clone, Debug)]
pub struct SimulatedPatient {
    prng: Prng,
    walks: Vec<Walk>,
}

/// Code, mean, spread of the mean between patients, push, memory, bounds, resolution.
type Row = (&'static str, f64, f64, f64, f64, (f64, f64), f64);

const ROWS: [Row; 5] = [
    ("59408-5", 97.0, 1.0, 0.25, 0.95, (88.0, 100.0), 1.0),
    ("8480-6", 122.0, 8.0, 1.2, 0.97, (92.0, 178.0), 1.0),
    ("8462-4", 78.0, 5.0, 0.8, 0.97, (48.0, 90.0), 1.0),
    ("8310-5", 36.8, 0.2, 0.02, 0.99, (35.5, 39.5), 10.0),
    ("9279-1", 15.0, 1.5, 0.4, 0.95, (8.0, 28.0), 1.0),
];

impl SimulatedPatient {
    /// A patient whose every value follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let walks = ROWS
            .iter()
            .filter_map(|(code, mean, spread, push, memory, bounds, resolution)| {
                let mean = mean + (prng.unit() * 2.0 - 1.0) * spread;
                Some(Walk {
                    signal: signal(code)?,
                    mean,
                    push: *push,
                    memory: *memory,
                    bounds: *bounds,
                    resolution: *resolution,
                    value: mean,
                })
            })
            .collect();
        Self { prng, walks }
    }

    /// One step of every signal, taken at `at`: saturation, systolic and diastolic pressure, temperature, respiration.
    ///
    /// The caller chooses the time between steps; a second and a minute both look natural.
    pub fn step(&mut self, at: Timestamp) -> Vec<Reading> {
        let prng = &mut self.prng;
        let reading = |walk: &mut Walk| Reading {
            signal: walk.signal,
            value: walk.step(prng),
            at,
        };
        self.walks.iter_mut().map(reading).collect()
    }
}

/// A simulated pulse wave as the converter of a pulse oximeter counts it: the same samples for the same seed.
#[derive(Clone, Debug)]
pub struct SimulatedPulse {
    prng: Prng,
    rate_hz: NonZeroU32,
    /// Beats in a second.
    beats: f64,
    taken: u32,
}

impl SimulatedPulse {
    /// A pulse that is sampled `rate_hz` times a second.
    #[must_use]
    pub fn new(seed: u64, rate_hz: NonZeroU32) -> Self {
        let mut prng = Prng::new(seed);
        let beats = 1.0 + prng.unit() * 0.5;
        Self {
            prng,
            rate_hz,
            beats,
            taken: 0,
        }
    }

    /// The next `samples` samples of a measurement that began at `start`.
    ///
    /// # Errors
    /// [`WaveformError`] for no samples, too many, or a measurement beyond the calendar.
    pub fn next(&mut self, start: Timestamp, samples: u32) -> Result<Waveform, WaveformError> {
        let rate_hz = self.rate_hz.get();
        let micros = i64::from(self.taken) * 1_000_000 / i64::from(rate_hz);
        let start = start
            .checked_add(SignedDuration::from_micros(micros))
            .map_err(|_| WaveformError::Time)?;
        let (Some(signal), Some(period)) =
            (signal(PULSE_WAVEFORM), Period::new(1_000_000, rate_hz))
        else {
            return Err(WaveformError::Count);
        };
        let counts = (self.taken..self.taken.saturating_add(samples)).map(|index| {
            let turn = TAU * self.beats * f64::from(index) / f64::from(rate_hz);
            let wave = turn.sin() + 0.4 * (2.0 * turn + 1.0).sin();
            counts(30_000.0 + 9_000.0 * wave + 20.0 * self.prng.normal())
        });
        let counts = counts.collect();
        self.taken = self.taken.saturating_add(samples);
        Waveform::new(signal, start, period, 1.0, 0.0, counts)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "within ±6 deviations the wave stays in 17,000 to 43,000"
)]
fn counts(value: f64) -> i32 {
    value.round() as i32
}

#[cfg(test)]
mod tests {
    use vitalseal_vitals::{Quality, check_hard};

    use super::*;

    #[test]
    fn a_day_of_any_patient_is_plausible_and_repeatable() {
        for seed in [0, 1, 42, u64::MAX] {
            let mut patient = SimulatedPatient::new(seed);
            let mut again = patient.clone();
            let mut seen = Vec::new();
            for minute in 0..1440 {
                let at = Timestamp::from_second(1_767_312_000 + minute * 60).unwrap();
                let readings = patient.step(at);
                assert_eq!(readings.len(), ROWS.len());
                check_hard(&readings).unwrap();
                assert!(
                    readings
                        .iter()
                        .all(|reading| reading.quality() == Quality::Ok)
                );
                assert_eq!(readings, again.step(at));
                seen.push(readings[0].value);
            }
            seen.dedup();
            assert!(seen.len() > 50, "it wanders");
        }
        let at = Timestamp::UNIX_EPOCH;
        assert_ne!(
            SimulatedPatient::new(1).step(at),
            SimulatedPatient::new(2).step(at)
        );
    }

    #[test]
    fn a_pulse_goes_on_where_it_was_cut_and_beats_plausibly() {
        let start = Timestamp::from_second(1_767_312_000).unwrap();
        let rate_hz = NonZeroU32::new(250).unwrap();
        let mut whole = SimulatedPulse::new(7, rate_hz);
        let mut parts = whole.clone();
        let whole = whole.next(start, 10_000).unwrap().readings();
        let parts: Vec<Reading> = (0..10)
            .flat_map(|_| parts.next(start, 1_000).unwrap().readings())
            .collect();
        assert_eq!(whole, parts);
        check_hard(&whole).unwrap();
        let above = |reading: &Reading| reading.value > 30_000.0;
        let turns = whole
            .windows(2)
            .filter(|two| above(&two[0]) != above(&two[1]));
        assert!(
            (80..240).contains(&turns.count()),
            "40 seconds at 60 to 90 beats a minute"
        );
    }
}
