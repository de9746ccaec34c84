//! What every side stores: a ward of patients over some hours, the same for the same numbers.
//!
//! Seven patients of eight are monitored: five signals a second, each with a few milliseconds of its own, in messages of so
//! many readings. Every fifth of them wears a pulse oximeter of its own beside that. The eighth patient is visited: the five
//! signals every five minutes. One reading of two thousand is flagged, and one device of fifty comes twenty minutes late.
//!
//! Or a ward in which every patient has a pulse wave taken, in messages of two seconds.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

use jiff::{SignedDuration, Timestamp};
use vitalseal_device::simulated::{SimulatedPatient, SimulatedPulse};
use vitalseal_vitals::{Reading, Signal, Waveform, signal};

/// 2026-03-01T00:00:00Z, where a day begins.
pub const START_S: i64 = 1_772_323_200;

/// What a patient has, and a visited one has seldom.
const MONITORED: usize = 5;
const WORN: usize = 2;
const VISIT_S: usize = 300;
const WAVE_S: usize = 2;

/// A late device keeps what it measured for so long.
const LATE: SignedDuration = SignedDuration::from_mins(20);

/// How large it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub patients: usize,
    pub per_message: usize,
    pub seconds: usize,
    wave: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Monitor,
    Oximeter,
    Visit,
    /// So many samples a second.
    Wave(NonZeroU32),
}

/// A device, and the patient that it measures all the time.
#[derive(Clone, Debug)]
pub struct Source {
    pub index: usize,
    pub patient: usize,
    pub name: String,
    kind: Kind,
}

/// Readings that leave the device together.
#[derive(Clone)]
pub struct Batch {
    pub source: usize,
    pub patient: usize,
    /// The device seals it with its last reading.
    pub sealed_at: Timestamp,
    pub arrives_at: Timestamp,
    pub payload: Payload,
}

/// What a message holds.
#[derive(Clone)]
pub enum Payload {
    Readings(Vec<Reading>),
    Waveform(Waveform),
}

impl Payload {
    /// A sample is a reading, too.
    pub fn into_readings(self) -> Vec<Reading> {
        match self {
            Self::Readings(readings) => readings,
            Self::Waveform(waveform) => waveform.readings(),
        }
    }
}

impl Workload {
    /// About `readings` readings of `patients` patients.
    pub fn new(readings: usize, patients: usize, per_message: usize) -> Self {
        let mut workload = Self {
            patients,
            per_message,
            seconds: 0,
            wave: None,
        };
        let rate: f64 = workload.sources().iter().map(Source::rate).sum();
        workload.seconds = (readings as f64 / rate).ceil() as usize;
        workload
    }

    /// A pulse wave of each of `patients` patients, for so many seconds.
    pub fn waveforms(rate_hz: NonZeroU32, patients: usize, seconds: usize) -> Self {
        Self {
            patients,
            per_message: WAVE_S * rate_hz.get() as usize,
            seconds,
            wave: Some(rate_hz),
        }
    }

    pub fn start(&self) -> Timestamp {
        Timestamp::from_second(START_S).unwrap()
    }

    /// When the last message has come, with some slack.
    pub fn end(&self) -> Timestamp {
        self.start() + SignedDuration::from_secs(self.seconds as i64) + LATE + LATE
    }

    pub fn hours(&self) -> f64 {
        self.seconds as f64 / 3_600.0
    }

    pub fn sources(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        let mut add = |patient, kind| {
            let index: usize = sources.len();
            sources.push(Source {
                index,
                patient,
                name: format!("bench-{index:05}"),
                kind,
            });
        };
        for patient in 0..self.patients {
            if let Some(rate_hz) = self.wave {
                add(patient, Kind::Wave(rate_hz));
                continue;
            }
            if patient % 8 == 7 {
                add(patient, Kind::Visit);
                continue;
            }
            add(patient, Kind::Monitor);
            if patient % 5 == 0 {
                add(patient, Kind::Oximeter);
            }
        }
        sources
    }

    /// Everything that one device sends.
    pub fn batches_of(&self, source: &Source) -> Box<dyn Iterator<Item = Batch>> {
        if let Kind::Wave(rate_hz) = source.kind {
            return Box::new(self.waves_of(source, rate_hz));
        }
        Box::new(Batches {
            per_message: self.per_message,
            late: if source.index % 50 == 7 {
                LATE
            } else {
                SignedDuration::ZERO
            },
            source: source.clone(),
            simulated: SimulatedPatient::new(source.index as u64),
            seconds: 0..self.seconds,
            waiting: Vec::new(),
        })
    }

