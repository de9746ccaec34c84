//! The plaintext of a chunk's `sealed` column: the readings of one patient in one bucket, series by series.
//!
//! ```text
//! readings = 01 | messages | series unsigned | entry of each series | columns of each series | zero bytes
//!
//! entry    = signal unsigned | device unsigned | readings unsigned | flagged unsigned
//!            | first_us signed, less that of the entry before | last_us unsigned, less first_us
//!            | min float | max float | last value float | sum float
//!            | lengths of the columns unsigned: times, values, messages
//! columns  = times | values | message indexes
//! ```
//!
//! A series is one signal of one device, in the order of time; entries are ordered by signal, then by device. Zero
//! bytes follow, at least [`SLACK`] and then up to the size class of the whole.
//!
//! What an entry says of its series answers most questions about it, so that its columns are not decoded; and a column
//! is decoded alone.

use std::ops::Range;

use vitalseal_crypto::DeviceId;
use vitalseal_vitals::{Quality, Reading, Signal, signal_of_number};
use zeroize::Zeroizing;

use super::bytes::{Reader, put_float, put_length, put_signed, put_unsigned};
use super::error::{ChunkError, MAX_READINGS};
use super::messages::{MessageColumns, MessageMeta, MessageTable, Messages};
use super::pack::{Column, SLACK};
use super::{pad, runs, times, values};

const VERSION: u8 = 1;

/// Makes the plaintext of one chunk.
#[derive(Default)]
pub struct ReadingsBuilder {
    messages: MessageTable,
    /// Of each device, of each signal by its number: what was measured, in the order in which it came.
    series: Vec<Vec<Vec<Point>>>,
    without_message: bool,
}

#[derive(Clone, Copy)]
struct Point {
    at_us: i64,
    value: f64,
    message: u32,
}

