//! Which readings a query can still want, asked of less and less: of a patient, a file, a chunk, a series, a reading.
//!
//! A [`Test`] is what the filters say, as far as it is understood. It is *reduced* by what is known of a whole group of
//! readings: [`Test::given`] returns what is left to ask of each of them, and [`Test::Never`] means that none of them
//! needs to be opened. So the same few lines prune a file by its times, a chunk by its signals and a series by its
//! sealed minimum, and they can only err towards reading too much.
//!
//! No column of `vitals` is ever null, so every test is true or false.

mod parse;

use std::collections::BTreeSet;

use vitalseal_vitals::{Quality, Reading, Signal};

pub(crate) use parse::Parsed;

/// A condition on one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// Holds for every reading.
    Always,
    /// Holds for none.
    Never,
    /// A column of text has one of these values.
    Text(Text, BTreeSet<String>),
    /// `ts` lies in one of these ranges, µs since the Unix epoch.
    Time(Ranges),
    /// `value` lies in one of these ranges of [`ordinal`]s.
    Value(Ranges),
    /// The condition does not hold.
    Not(Box<Self>),
    /// All hold.
    All(Vec<Self>),
    /// One holds.
    Any(Vec<Self>),
}

/// Ranges with both ends inside, rising and apart: however many there are, a look takes a binary search.
type Ranges = Vec<(i64, i64)>;

/// The columns of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Patient,
    Device,
    Code,
    Display,
    Unit,
    Quality,
}

/// What is known of a group of readings. What is not known excludes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// Their patient.
    pub(crate) patient: Option<&'a str>,
    /// Their device.
    pub(crate) device: Option<&'a str>,
    /// Their signal.
    pub(crate) signal: Option<&'static Signal>,
    /// The earliest and the latest `ts` among them, µs.
    pub(crate) times: (i64, i64),
    /// The least and the greatest value among them, as [`ordinal`]s.
    pub(crate) values: (i64, i64),
    /// Whether all (`false`: none) of them are flagged.
    pub(crate) flagged: Option<bool>,
}

impl Known<'_> {
    /// Nothing yet.
    pub(crate) const NOTHING: Self = Self {
        patient: None,
        device: None,
        signal: None,
        times: (i64::MIN, i64::MAX),
        values: (i64::MIN, i64::MAX),
        flagged: None,
    };
}

impl Test {
    /// What is left to ask of readings of which `known` holds.
    pub(crate) fn given(&self, known: &Known<'_>) -> Self {
        match self {
            Self::Always => Self::Always,
            Self::Never => Self::Never,
            Self::Text(Text::Quality, set) => {
                let holds = |quality: Quality| set.contains(quality.as_str());
                match (holds(Quality::Ok), holds(Quality::Flagged), known.flagged) {
                    (true, true, _) | (true, _, Some(false)) | (_, true, Some(true)) => {
                        Self::Always
                    }
                    (false, false, _) | (false, _, Some(false)) | (_, false, Some(true)) => {
                        Self::Never
                    }
                    _ => self.clone(),
                }
            }
            Self::Text(column, set) => match column.of(known) {
                Some(text) => decided(set.contains(text)),
                None if set.is_empty() => Self::Never,
                None => self.clone(),
            },
            Self::Time(ranges) => within(ranges, known.times, Self::Time),
            Self::Value(ranges) => within(ranges, known.values, Self::Value),
            Self::Not(test) => match test.given(known) {
                Self::Always => Self::Never,
                Self::Never => Self::Always,
                rest => Self::Not(Box::new(rest)),
            },
            Self::All(tests) => Self::all(tests.iter().map(|test| test.given(known))),
            Self::Any(tests) => Self::any(tests.iter().map(|test| test.given(known))),
        }
    }

    /// Whether any reading of which `known` holds can be wanted.
    pub(crate) fn allows(&self, known: &Known<'_>) -> bool {
        self.given(known) != Self::Never
    }

    /// The conjunction of `tests`.
    pub(crate) fn all(tests: impl IntoIterator<Item = Self>) -> Self {
        let mut left = Vec::new();
        for test in tests {
            match test {
                Self::Always => {}
                Self::Never => return Self::Never,
                Self::All(inner) => left.extend(inner),
                other => left.push(other),
            }
        }
        one_or(left, Self::Always, Self::All)
    }

    /// The disjunction of `tests`.
    pub(crate) fn any(tests: impl IntoIterator<Item = Self>) -> Self {
        let mut left = Vec::new();
        for test in tests {
            match test {
                Self::Never => {}
                Self::Always => return Self::Always,
                Self::Any(inner) => left.extend(inner),
                other => left.push(other),
            }
        }
        one_or(left, Self::Never, Self::Any)
    }

    /// Bounds on `ts` outside of which nothing is wanted.
    pub(crate) fn span(&self) -> (i64, i64) {
        match self {
            Self::Never => (i64::MAX, i64::MIN),
            Self::Time(ranges) => match ranges.as_slice() {
                [(low, high)] | [(low, _), .., (_, high)] => (*low, *high),
                [] => (i64::MAX, i64::MIN),
            },
            Self::All(tests) => tests
                .iter()
                .map(Self::span)
                .fold((i64::MIN, i64::MAX), |a, b| (a.0.max(b.0), a.1.min(b.1))),
            Self::Any(tests) => tests
                .iter()
                .map(Self::span)
                .fold((i64::MAX, i64::MIN), |a, b| (a.0.min(b.0), a.1.max(b.1))),
            _ => (i64::MIN, i64::MAX),
        }
    }

