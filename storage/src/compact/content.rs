//! What a chunk says, summed up so that it can be compared: each reading with its message, and each message.
//!
//! A sum, since a chunk has its readings in another order than they came. It finds what was forgotten, doubled or changed
//! by a mistake or a bad memory cell; it stays in memory, and is no defence against anybody who means harm.

use vitalseal_vitals::{Reading, Signal, Waveform};
use zeroize::Zeroizing;

use super::seal::Plain;
use crate::chunk::{ChunkError, MessageMeta};

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Content(u64);

impl Content {
    pub(super) fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    pub(super) fn message(&mut self, message: u32, meta: &MessageMeta) {
        let device = meta.device.as_bytes().iter();
        let device = device.fold(0, |sum, byte| mix(sum, u64::from(*byte)));
        let received = meta.received_at_us.cast_unsigned();
        self.count([
            1,
            message.into(),
            device,
            meta.boot,
            meta.sequence,
            received,
        ]);
    }

    pub(super) fn readings(&mut self, message: u32, readings: &[Reading]) {
        for reading in readings {
            let at_us = reading.at.as_microsecond();
            self.reading(message, reading.signal, at_us, reading.value);
        }
    }

    pub(super) fn waveform(&mut self, message: u32, waveform: &Waveform) {
        let start_us = waveform.start().as_microsecond();
        let scale = (waveform.factor(), waveform.origin());
        let period = waveform.period();
        let period = (period.micros.get(), period.samples.get());
        let signal = waveform.signal();
        self.stretch(message, signal, start_us, period, scale, waveform.samples());
    }

    /// All of a chunk, its first message being number `first`.
    pub(super) fn of(plain: &Plain, first: u32) -> Result<Self, ChunkError> {
        let mut content = Self::default();
        let count = u32::try_from(plain.messages()).map_err(|_| ChunkError::TooMany)?;
        let number = |message: u32| {
            let known = (message < count).then(|| first.saturating_add(message));
            known.ok_or(ChunkError::NoSuchMessage)
        };
        let (messages, devices) = match plain {
            Plain::Vitals(readings) => (readings.messages()?, readings.devices()),
            Plain::Waveforms(waveforms) => (waveforms.messages()?, waveforms.devices()),
        };
        for message in 0..count {
            let meta = messages.meta(message as usize, devices);
            let meta = meta.ok_or(ChunkError::Damaged("a message is not whole"))?;
            content.message(number(message)?, &meta);
        }
        match plain {
            Plain::Vitals(readings) => {
                for series in readings.series() {
                    let mut at = Zeroizing::new(Vec::new());
                    let (mut value, mut from) = (Zeroizing::new(Vec::new()), Vec::new());
                    readings.times(series, &mut at)?;
                    readings.values(series, &mut value)?;
                    readings.message_indexes(series, &mut from)?;
                    for ((at_us, value), message) in at.iter().zip(value.iter()).zip(from) {
                        content.reading(number(message)?, series.signal, *at_us, *value);
                    }
                }
            }
            Plain::Waveforms(waveforms) => {
                for row in waveforms.rows() {
                    let mut samples = Zeroizing::new(Vec::new());
                    waveforms.samples(row, &mut samples)?;
                    let period = (row.period.micros.get(), row.period.samples.get());
                    let (message, scale) = (number(row.message)?, (row.factor, row.origin));
                    content.stretch(message, row.signal, row.start_us, period, scale, &samples);
                }
            }
        }
        Ok(content)
    }

    fn reading(&mut self, message: u32, signal: &Signal, at_us: i64, value: f64) {
        let signal = u64::from(signal.number);
        self.count([
            2,
            message.into(),
            signal,
            at_us.cast_unsigned(),
            value.to_bits(),
            0,
        ]);
    }

    fn stretch(
        &mut self,
        message: u32,
        signal: &Signal,
        start_us: i64,
        (micros, samples): (u32, u32),
        (factor, origin): (f64, f64),
        taken: &[i32],
    ) {
        let taken = taken.iter().fold(taken.len() as u64, |sum, sample| {
            mix(sum, u64::from(sample.cast_unsigned()))
        });
        let scale = mix(mix(factor.to_bits(), origin.to_bits()), taken);
        let period = u64::from(micros) << 32 | u64::from(samples);
        let signal = u64::from(signal.number) << 32 | u64::from(message);
        self.count([3, signal, start_us.cast_unsigned(), period, scale, 0]);
    }

    fn count(&mut self, words: [u64; 6]) {
        self.0 = self.0.wrapping_add(words.into_iter().fold(0, mix));
    }
}

/// The finalizer of `SplitMix64`, over one word after the other.
fn mix(sum: u64, word: u64) -> u64 {
    let mut mixed = (sum ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use vitalseal_vitals::signal;

    use super::*;
    use crate::chunk::{Readings, ReadingsBuilder};

    fn reading(at_s: i64, value: f64) -> Reading {
        Reading {
            signal: signal("8867-4").unwrap(),
            value,
            at: jiff::Timestamp::from_second(at_s).unwrap(),
        }
    }

    fn meta(sequence: u64) -> MessageMeta {
        MessageMeta {
            device: "monitor-1".parse().unwrap(),
            boot: 1,
            sequence,
            received_at_us: 7,
        }
    }

    #[test]
    fn a_chunk_sums_up_to_what_went_in_whatever_the_order_and_to_nothing_else() {
        // Out of order, and two at one instant.
        let given = [
            (meta(1), vec![reading(9, 60.0), reading(5, 61.5)]),
            (meta(2), vec![reading(5, 62.0)]),
        ];
        let mut builder = ReadingsBuilder::new();
        let mut sum = Content::default();
        for (number, (meta, readings)) in (0..).zip(&given) {
            sum.message(number, meta);
            sum.readings(number, readings);
            let message = builder.message(meta.clone());
            builder.push(message, readings);
        }
        let plain = Plain::Vitals(Readings::parse(builder.finish().unwrap()).unwrap());
        assert!(Content::of(&plain, 0).unwrap() == sum);
        assert!(Content::of(&plain, 1).unwrap() != sum, "other messages");
        let other = |change: &dyn Fn(&mut Content)| {
            let mut sum = Content::default();
            change(&mut sum);
            sum
        };
        let one = other(&|sum| sum.readings(0, &[reading(5, 61.5)]));
        for changed in [
            other(&|sum| sum.readings(1, &[reading(5, 61.5)])),
            other(&|sum| sum.readings(0, &[reading(6, 61.5)])),
            other(&|sum| sum.readings(0, &[reading(5, -61.5)])),
            other(&|sum| sum.readings(0, &[reading(5, 61.5), reading(5, 61.5)])),
            other(&|sum| sum.message(0, &meta(1))),
            Content::default(),
        ] {
            assert!(changed != one);
        }
    }
}