impl ReadingsBuilder {
    /// A chunk of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        let (mut at, mut value, mut from) = (Vec::new(), Vec::new(), Vec::new());
        for series in other.series() {
            other.times(series, &mut at)?;
            other.values(series, &mut value)?;
            other.message_indexes(series, &mut from)?;
            for ((at_us, value), from) in at.drain(..).zip(value.drain(..)).zip(from.drain(..)) {
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
        let count: usize = self.series.iter().flatten().map(Vec::len).sum();
        if count > MAX_READINGS {
            return Err(ChunkError::TooMany);
        }
        // Room for what is usual, since a vector that moves leaves its bytes behind.
        let mut out = Zeroizing::new(Vec::with_capacity(2 * count + 4096));
        out.push(VERSION);
        self.messages.write(&mut out)?;
        let mut series: Vec<(u16, u64, Vec<Point>)> = Vec::new();
        for (device, signals) in (0..).zip(self.series) {
            let signals = (0..).zip(signals).filter(|(_, points)| !points.is_empty());
            series.extend(signals.map(|(number, points)| (number, device, points)));
        }
        series.sort_by_key(|(number, device, _)| (*number, *device));
        put_length(&mut out, series.len());
        let mut columns = Zeroizing::new(Vec::with_capacity(2 * count));
        let mut first_us = 0;
        for (number, device, mut points) in series {
            // Stable: what was measured at one instant stays in the order of its messages.
            points.sort_by_key(|point| point.at_us);
            put_unsigned(&mut out, u64::from(number));
            put_unsigned(&mut out, device);
            first_us = write_series(number, &points, first_us, &mut out, &mut columns);
        }
        out.append(&mut columns);
        out.extend([0; SLACK]);
        pad::pad(&mut out);
        Ok(out)
    }

    fn series(&mut self, signal: &Signal, device: u32) -> &mut Vec<Point> {
        let (device, number) = (device as usize, usize::from(signal.number));
        if self.series.len() <= device {
            self.series.resize_with(device + 1, Vec::new);
        }
        let signals = &mut self.series[device];
        if signals.len() <= number {
            signals.resize_with(number + 1, Vec::new);
        }
        &mut signals[number]
    }
}

/// Writes what follows a series' name in its entry, and its columns; gives its first instant.
fn write_series(
    number: u16,
    points: &[Point],
    before_us: i64,
    entry: &mut Vec<u8>,
    columns: &mut Vec<u8>,
) -> i64 {
    let at_us: Vec<i64> = points.iter().map(|point| point.at_us).collect();
    let value: Vec<f64> = points.iter().map(|point| point.value).collect();
    let stats = Stats::of(number, &at_us, &value);
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
    let mut start = columns.len();
    let mut end_column = |columns: &[u8]| {
        put_length(entry, columns.len() - start);
        start = columns.len();
    };
    times::encode(&at_us, stats.first_us, columns);
    end_column(columns);
    values::encode(&value, columns);
    end_column(columns);
    runs::encode(points.iter().map(|point| point.message), columns);
    end_column(columns);
    stats.first_us
}

/// What can be said of a series without decoding it.
#[derive(Clone, Copy, PartialEq)]
pub struct Stats {
    /// How many readings it has; at least one.
    pub count: usize,
    /// How many of them are [flagged](Quality::Flagged).
    pub flagged: usize,
    /// First instant, µs since the Unix epoch.
    pub first_us: i64,
    /// Last instant, µs since the Unix epoch.
    pub last_us: i64,
    /// Lowest value; of zeros the negative one, as Arrow orders them.
    pub min: f64,
    /// Highest value.
    pub max: f64,
    /// The values added up in the order of the series.
    pub sum: f64,
    /// Value of the last reading.
    pub last_value: f64,
}

impl Stats {
    fn of(number: u16, at_us: &[i64], values: &[f64]) -> Self {
        let signal = signal_of_number(number);
        let quality = |value: &f64| signal.map(|signal| signal.quality(*value));
        let flagged = |value: &&f64| quality(value) == Some(Quality::Flagged);
        Self {
            count: values.len(),
            flagged: values.iter().filter(flagged).count(),
            first_us: at_us.first().copied().unwrap_or_default(),
            last_us: at_us.last().copied().unwrap_or_default(),
            min: values
                .iter()
                .copied()
                .min_by(f64::total_cmp)
                .unwrap_or_default(),
            max: values
                .iter()
                .copied()
                .max_by(f64::total_cmp)
                .unwrap_or_default(),
            sum: values.iter().sum(),
            last_value: values.last().copied().unwrap_or_default(),
        }
    }
}

/// One signal of one device in a chunk.
#[derive(Clone)]
pub struct Series {
    /// What was measured.
    pub signal: &'static Signal,
    /// By which device, as an index into [`Readings::devices`].
    pub device: u32,
    /// What the readings amount to.
    pub stats: Stats,
    times: Range<usize>,
    values: Range<usize>,
    messages: Range<usize>,
}

/// The plaintext of one chunk, parsed and not yet decoded.
pub struct Readings {
    bytes: Zeroizing<Vec<u8>>,
    messages: MessageColumns,
    series: Vec<Series>,
}

impl Readings {
    /// Takes the plaintext of a chunk. Columns are only looked for, not decoded.
    ///
    /// # Errors
    /// [`ChunkError::Version`] or [`ChunkError::Damaged`].
    pub fn parse(bytes: Zeroizing<Vec<u8>>) -> Result<Self, ChunkError> {
        let mut reader = Reader::new(&bytes);
        if reader.byte()? != VERSION {
            return Err(ChunkError::Version);
        }
        let messages = MessageColumns::parse(&mut reader, &bytes)?;
        let count = reader.count(reader.rest().len())?;
        let (mut series, mut first_us, mut readings) = (Vec::new(), 0, 0);
        for _ in 0..count {
            let entry = Series::parse(&mut reader, first_us)?;
            first_us = entry.stats.first_us;
            readings += entry.stats.count;
            let known = (entry.device as usize) < messages.devices.len();
            if !known || readings > MAX_READINGS {
                return Err(ChunkError::Damaged("a series is of no device, or too long"));
            }
            series.push(entry);
        }
        for series in &mut series {
            for column in [&mut series.times, &mut series.values, &mut series.messages] {
                let start = bytes.len() - reader.rest().len();
                reader.take(column.len())?;
                *column = start..start + column.len();
            }
        }
        if reader.rest().len() < SLACK || reader.rest().iter().any(|byte| *byte != 0) {
            return Err(ChunkError::Damaged("it does not end in zero bytes"));
        }
        Ok(Self {
            bytes,
            messages,
            series,
        })
    }