    /// Whether deciding it takes the time of each reading, and whether it takes the value.
    pub(crate) fn needs(&self) -> (bool, bool) {
        match self {
            Self::Always | Self::Never => (false, false),
            Self::Time(..) => (true, false),
            Self::Value(..) | Self::Text(..) => (false, true),
            Self::Not(test) => test.needs(),
            Self::All(tests) | Self::Any(tests) => tests
                .iter()
                .map(Self::needs)
                .fold((false, false), |a, b| (a.0 | b.0, a.1 | b.1)),
        }
    }

    /// Of how many conditions on one column it is made.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Always | Self::Never => 0,
            Self::Text(..) | Self::Time(_) | Self::Value(_) => 1,
            Self::Not(test) => test.size(),
            Self::All(tests) | Self::Any(tests) => tests.iter().map(Self::size).sum(),
        }
    }

    /// Whether it holds for one reading.
    pub(crate) fn wants(&self, patient: &str, device: &str, reading: &Reading) -> bool {
        let (at, value) = (reading.at.as_microsecond(), ordinal(reading.value));
        self.allows(&Known {
            patient: Some(patient),
            device: Some(device),
            signal: Some(reading.signal),
            times: (at, at),
            values: (value, value),
            flagged: Some(reading.quality() == Quality::Flagged),
        })
    }

    /// Keeps of `rows` (indexes into the columns) those for which it holds. The test was reduced by everything that is
    /// the same for the whole series of `signal`; a column that [`Self::needs`] does not name may be empty.
    pub(crate) fn retain(
        &self,
        signal: &Signal,
        times: &[i64],
        values: &[f64],
        rows: &mut Vec<u32>,
    ) {
        let at = |row: u32| usize::try_from(row).unwrap_or(usize::MAX);
        match self {
            Self::Always => {}
            Self::Never => rows.clear(),
            Self::Time(ranges) => rows.retain(|row| {
                let time = times.get(at(*row));
                time.is_some_and(|time| lies_in(ranges, *time))
            }),
            Self::Value(ranges) => rows.retain(|row| {
                let value = values.get(at(*row));
                value.is_some_and(|value| lies_in(ranges, ordinal(*value)))
            }),
            Self::Text(_, set) => {
                let (ok, flagged) = (
                    set.contains(Quality::Ok.as_str()),
                    set.contains(Quality::Flagged.as_str()),
                );
                let (low, high) = signal.flag;
                rows.retain(|row| match values.get(at(*row)) {
                    Some(value) if (low..=high).contains(value) => ok,
                    Some(_) => flagged,
                    None => false,
                });
            }
            Self::All(tests) => {
                for test in tests {
                    test.retain(signal, times, values, rows);
                }
            }
            Self::Any(_) | Self::Not(_) => {
                let mut dropped = rows.clone();
                match self {
                    Self::Not(test) => test.retain(signal, times, values, &mut dropped),
                    Self::Any(tests) => {
                        for test in tests {
                            let mut held = dropped.clone();
                            test.retain(signal, times, values, &mut held);
                            subtract(&mut dropped, &held);
                        }
                    }
                    _ => {}
                }
                subtract(rows, &dropped);
            }
        }
    }
}

impl Text {
    fn of<'a>(self, known: &Known<'a>) -> Option<&'a str> {
        match self {
            Self::Patient => known.patient,
            Self::Device => known.device,
            Self::Code => known.signal.map(|signal| signal.code),
            Self::Display => known.signal.map(|signal| signal.display),
            Self::Unit => known.signal.map(|signal| signal.unit),
            Self::Quality => None,
        }
    }
}

/// The place of a value in the order that the engine compares by: IEEE 754 totalOrder (NaN at the ends), but −0 equals 0.
pub(crate) fn ordinal(value: f64) -> i64 {
    // −0 + 0 is 0.
    let bits = (value + 0.0).to_bits().cast_signed();
    // Negative numbers are ordered by falling magnitude.
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

fn decided(holds: bool) -> Test {
    if holds { Test::Always } else { Test::Never }
}

/// What of `wanted` is left to ask where everything lies in `known`.
fn within(wanted: &[(i64, i64)], known: (i64, i64), test: fn(Ranges) -> Test) -> Test {
    let from = wanted.partition_point(|range| range.1 < known.0);
    let to = wanted.partition_point(|range| range.0 <= known.1);
    match wanted.get(from..to).unwrap_or(&[]) {
        [] => Test::Never,
        [(low, high)] if *low <= known.0 && known.1 <= *high => Test::Always,
        some => test(some.to_vec()),
    }
}

fn lies_in(ranges: &[(i64, i64)], number: i64) -> bool {
    let at = ranges.partition_point(|range| range.1 < number);
    ranges.get(at).is_some_and(|range| range.0 <= number)
}

fn one_or(mut tests: Vec<Test>, none: Test, many: fn(Vec<Test>) -> Test) -> Test {
    match tests.len() {
        0 => none,
        1 => tests.pop().unwrap_or(none),
        _ => many(tests),
    }
}

/// Takes `others`, a part of `rows`, out of it. Both rise.
fn subtract(rows: &mut Vec<u32>, others: &[u32]) {
    let mut others = others.iter().peekable();
    rows.retain(|row| {
        while others.next_if(|other| *other < row).is_some() {}
        others.peek() != Some(&row)
    });
}

#[cfg(test)]
mod tests;
