//! Writes the plaintext of a chunk; [`readings`](super::readings) draws it, and reads it.
//!
//! What holds all values of a series is wiped. What holds a block of them for a moment, as the codecs do, is not.

use vitalseal_vitals::{Reading, Signal};
use zeroize::{DefaultIsZeroes, Zeroizing};

use super::bytes::{put_float, put_length, put_signed, put_unsigned};
use super::error::{ChunkError, MAX_READINGS};
use super::head::{self, Digest};
use super::messages::{MessageMeta, MessageTable};
use super::pack::SLACK;
use super::readings::Readings;
use super::stats::Stats;
use super::wiped::Wiped;
use super::{pad, runs, times, values};

/// Makes the plaintext of one chunk.
#[derive(Default)]
pub struct ReadingsBuilder {
    evidence: Digest,
    messages: MessageTable,
    /// Of each device, of each signal by its number: what was measured, in the order in which it came.
    series: Vec<Vec<Option<Points>>>,
    without_message: bool,
}

struct Points {
    signal: &'static Signal,
    points: Wiped<Point>,
}

#[derive(Clone, Copy, Default)]
struct Point {
    at_us: i64,
    value: f64,
    message: u32,
}

impl DefaultIsZeroes for Point {}

impl ReadingsBuilder {
    /// A chunk of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what its messages came in: the SHA-256 of its evidence. Zeros, if nobody says it, are that of none.
    pub fn prove(&mut self, evidence: Digest) {
        self.evidence = evidence;
    }

    /// Adds a message and gives its index: the first is 0, and every next one more.
    pub fn message(&mut self, message: MessageMeta) -> u32 {
        self.messages.push(message)
    }

    /// Adds readings of a message.
    pub fn push(&mut self, message: u32, readings: &[Reading]) {
        let Some(device) = self.messages.device_of(message) else {
            self.without_message |= !readings.is_empty();
            return;
        };
        for reading in readings {
            self.series(reading.signal, device).push(Point {
                at_us: reading.at.as_microsecond(),
                value: reading.value,
                message,
            });
        }
    }

    /// Adds all messages and readings of another chunk, behind those that are here.
    ///
    /// # Errors
    /// [`ChunkError::Damaged`] when it cannot be decoded. What is here then is part of it, and of no use.
    pub fn merge(&mut self, other: &Readings) -> Result<(), ChunkError> {
        let first = self.messages.extend(&other.messages()?, other.devices())?;
        for series in other.series() {
            // Each is reserved for at once, since a vector that moves leaves its bytes behind.
            let (mut at, mut value) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
            let mut from = Vec::new();
            other.times(series, &mut at)?;
            other.values(series, &mut value)?;
            other.message_indexes(series, &mut from)?;
            for ((at_us, value), from) in at.iter().zip(value.iter()).zip(from) {
                let (at_us, value) = (*at_us, *value);
                let message = first.saturating_add(from);
                let device = self.messages.device_of(message);
                let device = device.ok_or(ChunkError::NoSuchMessage)?;
                self.series(series.signal, device).push(Point {
                    at_us,
                    value,
                    message,
                });
            }
        }
        Ok(())
    }

