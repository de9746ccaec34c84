//! The plaintext of a chunk's `sealed` column in the table of waveforms: stretches of even samples, one a message.
//!
//! ```text
//! waveforms = head | messages | stretches unsigned | columns | samples of each stretch, a column | zero bytes
//!
//! columns   = signal | message | start µs | period µs | period samples | samples | length of the samples' column
//!             | factor | origin                   the last two of values; before each its length unsigned
//! ```
//!
//! Stretches are ordered by signal number, start and message. Samples are the integers that the device took, so that
//! `origin + factor × sample` gives every value bit for bit. The head is drawn in `head.rs`. Zero bytes follow as in
//! [`readings`](super::readings).

use std::ops::Range;

use vitalseal_crypto::DeviceId;
use vitalseal_vitals::{Period, Signal, Waveform, signal_of_number};
use zeroize::Zeroizing;

use super::bytes::{Reader, put_length};
use super::error::{ChunkError, MAX_READINGS};
use super::head::{self, Digest};
use super::messages::{MessageColumns, MessageMeta, MessageTable, Messages};
use super::pack::{self, Column, SLACK};
use super::{pad, values};

const DAMAGED: ChunkError = ChunkError::Damaged("a stretch of samples is not one");

/// Makes the plaintext of one chunk of waveforms.
#[derive(Default)]
pub struct WaveformsBuilder {
    evidence: Digest,
    messages: MessageTable,
    stretches: Vec<(u32, Waveform)>,
}

impl WaveformsBuilder {
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

    /// Adds a waveform of a message.
    pub fn push(&mut self, message: u32, waveform: Waveform) {
        self.stretches.push((message, waveform));
    }

    /// Adds all messages and waveforms of another chunk, behind those that are here.
    ///
    /// # Errors
    /// [`ChunkError::Damaged`] when it cannot be decoded. What is here then is part of it, and of no use.
    pub fn merge(&mut self, other: &Waveforms) -> Result<(), ChunkError> {
        let first = self.messages.extend(&other.messages()?, other.devices())?;
        for row in other.rows() {
            let mut samples = Vec::new();
            other.samples(row, &mut samples)?;
            let start = jiff::Timestamp::from_microsecond(row.start_us).map_err(|_| DAMAGED)?;
            let (period, factor, origin) = (row.period, row.factor, row.origin);
            let waveform = Waveform::new(row.signal, start, period, factor, origin, samples);
            let waveform = waveform.map_err(|_| DAMAGED)?;
            self.push(first.saturating_add(row.message), waveform);
        }
        Ok(())
    }

    /// The chunk's plaintext, as long as its size class.
    ///
    /// # Errors
    /// [`ChunkError::TooMany`] for more than one chunk may hold, [`ChunkError::NoSuchMessage`] when a waveform was given
    /// for a message that was not.
    pub fn finish(mut self) -> Result<Zeroizing<Vec<u8>>, ChunkError> {
        let samples: usize = self
            .stretches
            .iter()
            .map(|(_, waveform)| waveform.len())
            .sum();
        if samples > MAX_READINGS {
            return Err(ChunkError::TooMany);
        }
        let has_message =
            |(message, _): &(u32, Waveform)| self.messages.device_of(*message).is_some();
        if !self.stretches.iter().all(has_message) {
            return Err(ChunkError::NoSuchMessage);
        }
        self.stretches.sort_by_key(|(message, waveform)| {
            (waveform.signal().number, waveform.start(), *message)
        });
        // Room for what is usual, since a vector that moves leaves its bytes behind.
        let mut out = Zeroizing::new(Vec::with_capacity(2 * samples + 4096));
        head::put(&self.evidence, &mut out);
        self.messages.write(&mut out)?;
        put_length(&mut out, self.stretches.len());
        let mut columns = Zeroizing::new(Vec::with_capacity(2 * samples));
        let mut integers: [Vec<i64>; 7] = Default::default();
        let (mut factors, mut origins) = (Vec::new(), Vec::new());
        for (message, waveform) in &self.stretches {
            let samples: Vec<i64> = waveform.samples().iter().copied().map(i64::from).collect();
            let samples = Zeroizing::new(samples);
            let before = columns.len();
            pack::encode(&samples, &mut columns);
            let row = [
                i64::from(waveform.signal().number),
                i64::from(*message),
                waveform.start().as_microsecond(),
                waveform.period().micros.get().into(),
                waveform.period().samples.get().into(),
                signed(waveform.len()),
                signed(columns.len() - before),
            ];
            for (column, value) in integers.iter_mut().zip(row) {
                column.push(value);
            }
            factors.push(waveform.factor());
            origins.push(waveform.origin());
        }
        let mut column = Vec::new();
        for integers in &integers {
            pack::encode(integers, &mut column);
            put_length(&mut out, column.len());
            out.append(&mut column);
        }
        for floats in [&factors, &origins] {
            values::encode(floats, &mut column);
            put_length(&mut out, column.len());
            out.append(&mut column);
        }
        out.append(&mut columns);
        out.extend([0; SLACK]);
        pad::pad(&mut out);
        Ok(out)
    }
}

/// A length is far below 2^63.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// A stretch of even samples in a chunk.
#[derive(Clone)]
pub struct WaveformRow {
    /// What was sampled.
    pub signal: &'static Signal,
    /// The message that it came in, as an index into [`Waveforms::messages`].
    pub message: u32,
    /// When the first sample was taken, µs since the Unix epoch.
    pub start_us: i64,
    /// The time between two samples.
    pub period: Period,
    /// What one step of a sample is worth, in the signal's unit.
    pub factor: f64,
    /// The value that a zero sample stands for, in the signal's unit.
    pub origin: f64,
    /// How many samples there are.
    pub count: usize,
    samples: Range<usize>,
}

