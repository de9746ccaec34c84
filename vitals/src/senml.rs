//! Readings as SenML in CBOR (RFC 8428, content format 112, `application/senml+cbor`).
//!
//! A payload is an array of records, each a map from the integer labels of RFC 8428 Table 4:
//!
//! | Label | Field | Here |
//! |---|---|---|
//! | -1 | `bver` base version | 1 to 10; anything above is refused, as the RFC demands |
//! | -2, -3, -4, -5, -6 | `bn` `bt` `bu` `bv` `bs` | added to (or standing in for) `n` `t` `u` `v` `s` until replaced |
//! | 0 | `n` name | with `bn` in front: a code of the [signal table](crate::signal()), or a component of a [panel] |
//! | 1 | `u` unit | the signal's UCUM unit, or one that converts to it; never missing |
//! | 2 | `v` value | integer, float or decimal fraction; finite |
//! | 6 | `t` time | seconds, with `bt` added: absolute, 2^28 or more |
//! | 7 | `ut` update time | read and dropped |
//! | 5 | `s` sum | with `bs` added: finite, and dropped, since an integral over time is not a reading; refused where there is no value |
//! | 3, 4, 8 | `vs` `vb` `vd` | refused: no signal in the table is a text, a truth or a blob |
//! | text | extensions | dropped; a label that ends in `_` must be understood, so it is refused (§4.4) |
//!
//! A record of base fields alone (as in RFC 8428 §5.1.7) yields no reading. What is dropped here stays in the envelope
//! that the device signed.
//!
//! A value that is sent twice, under a signal's code and under its [further one](Signal::also), is one reading.
//!
//! RFC 8428 §4.5.3 reads times below 2^28 as relative to the instant of reading. A message may wait in
//! an outbox for days, so that instant says nothing about the measurement: such times are refused.
//!
//! Times are kept to the microsecond. Base times are written as whole seconds, so that only the distance to
//! them is a float; a sender's float is good to the microsecond until the year 2242 (2^33 s).

use std::collections::HashSet;

use jiff::Timestamp;

use crate::cbor::{Label, Number, Reader, Writer};
use crate::signal::Signal;
use crate::{DecodeError, MAX_READINGS, Reading, panel, signal, signals, units};

/// SenML times below this many seconds are relative (RFC 8428 §4.5.3).
const ABSOLUTE_FROM_US: i128 = (1 << 28) * 1_000_000;

/// The highest version that is understood (RFC 8428 §4.4).
const VERSION: i128 = 10;

/// A code, with its panel in front, is at most this long; a longer name is not looked up.
const MAX_NAME: usize = 32;

/// Microseconds in a second.
const MICROS: i64 = 1_000_000;

/// Distances below 2^32 seconds are within a quarter of a microsecond as `f64`.
const FAR_US: i64 = (1 << 32) * MICROS;

mod label {
    pub(super) const BASE_VERSION: i8 = -1;
    pub(super) const BASE_NAME: i8 = -2;
    pub(super) const BASE_TIME: i8 = -3;
    pub(super) const BASE_UNIT: i8 = -4;
    pub(super) const BASE_VALUE: i8 = -5;
    pub(super) const BASE_SUM: i8 = -6;
    pub(super) const NAME: i8 = 0;
    pub(super) const UNIT: i8 = 1;
    pub(super) const VALUE: i8 = 2;
    pub(super) const TEXT_VALUE: i8 = 3;
    pub(super) const TRUTH_VALUE: i8 = 4;
    pub(super) const SUM: i8 = 5;
    pub(super) const TIME: i8 = 6;
    pub(super) const UPDATE_TIME: i8 = 7;
    pub(super) const DATA_VALUE: i8 = 8;
}

/// Encodes readings, deterministically: the first record carries the base time in whole seconds, every
/// record its distance to it where there is one. Whole numbers become integers, others the shortest exact float.
/// A reading 136 years away from the base time carries one of its own, so that no distance is too long for a float.
///
/// What [`decode`] refuses (no readings or too many, a value that is not finite, a time before 1978) is not
/// checked here, since a device has no better answer to it than the server's.
///
/// ```text
/// [ { n, u, v, bt }, { n, u, v }, { n, u, v, t: 1 }, … ]
/// ```
#[must_use]
pub fn encode(readings: &[Reading]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.array(readings.len());
    let mut base = None;
    for reading in readings {
        let at_us = reading.at.as_microsecond();
        let near = base.filter(|base| (at_us - base * MICROS).abs() < FAR_US);
        let second = near.unwrap_or(at_us.div_euclid(MICROS));
        let offset_us = at_us - second * MICROS;
        writer.map(3 + usize::from(near.is_none()) + usize::from(offset_us != 0));
        writer.integer(label::NAME.into());
        writer.text(reading.signal.code);
        writer.integer(label::UNIT.into());
        writer.text(reading.signal.unit);
        writer.integer(label::VALUE.into());
        writer.number(reading.value);
        // Deterministic maps sort their keys by encoded bytes: 0, 1, 2, 6, -3.
        if offset_us != 0 {
            writer.integer(label::TIME.into());
            writer.number(offset_us as f64 / 1e6);
        }
        if near.is_none() {
            writer.integer(label::BASE_TIME.into());
            writer.integer(second);
            base = Some(second);
        }
    }
    writer.into_bytes()
}