    /// The chunk's plaintext, as long as its size class.
    ///
    /// # Errors
    /// [`ChunkError::TooMany`] for more than one chunk may hold, [`ChunkError::NoSuchMessage`] when readings were given
    /// for a message that was not.
    pub fn finish(self) -> Result<Zeroizing<Vec<u8>>, ChunkError> {
        if self.without_message {
            return Err(ChunkError::NoSuchMessage);
        }
        let mut series: Vec<(u64, Points)> = Vec::new();
        for (device, signals) in (0..).zip(self.series) {
            series.extend(signals.into_iter().flatten().map(|points| (device, points)));
        }
        let count: usize = series.iter().map(|(_, of)| of.points.len()).sum();
        if count > MAX_READINGS {
            return Err(ChunkError::TooMany);
        }
        series.sort_by_key(|(device, of)| (of.signal.number, *device));
        // Room for what is usual, since a vector that moves leaves its bytes behind.
        let mut out = Zeroizing::new(Vec::with_capacity(2 * count + 4096));
        head::put(&self.evidence, &mut out);
        self.messages.write(&mut out)?;
        put_length(&mut out, series.len());
        let mut columns = Columns::with_capacity(2 * count);
        let mut first_us = 0;
        for (device, Points { signal, mut points }) in series {
            // Stable: what was measured at one instant stays in the order of its messages. It needs room that is not wiped,
            // and what comes in order, as most does, needs no sorting.
            if !points.is_sorted_by_key(|point| point.at_us) {
                points.sort_by_key(|point| point.at_us);
            }
            put_unsigned(&mut out, u64::from(signal.number));
            put_unsigned(&mut out, device);
            first_us = columns.write(signal, &points, first_us, &mut out);
        }
        out.append(&mut columns.bytes);
        out.extend([0; SLACK]);
        pad::pad(&mut out);
        Ok(out)
    }

    fn series(&mut self, signal: &'static Signal, device: u32) -> &mut Wiped<Point> {
        let (device, number) = (device as usize, usize::from(signal.number));
        if self.series.len() <= device {
            self.series.resize_with(device + 1, Vec::new);
        }
        let signals = &mut self.series[device];
        if signals.len() <= number {
            signals.resize_with(number + 1, || None);
        }
        let none = || Points {
            signal,
            points: Wiped::default(),
        };
        &mut signals[number].get_or_insert_with(none).points
    }
}

/// The columns of the series so far.
#[derive(Default)]
struct Columns {
    bytes: Zeroizing<Vec<u8>>,
    /// What they were made of: a column of the same is not written again.
    times: Vec<Zeroizing<Vec<i64>>>,
    messages: Vec<Vec<u32>>,
}

impl Columns {
    fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(bytes)),
            ..Self::default()
        }
    }

    /// Writes the columns of a series, and what follows its name in its entry; gives its first instant.
    fn write(
        &mut self,
        signal: &Signal,
        points: &[Point],
        before_us: i64,
        entry: &mut Vec<u8>,
    ) -> i64 {
        let at_us: Vec<i64> = points.iter().map(|point| point.at_us).collect();
        let value: Vec<f64> = points.iter().map(|point| point.value).collect();
        let (at_us, value) = (Zeroizing::new(at_us), Zeroizing::new(value));
        let message: Vec<u32> = points.iter().map(|point| point.message).collect();
        let stats = Stats::of(signal, &at_us, &value);
        put_length(entry, stats.count);
        put_length(entry, stats.flagged);
        put_signed(entry, stats.first_us.wrapping_sub(before_us));
        put_unsigned(
            entry,
            stats.last_us.wrapping_sub(stats.first_us).cast_unsigned(),
        );
        for value in [stats.min, stats.max, stats.last_value, stats.sum] {
            put_float(entry, value);
        }
        let out = &mut self.bytes;
        let start = out.len();
        values::encode(&value, out);
        put_length(entry, out.len() - start);
        share_or_write(at_us, &mut self.times, entry, out, |at_us, out| {
            times::encode(at_us, stats.first_us, out);
        });
        share_or_write(message, &mut self.messages, entry, out, |message, out| {
            runs::encode(message, out);
        });
        stats.first_us
    }
}

/// Names the first series with the same column, or writes it.
fn share_or_write<T: PartialEq + Default>(
    column: T,
    before: &mut Vec<T>,
    entry: &mut Vec<u8>,
    out: &mut Vec<u8>,
    encode: impl Fn(&T, &mut Vec<u8>),
) {
    match before.iter().position(|before| *before == column) {
        Some(same) => {
            put_length(entry, 0);
            put_length(entry, same);
            before.push(T::default());
        }
        None => {
            let start = out.len();
            encode(&column, out);
            put_length(entry, out.len() - start);
            before.push(column);
        }
    }
}

super::quiet::quiet_debug! { ReadingsBuilder: devices = |it: &ReadingsBuilder| it.series.len(); }
