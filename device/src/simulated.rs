//! Simulated signals, for which no free recording was found: oxygen saturation, blood pressure, temperature,
//! respiration.
//!
//! Nothing here was measured on anybody, and whatever shows these values says so: see [`LABEL`]. The numbers are
//! plausible for a resting adult and wander slowly, so that queries over them have something to find.

use jiff::Timestamp;
use vitalseal_vitals::{Reading, Signal, signal};

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
}