/// Decodes a payload into its readings, in order.
///
/// # Errors
/// [`DecodeError`], at the first thing that is not as the [module](self) says.
pub fn decode(payload: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    let mut reader = Reader::new(payload);
    let mut records = reader.array("a SenML pack is an array of records")?;
    let announced = records.announced().unwrap_or(1);
    if announced == 0 || announced > MAX_READINGS as u64 {
        return Err(DecodeError::Count);
    }
    let mut readings = Vec::new();
    let mut base = Base::default();
    let mut position = 0;
    while records.next(&mut reader)? {
        if position == MAX_READINGS {
            return Err(DecodeError::Count);
        }
        if let Some(record) = Record::read(&mut reader, &mut base)? {
            readings.push(record.resolve(&base, position)?);
        }
        position += 1;
    }
    if readings.is_empty() {
        return Err(DecodeError::Count);
    }
    reader.finish()?;
    drop_second_codes(&mut readings);
    Ok(readings)
}

/// Drops readings that repeat another one of the same instant under its signal's further code.
fn drop_second_codes(readings: &mut Vec<Reading>) {
    let pairs = signals()
        .iter()
        .filter_map(|signal| Some((signal.code, signal.also?)));
    for (code, also) in pairs {
        if !readings.iter().any(|reading| reading.signal.code == also) {
            continue;
        }
        let measured = |reading: &Reading| (reading.at, reading.value.to_bits());
        let first: HashSet<_> = readings
            .iter()
            .filter(|reading| reading.signal.code == code)
            .map(measured)
            .collect();
        readings
            .retain(|reading| reading.signal.code != also || !first.contains(&measured(reading)));
    }
}

/// The base fields that hold from their record on.
#[derive(Default)]
struct Base<'a> {
    name: &'a str,
    unit: Option<&'a str>,
    time: Option<Number>,
    value: Option<Number>,
    sum: Option<Number>,
}

/// The fields of one record, as sent.
#[derive(Default)]
struct Record<'a> {
    name: &'a str,
    unit: Option<&'a str>,
    time: Option<Number>,
    value: Option<Number>,
    sum: Option<Number>,
}

impl<'a> Record<'a> {
    /// `None` for a record that only sets base fields.
    fn read(reader: &mut Reader<'a>, base: &mut Base<'a>) -> Result<Option<Self>, DecodeError> {
        let mut record = Self::default();
        let mut seen = Seen::default();
        let mut fields = reader.map("a SenML record is a map")?;
        while fields.next(reader)? {
            let label = match reader.label()? {
                Label::Integer(label) => i8::try_from(label).unwrap_or(i8::MAX),
                Label::Text(label) if label.ends_with('_') => {
                    return Err(DecodeError::Unsupported(
                        "a label that must be understood is not",
                    ));
                }
                Label::Text(_) => {
                    reader.skip()?;
                    continue;
                }
            };
            seen.first_time(label)?;
            record.field(label, reader, base)?;
        }
        Ok((!seen.only_base()).then_some(record))
    }

    fn field(
        &mut self,
        label: i8,
        reader: &mut Reader<'a>,
        base: &mut Base<'a>,
    ) -> Result<(), DecodeError> {
        match label {
            label::NAME => self.name = reader.text("a name is a text")?,
            label::UNIT => self.unit = Some(reader.text("a unit is a text")?),
            label::VALUE => self.value = Some(reader.number("a value is a number")?),
            label::TIME => self.time = Some(reader.number("a time is a number")?),
            label::UPDATE_TIME => drop(reader.number("an update time is a number")?),
            label::BASE_NAME => base.name = reader.text("a base name is a text")?,
            label::BASE_UNIT => base.unit = Some(reader.text("a base unit is a text")?),
            label::BASE_TIME => base.time = Some(reader.number("a base time is a number")?),
            label::BASE_VALUE => base.value = Some(reader.number("a base value is a number")?),
            label::BASE_VERSION => {
                if !(1..=VERSION).contains(&reader.integer("a version is an integer")?) {
                    return Err(DecodeError::Unsupported("the SenML version is not 1 to 10"));
                }
            }
            label::SUM => self.sum = Some(reader.number("a sum is a number")?),
            label::BASE_SUM => base.sum = Some(reader.number("a base sum is a number")?),
            label::TEXT_VALUE | label::TRUTH_VALUE | label::DATA_VALUE => {
                return Err(DecodeError::Unsupported("a value is not a number"));
            }
            // Table 4 is conclusive: there will be no other integer label.
            _ => return Err(DecodeError::Shape("an integer label is not one of SenML's")),
        }
        Ok(())
    }

