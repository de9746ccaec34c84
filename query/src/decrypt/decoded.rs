//! A series of a chunk, decoded as far as somebody needs it. Nothing else of this crate decodes one.

use vitalseal_storage::chunk::{ChunkError, Readings, Series};

use crate::wanted::Test;

/// What of a series was decoded: the columns that somebody needs, the others empty.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<f64>,
    pub(crate) messages: Vec<u32>,
    /// The wanted rows; `None` for all.
    pub(crate) rows: Option<Vec<u32>>,
    count: usize,
}

/// Which columns somebody needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) times: bool,
    pub(crate) values: bool,
    pub(crate) messages: bool,
}

impl Decoded {
    /// Decodes what is needed, or what `rest` has to be asked about, and asks it.
    ///
    /// # Errors
    /// When a column is damaged.
    pub(crate) fn of(
        readings: &Readings,
        series: &Series,
        rest: &Test,
        needs: Needs,
    ) -> Result<Self, ChunkError> {
        let count = series.stats.count;
        let (asks_times, asks_values) = rest.needs();
        let mut decoded = Self {
            count,
            ..Self::default()
        };
        if needs.times || asks_times {
            decoded.times.reserve_exact(count);
            readings.times(series, &mut decoded.times)?;
        }
        if needs.values || asks_values {
            decoded.values.reserve_exact(count);
            readings.values(series, &mut decoded.values)?;
        }
        if *rest != Test::Always {
            let mut rows = (0_u32..).take(count).collect();
            rest.retain(series.signal, &decoded.times, &decoded.values, &mut rows);
            decoded.rows = (rows.len() < count).then_some(rows);
        }
        if needs.messages && decoded.len() > 0 {
            readings.message_indexes(series, &mut decoded.messages)?;
        }
        Ok(decoded)
    }

    /// How many rows are wanted.
    pub(crate) fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.count, Vec::len)
    }

    /// The wanted rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> {
        let all = if self.rows.is_none() { self.count } else { 0 };
        let some = self.rows.iter().flatten();
        (0..all).chain(some.filter_map(|row| usize::try_from(*row).ok()))
    }

    /// A decoded column, wanted rows only.
    pub(super) fn taken<T: Copy>(&self, column: Vec<T>) -> Vec<T> {
        match &self.rows {
            None => column,
            Some(_) => self
                .rows()
                .filter_map(|at| column.get(at).copied())
                .collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use datafusion::common::ScalarValue;
    use datafusion::prelude::{Expr, col, lit};
    use jiff::Timestamp;
    use vitalseal_storage::chunk::{MessageMeta, ReadingsBuilder};
    use vitalseal_vitals::{Reading, signal};
    use zeroize::Zeroizing;

    use super::super::pieces::{Chunk, SeriesPiece};
    use super::*;
    use crate::table::vitals_schema;
    use crate::wanted::Parsed;

    /// What is left to ask of readings from this second of 1970 on.
    pub(crate) fn since(second: i64) -> Test {
        let zone = Some(Arc::from("UTC"));
        let at = ScalarValue::TimestampMicrosecond(Some(second * 1_000_000), zone);
        rest(&col("ts").gt_eq(lit(at)))
    }

    fn rest(filter: &Expr) -> Test {
        Parsed::of(filter, &vitals_schema()).test
    }

    /// A heart rate of 60, 61, … a second, from 1970 on, whose values do not decode: whoever wants one gets an error.
    pub(crate) fn undecodable(values: u32, rest: Test) -> SeriesPiece {
        let reading = |second: u32| Reading {
            signal: signal("8867-4").unwrap(),
            value: f64::from(60 + second),
            at: Timestamp::from_second(second.into()).unwrap(),
        };
        let readings: Vec<Reading> = (0..values).map(reading).collect();
        let mut built = ReadingsBuilder::new();
        let message = built.message(MessageMeta {
            device: "icu-1".parse().unwrap(),
            boot: 1,
            sequence: 1,
            received_at_us: 7,
        });
        built.push(message, &readings);
        let plain = built.finish().unwrap();
        let decodes = |readings: &Readings| {
            let series = &readings.series()[0];
            let values = readings.values(series, &mut Vec::new()).is_ok();
            let times = readings.times(series, &mut Vec::new()).is_ok();
            (times, values)
        };
        let damaged = (0..plain.len()).filter_map(|at| {
            let mut damaged = plain.to_vec();
            damaged[at] = 0x77;
            Readings::parse(Zeroizing::new(damaged)).ok()
        });
        let mut damaged = damaged.filter(|readings| decodes(readings) == (true, false));
        let chunk = Chunk {
            patient: format!("p{}", "a".repeat(32)).parse().unwrap(),
            readings: damaged.next().unwrap(),
        };
        SeriesPiece {
            chunk: Arc::new(chunk),
            index: 0,
            rest,
        }
    }

    #[test]
    fn a_column_that_nobody_needs_is_not_decoded() {
        let (nothing, times) = (
            Needs::default(),
            Needs {
                times: true,
                ..Needs::default()
            },
        );
        let values = Needs {
            values: true,
            ..times
        };
        let high = rest(&col("value").gt(lit(70.5)));
        for (rest, needs, rows) in [
            (Test::Always, nothing, Some(600)),
            (Test::Always, times, Some(600)),
            (since(11), nothing, Some(589)),
            (since(11), times, Some(589)),
            (Test::Always, values, None),
            (since(11), values, None),
            (high, nothing, None),
        ] {
            let piece = undecodable(600, rest);
            let series = piece.series().unwrap();
            let decoded = Decoded::of(&piece.chunk.readings, series, &piece.rest, needs);
            assert_eq!(
                decoded.as_ref().ok().map(Decoded::len),
                rows,
                "{:?}",
                piece.rest
            );
        }
    }
}