    fn waves_of(
        &self,
        source: &Source,
        rate_hz: NonZeroU32,
    ) -> impl Iterator<Item = Batch> + use<> {
        let mut pulse = SimulatedPulse::new(source.index as u64, rate_hz);
        let (source, patient, per_message) = (source.index, source.patient, self.per_message);
        let start = self.start();
        (1..=self.seconds / WAVE_S).map(move |number| {
            let waveform = pulse.next(start, per_message as u32).unwrap();
            let sealed_at = start + SignedDuration::from_secs((WAVE_S * number) as i64);
            Batch {
                source,
                patient,
                sealed_at,
                arrives_at: sealed_at + SignedDuration::from_millis(250),
                payload: Payload::Waveform(waveform),
            }
        })
    }

    /// Everything that all devices send, in the order of arrival.
    pub fn arrivals(&self) -> impl Iterator<Item = Batch> + use<> {
        let mut feeds: Vec<_> = self
            .sources()
            .iter()
            .map(|source| self.batches_of(source))
            .collect();
        let mut heads: Vec<Option<Batch>> = feeds.iter_mut().map(Iterator::next).collect();
        let key =
            |head: &Option<Batch>| head.as_ref().map(|batch| (batch.arrives_at, batch.source));
        let mut heap: BinaryHeap<_> = heads.iter().filter_map(key).map(Reverse).collect();
        std::iter::from_fn(move || {
            let Reverse((_, source)) = heap.pop()?;
            let batch = heads[source].take();
            heads[source] = feeds[source].next();
            heap.extend(key(&heads[source]).map(Reverse));
            batch
        })
    }
}

impl Source {
    /// Readings a second.
    fn rate(&self) -> f64 {
        match self.kind {
            Kind::Monitor => MONITORED as f64,
            Kind::Oximeter => WORN as f64,
            Kind::Visit => MONITORED as f64 / VISIT_S as f64,
            Kind::Wave(rate_hz) => f64::from(rate_hz.get()),
        }
    }
}

struct Batches {
    source: Source,
    per_message: usize,
    late: SignedDuration,
    simulated: SimulatedPatient,
    seconds: std::ops::Range<usize>,
    waiting: Vec<Reading>,
}

impl Batches {
    /// The readings of one second.
    fn step(&mut self, second: usize) {
        let at = Timestamp::from_second(START_S + second as i64).unwrap();
        let mut readings = self.simulated.step(at);
        if self.source.kind == Kind::Oximeter {
            readings.truncate(WORN);
            readings[1].signal = named("8889-8");
            readings[1].value -= 40.0;
        }
        for (number, reading) in readings.iter_mut().enumerate() {
            let chance = mixed(self.source.index, second, number);
            // Two devices never measure at the same instant, so that "the latest" is one reading.
            let odd = i64::from(self.source.kind == Kind::Oximeter);
            reading.at = at + SignedDuration::from_millis((chance % 40) as i64 * 2 + odd);
            if reading.signal.code == "59408-5" && (chance >> 8).is_multiple_of(400) {
                reading.value = 62.0;
            }
        }
        readings.sort_by_key(|reading| reading.at);
        self.waiting.append(&mut readings);
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let step = if self.source.kind == Kind::Visit {
            VISIT_S
        } else {
            1
        };
        while self.waiting.len() < self.per_message {
            let Some(second) = self.seconds.next() else {
                break;
            };
            if second % step == 0 {
                self.step(second);
                if self.source.kind == Kind::Visit {
                    break;
                }
            }
        }
        let rest = self
            .waiting
            .split_off(self.per_message.min(self.waiting.len()));
        let readings = std::mem::replace(&mut self.waiting, rest);
        let sealed_at = readings.last()?.at;
        Some(Batch {
            source: self.source.index,
            patient: self.source.patient,
            sealed_at,
            arrives_at: sealed_at + SignedDuration::from_millis(250) + self.late,
            payload: Payload::Readings(readings),
        })
    }
}

pub fn named(code: &str) -> &'static Signal {
    signal(code).unwrap()
}

/// Chance that follows from where it is asked for (the finalizer of `SplitMix64`).
fn mixed(source: usize, second: usize, number: usize) -> u64 {
    let mut z = (source as u64) << 40 ^ (second as u64) << 4 ^ number as u64;
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
