//! The plaintext of a chunk's `sealed` column: the readings of one patient in one bucket, series by series.
//!
//! ```text
//! readings = head | messages | series unsigned | entry of each series | columns of each series | zero bytes
//!
//! entry    = signal unsigned | device unsigned | readings unsigned | flagged unsigned
//!            | first_us signed, less that of the entry before | last_us unsigned, less first_us
//!            | min float | max float | last value float | sum float
//!            | of its values, times and message indexes each: length unsigned, or 00 and an index unsigned
//! columns  = values | times | message indexes
//! ```
//!
//! A series is one signal of one device, in the order of time; entries are ordered by signal number, then by device.
//! A monitor measures many signals at one instant and sends them in one message: a column of times or messages that an
//! earlier series has already is not written again, and the entry names that series instead. The head is drawn in
//! `head.rs`. Zero bytes follow, at least [`SLACK`] and then up to the size class of the whole.
//!
//! What an entry says of its series answers most questions about it, so that its columns are not decoded; and a column
//! is decoded alone.

use std::ops::Range;

use vitalseal_crypto::DeviceId;
use vitalseal_vitals::{Signal, signal_of_number};
use zeroize::Zeroizing;

use super::bytes::Reader;
use super::error::{ChunkError, MAX_READINGS};
use super::head::{self, Digest};
use super::messages::{MessageColumns, Messages};
use super::pack::{BLOCK, Column, SLACK};
use super::stats::Stats;
use super::{runs, times, values};

const WRONG: ChunkError = ChunkError::Damaged("the entry of a series says what cannot be");

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
    evidence: Option<Digest>,
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
        let evidence = head::take(&mut reader)?;
        let messages = MessageColumns::parse(&mut reader, &bytes)?;
        let count = reader.count(reader.rest().len())?;
        let (mut series, mut places): (Vec<Series>, Vec<Places>) = (Vec::new(), Vec::new());
        let (mut first_us, mut readings) = (0, 0);
        for _ in 0..count {
            let (entry, place) = Series::parse(&mut reader, first_us)?;
            first_us = entry.stats.first_us;
            readings += entry.stats.count;
            if entry.device as usize >= messages.devices.len() || readings > MAX_READINGS {
                return Err(WRONG);
            }
            series.push(entry);
            places.push(place);
        }
        for (index, place) in places.into_iter().enumerate() {
            let mut column = |place, of: fn(&Series) -> &Range<usize>| match place {
                Place::Own(length) => {
                    let start = bytes.len() - reader.rest().len();
                    reader.take(length)?;
                    Ok(start..start + length)
                }
                Place::Same(other) => {
                    let before = series.get(..index).and_then(|before| before.get(other));
                    before.map(|other| of(other).clone()).ok_or(WRONG)
                }
            };
            let values = column(place.values, |series| &series.values)?;
            let times = column(place.times, |series| &series.times)?;
            let messages = column(place.messages, |series| &series.messages)?;
            if let Some(series) = series.get_mut(index) {
                // Nobody reserves for readings that the bytes cannot be.
                if series.stats.count > values.len().saturating_mul(BLOCK) {
                    return Err(WRONG);
                }
                (series.values, series.times, series.messages) = (values, times, messages);
            }
        }
        if reader.rest().len() < SLACK || reader.rest().iter().any(|byte| *byte != 0) {
            return Err(ChunkError::Damaged("it does not end in zero bytes"));
        }
        Ok(Self {
            bytes,
            evidence,
            messages,
            series,
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
    /// Whether it has the very instants of another series, so that they need not be decoded again.
    #[must_use]
    pub fn has_times_of(&self, other: &Self) -> bool {
        let all = |series: &Self| {
            (
                series.times.clone(),
                series.stats.first_us,
                series.stats.count,
            )
        };
        all(self) == all(other)
    }

    /// Reads an entry; where its columns are is not known yet.
    fn parse(reader: &mut Reader<'_>, before_us: i64) -> Result<(Self, Places), ChunkError> {
        let signal = u16::try_from(reader.unsigned()?)
            .ok()
            .and_then(signal_of_number);
        let device = u32::try_from(reader.unsigned()?);
        let (Some(signal), Ok(device)) = (signal, device) else {
            return Err(WRONG);
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
        let mut place = || match reader.count(usize::MAX)? {
            0 => Ok(Place::Same(reader.count(usize::MAX)?)),
            length => Ok(Place::Own(length)),
        };
        let places = Places {
            values: place()?,
            times: place()?,
            messages: place()?,
        };
        let series = Self {
            signal,
            device,
            stats,
            times: 0..0,
            values: 0..0,
            messages: 0..0,
        };
        Ok((series, places))
    }
}

/// Where the columns of an entry are.
struct Places {
    values: Place,
    times: Place,
    messages: Place,
}

enum Place {
    /// The next bytes, so many.
    Own(usize),
    /// Where those of an earlier series are.
    Same(usize),
}

super::quiet::quiet_debug! {
    Readings: messages = |it: &Readings| it.messages.count, series = |it: &Readings| it.series.len();
    Series: code = |it: &Series| it.signal.code, count = |it: &Series| it.stats.count;
}