    /// The record with the base fields applied (RFC 8428 §4.6).
    fn resolve(&self, base: &Base<'_>, record: usize) -> Result<Reading, DecodeError> {
        let signal = find(base.name, self.name, record)?;
        let value = self.value.ok_or(match self.sum {
            Some(_) => DecodeError::OnlySum { record },
            None => DecodeError::Shape("a record has no value"),
        })?;
        let value = total(base.value, Some(value));
        let value = self
            .unit
            .or(base.unit)
            .and_then(|unit| units::to_stored(signal, unit, value))
            .ok_or(DecodeError::Unit {
                code: signal.code,
                unit: signal.unit,
            })?;
        if !value.is_finite() || !total(base.sum, self.sum).is_finite() {
            return Err(DecodeError::Number { record });
        }
        let at = self.instant(base, record)?;
        Ok(Reading { signal, value, at })
    }

    fn instant(&self, base: &Base<'_>, record: usize) -> Result<Timestamp, DecodeError> {
        let mut at_us = 0;
        for part in [base.time, self.time].into_iter().flatten() {
            at_us += micros(part).ok_or(DecodeError::Number { record })?;
        }
        if at_us < ABSOLUTE_FROM_US {
            return Err(DecodeError::RelativeTime { record });
        }
        let at_us = i64::try_from(at_us).map_err(|_| DecodeError::Number { record })?;
        Timestamp::from_microsecond(at_us).map_err(|_| DecodeError::Number { record })
    }
}

/// Which labels a record had already: a map with a key twice means two things at once.
#[derive(Default)]
struct Seen(u32);

impl Seen {
    fn first_time(&mut self, label: i8) -> Result<(), DecodeError> {
        // SenML's labels are -6 to 8; whatever lies outside is refused by its reader anyway.
        let bit = 1_u32 << (label.clamp(-6, 9) + 6);
        if self.0 & bit != 0 {
            return Err(DecodeError::Shape("a record has a label twice"));
        }
        self.0 |= bit;
        Ok(())
    }

    /// Whether there was a base field and no field of the record's own.
    fn only_base(&self) -> bool {
        self.0 != 0 && self.0 >> 6 == 0
    }
}

/// The signal that base name and name make together.
fn find(base: &str, name: &str, record: usize) -> Result<&'static Signal, DecodeError> {
    let joined;
    let name = match (base, name) {
        ("", name) => name,
        (base, "") => base,
        _ if base.len() + name.len() > MAX_NAME => "",
        _ => {
            joined = [base, name].concat();
            &joined
        }
    };
    if name == panel::BLOOD_PRESSURE {
        return Err(DecodeError::Unsupported(
            "a panel has no value of its own, its components have",
        ));
    }
    signal(name)
        .or_else(|| panel::component(name))
        .ok_or(DecodeError::UnknownSignal { record })
}

/// A base field and a record's own, added up; what is missing counts as zero (RFC 8428 §4.5.4).
fn total(base: Option<Number>, own: Option<Number>) -> f64 {
    base.map_or(0.0, Number::to_f64) + own.map_or(0.0, Number::to_f64)
}

/// Microseconds of a number of seconds: exact for integers, the nearest for floats. `None` outside any calendar.
fn micros(seconds: Number) -> Option<i128> {
    /// Well beyond the year 9999, well within the integers that `f64` holds exactly.
    const FAR: f64 = 1e15;
    if seconds.to_f64().is_nan() || seconds.to_f64().abs() > FAR {
        return None;
    }
    match seconds {
        Number::Integer(whole) => Some(whole * i128::from(MICROS)),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within ±10^21, far inside i128"
        )]
        // In two steps, both exact: seconds × 10^6 would round before `round` does.
        Number::Float(seconds) => {
            let (whole, fraction) = (
                seconds.trunc() as i128,
                (seconds.fract() * 1e6).round() as i128,
            );
            Some(whole * i128::from(MICROS) + fraction)
        }
    }
}

#[cfg(test)]
mod tests;