    /// The devices that its messages are of.
    #[must_use]
    pub fn devices(&self) -> &[DeviceId] {
        &self.messages.devices
    }

    /// How many messages it was made of.
    #[must_use]
    pub fn message_count(&self) -> usize {
        self.messages.count
    }

    /// Its messages.
    ///
    /// # Errors
    /// [`ChunkError::Damaged`].
    pub fn messages(&self) -> Result<Messages, ChunkError> {
        self.messages.decode(&self.bytes)
    }

    /// Its series, ordered by signal number and device.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// Appends the instants of a series, in order, µs since the Unix epoch.
    ///
    /// # Errors
    /// [`ChunkError::Damaged`]. As for the other columns, what was appended until then is of no use.
    pub fn times(&self, series: &Series, out: &mut Vec<i64>) -> Result<(), ChunkError> {
        times::decode(
            self.column(&series.times, series)?,
            series.stats.first_us,
            out,
        )
    }

    /// Appends the values of a series, in the order of its instants.
    ///
    /// # Errors
    /// [`ChunkError::Damaged`].
    pub fn values(&self, series: &Series, out: &mut Vec<f64>) -> Result<(), ChunkError> {
        values::decode(self.column(&series.values, series)?, out)
    }

    /// Appends the index of the message that each reading of a series came in, in the order of its instants. Every
    /// index is one of [`Readings::messages`].
    ///
    /// # Errors
    /// [`ChunkError::Damaged`].
    pub fn message_indexes(&self, series: &Series, out: &mut Vec<u32>) -> Result<(), ChunkError> {
        let (column, messages) = (&series.messages, self.messages.count);
        let bytes = self.bytes.get(column.start..).unwrap_or_default();
        runs::decode(bytes, column.len(), series.stats.count, messages, out)
    }

    fn column(&self, column: &Range<usize>, series: &Series) -> Result<Column<'_>, ChunkError> {
        let bytes = self.bytes.get(column.start..).unwrap_or_default();
        Column::new(bytes, column.len(), series.stats.count)
    }
}

impl Series {
    /// Reads an entry; its columns are as long as they will be, and stand nowhere yet.
    fn parse(reader: &mut Reader<'_>, before_us: i64) -> Result<Self, ChunkError> {
        let signal = u16::try_from(reader.unsigned()?)
            .ok()
            .and_then(signal_of_number);
        let device = u32::try_from(reader.unsigned()?);
        let (Some(signal), Ok(device)) = (signal, device) else {
            return Err(ChunkError::Damaged("a series has no signal or device"));
        };
        let count = reader.count(MAX_READINGS)?;
        let flagged = reader.count(count)?;
        let first_us = before_us.wrapping_add(reader.signed()?);
        let last_us = first_us.wrapping_add(reader.unsigned()?.cast_signed());
        let stats = Stats {
            count,
            flagged,
            first_us,
            last_us,
            min: reader.float()?,
            max: reader.float()?,
            last_value: reader.float()?,
            sum: reader.float()?,
        };
        let mut column = || Ok::<_, ChunkError>(0..reader.count(usize::MAX)?);
        let (times, values, messages) = (column()?, column()?, column()?);
        Ok(Self {
            signal,
            device,
            stats,
            times,
            values,
            messages,
        })
    }
}

super::quiet_debug! {
    ReadingsBuilder: series = |it: &ReadingsBuilder| it.series.len();
    Readings: messages = |it: &Readings| it.messages.count, series = |it: &Readings| it.series.len();
    Series: code = |it: &Series| it.signal.code, count = |it: &Series| it.stats.count;
    Stats: count = |it: &Stats| it.count;
}