impl WaveformRow {
    /// When the last sample was taken, µs since the Unix epoch.
    #[must_use]
    pub fn last_us(&self) -> i64 {
        let last = self.count.saturating_sub(1);
        self.start_us.saturating_add(self.period.offset_us(last))
    }
}

/// The plaintext of one chunk of waveforms, parsed; samples are not yet decoded.
pub struct Waveforms {
    bytes: Zeroizing<Vec<u8>>,
    evidence: Option<Digest>,
    messages: MessageColumns,
    rows: Vec<WaveformRow>,
}

impl Waveforms {
    /// Takes the plaintext of a chunk.
    ///
    /// # Errors
    /// [`ChunkError::Version`] or [`ChunkError::Damaged`].
    pub fn parse(bytes: Zeroizing<Vec<u8>>) -> Result<Self, ChunkError> {
        let mut reader = Reader::new(&bytes);
        let evidence = head::take(&mut reader)?;
        let messages = MessageColumns::parse(&mut reader, &bytes)?;
        let count = reader.count(MAX_READINGS)?;
        let mut column = || {
            let length = reader.count(bytes.len())?;
            let at = reader.rest();
            reader.take(length)?;
            Column::new(at, length, count)
        };
        let mut integers: [Vec<i64>; 7] = Default::default();
        for integers in &mut integers {
            column()?.decode(integers)?;
        }
        let (mut factors, mut origins) = (Vec::new(), Vec::new());
        values::decode(column()?, &mut factors)?;
        values::decode(column()?, &mut origins)?;
        let (mut rows, mut samples) = (Vec::new(), 0);
        for row in 0..count {
            let parts = integers.each_ref().map(|column| column.get(row).copied());
            let floats = (factors.get(row), origins.get(row));
            let (Some(parts), (Some(factor), Some(origin))) = (all(parts), floats) else {
                return Err(DAMAGED);
            };
            let start = bytes.len() - reader.rest().len();
            let row = WaveformRow::new(parts, *factor, *origin, start).ok_or(DAMAGED)?;
            reader.take(row.samples.len())?;
            samples += row.count;
            if samples > MAX_READINGS || row.message as usize >= messages.count {
                return Err(DAMAGED);
            }
            rows.push(row);
        }
        if reader.rest().len() < SLACK || reader.rest().iter().any(|byte| *byte != 0) {
            return Err(ChunkError::Damaged("it does not end in zero bytes"));
        }
        Ok(Self {
            bytes,
            evidence,
            messages,
            rows,
        })
    }

    /// SHA-256 of the [evidence](super::Evidence::digest) that it was made of; `None` when that is not said.
    #[must_use]
    pub fn evidence(&self) -> Option<Digest> {
        self.evidence
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

    /// Its stretches, ordered by signal number, start and message.
    #[must_use]
    pub fn rows(&self) -> &[WaveformRow] {
        &self.rows
    }

    /// Appends the samples of a stretch, as the device took them.
    ///
    /// # Errors
    /// [`ChunkError::Damaged`]. What was appended until then is of no use.
    pub fn samples(&self, row: &WaveformRow, out: &mut Vec<i32>) -> Result<(), ChunkError> {
        self.each_sample(row, out, |sample| sample)
    }

    /// Appends the values of a stretch, in the signal's unit.
    ///
    /// # Errors
    /// As for [`Waveforms::samples`].
    pub fn values(&self, row: &WaveformRow, out: &mut Vec<f64>) -> Result<(), ChunkError> {
        let (origin, factor) = (row.origin, row.factor);
        self.each_sample(row, out, |sample| origin + factor * f64::from(sample))
    }

    fn each_sample<T>(
        &self,
        row: &WaveformRow,
        out: &mut Vec<T>,
        of: impl Fn(i32) -> T,
    ) -> Result<(), ChunkError> {
        let mut samples: Zeroizing<Vec<i64>> = Zeroizing::new(Vec::new());
        let bytes = self.bytes.get(row.samples.start..).unwrap_or_default();
        Column::new(bytes, row.samples.len(), row.count)?.decode(&mut samples)?;
        let mut fits = true;
        out.extend(samples.iter().map(|sample| {
            let sample = i32::try_from(*sample);
            fits &= sample.is_ok();
            of(sample.unwrap_or_default())
        }));
        if fits { Ok(()) } else { Err(DAMAGED) }
    }
}

impl WaveformRow {
    fn new(parts: [i64; 7], factor: f64, origin: f64, start: usize) -> Option<Self> {
        let [signal, message, start_us, micros, samples, count, length] = parts;
        let period = Period::new(micros.try_into().ok()?, samples.try_into().ok()?)?;
        let length = usize::try_from(length).ok()?;
        Some(Self {
            signal: signal_of_number(signal.try_into().ok()?)?,
            message: message.try_into().ok()?,
            start_us,
            period,
            factor,
            origin,
            count: count.try_into().ok()?,
            samples: start..start.checked_add(length)?,
        })
    }
}

/// All of them, if all are there.
fn all<const N: usize>(parts: [Option<i64>; N]) -> Option<[i64; N]> {
    let mut all = [0; N];
    for (place, part) in all.iter_mut().zip(parts) {
        *place = part?;
    }
    Some(all)
}

super::quiet::quiet_debug! {
    WaveformsBuilder: stretches = |it: &WaveformsBuilder| it.stretches.len();
    Waveforms: messages = |it: &Waveforms| it.messages.count, rows = |it: &Waveforms| it.rows.len();
    WaveformRow: code = |it: &WaveformRow| it.signal.code, count = |it: &WaveformRow| it.count;
}
