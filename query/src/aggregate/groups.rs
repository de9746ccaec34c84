//! What is known of each group so far.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::error::Result;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::chunk::{Series, Stats};
use vitalseal_vitals::Signal;

use super::shape::{Fold, Key, Shape};
use crate::decrypt::{Column, Decoded, MessagePiece, Needs, READINGS_PER_BATCH, SeriesPiece};
use crate::error::QueryError;
use crate::wanted::Test;

/// What one group takes of memory, about: texts of two keys, a table entry and its state.
const GROUP_BYTES: usize = 320;

/// Groups of a shape.
#[derive(Debug)]
pub(crate) struct Groups {
    shape: Arc<Shape>,
    /// By the texts of the keys, then by the step of time; the latter is 0 where no key is one.
    groups: HashMap<Box<[Box<str>]>, HashMap<i64, State>>,
    len: usize,
}

/// The texts and the step of a group, and what is known of it.
type Row<'a> = (&'a [Box<str>], i64, Option<&'a State>);

/// Of all readings of a group.
#[derive(Clone, Copy, Debug)]
struct State {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    first_us: i64,
    last_us: i64,
    last_value: f64,
}

impl Groups {
    pub(crate) fn new(shape: Arc<Shape>) -> Self {
        Self {
            shape,
            groups: HashMap::new(),
            len: 0,
        }
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.len.saturating_mul(GROUP_BYTES)
    }

    /// Takes a series: by what is said of it, if that is enough.
    ///
    /// # Errors
    /// When it has to be decoded and is damaged.
    pub(crate) fn series(&mut self, piece: &SeriesPiece) -> Result<(), QueryError> {
        let readings = &piece.chunk.readings;
        let Some(series) = piece.series() else {
            return Ok(());
        };
        let device = piece.chunk.device(series);
        let device = device.ok_or(QueryError::Malformed(vitalseal_storage::schema::SEALED))?;
        let step = self.step();
        let names = self.names(&piece.chunk.patient, device.as_str(), series.signal);
        let stats = &series.stats;
        let one = step.floor(stats.first_us) == step.floor(stats.last_us);
        if one && piece.rest == Test::Always {
            self.add(names, step.floor(stats.first_us), &State::of(stats));
            return Ok(());
        }
        let needs = self.needs(!one);
        let decoded = Decoded::of(readings, series, &piece.rest, needs)
            .map_err(|_| QueryError::Malformed(vitalseal_storage::schema::SEALED))?;
        if !needs.times {
            let state = State::without_times(series, &decoded, needs);
            if state.count > 0 {
                self.add(names, step.floor(stats.first_us), &state);
            }
            return Ok(());
        }
        let rows = decoded.rows().map(|row| {
            let at_us = decoded.times.get(row).copied().unwrap_or_default();
            let value = decoded.values.get(row).copied().unwrap_or_default();
            (at_us, value)
        });
        self.run(names, rows);
        Ok(())
    }

    /// Takes a message.
    pub(crate) fn message(&mut self, piece: &MessagePiece) {
        let mut done: Vec<&'static Signal> = Vec::with_capacity(8);
        for reading in &piece.readings {
            let signal = reading.signal;
            if done.iter().any(|known| std::ptr::eq(*known, signal)) {
                continue;
            }
            done.push(signal);
            let names = self.names(&piece.patient, piece.message.device.as_str(), signal);
            let same = piece.readings.iter();
            let same = same.filter(|other| std::ptr::eq(other.signal, signal));
            let rows = same.map(|other| (other.at.as_microsecond(), other.value));
            self.run(names, rows);
        }
    }

    /// Takes the groups of another partition.
    pub(crate) fn merge(&mut self, other: Self) {
        for (names, steps) in other.groups {
            for (step, state) in steps {
                self.add(names.clone(), step, &state);
            }
        }
    }

    /// The rows that the aggregate gives.
    ///
    /// # Errors
    /// When they do not fit the schema.
    pub(crate) fn finish(self) -> Result<Vec<RecordBatch>> {
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(self.len);
        for (names, steps) in &self.groups {
            rows.extend(
                steps
                    .iter()
                    .map(|(step, state)| (&**names, *step, Some(state))),
            );
        }
        if rows.is_empty() && self.shape.keys.is_empty() {
            // Without keys there is one group, even of nothing.
            rows.push((&[], 0, None));
        }
        rows.chunks(READINGS_PER_BATCH)
            .map(|rows| self.batch(rows))
            .collect()
    }

    fn batch(&self, rows: &[Row<'_>]) -> Result<RecordBatch> {
        let schema = Arc::clone(&self.shape.schema);
        let fields = schema.fields().iter();
        let key = |at: usize| -> ArrayRef {
            let before = self.shape.keys.iter().take(at);
            let text = before.filter(|key| matches!(key, Key::Text(_))).count();
            match self.shape.keys.get(at) {
                Some(Key::Step(_)) => {
                    let steps = rows.iter().map(|(_, step, _)| *step);
                    Arc::new(
                        TimestampMicrosecondArray::from_iter_values(steps).with_timezone("UTC"),
                    )
                }
                _ => Arc::new(StringViewArray::from_iter(
                    rows.iter()
                        .map(|(names, ..)| names.get(text).map(|name| &**name)),
                )),
            }
        };
        let number = |of: fn(&State) -> f64| -> ArrayRef {
            let values = rows.iter().map(|(.., state)| state.map(of));
            Arc::new(Float64Array::from_iter(values))
        };
        let instant = |of: fn(&State) -> i64| -> ArrayRef {
            let values = rows.iter().map(|(.., state)| state.map(of));
            Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
        };
        let keys = (0..self.shape.keys.len()).map(key);
        let folds = self.shape.folds.iter().map(|fold| match fold {
            Fold::Count => {
                let counts = rows
                    .iter()
                    .map(|(.., state)| state.map_or(0, |it| it.count));
                let counts = counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
                Arc::new(Int64Array::from_iter_values(counts))
            }
            Fold::Min => number(|state| state.min),
            Fold::Max => number(|state| state.max),
            Fold::Sum => number(|state| state.sum),
            Fold::Average => number(State::average),
            Fold::First => instant(|state| state.first_us),
            Fold::Last => instant(|state| state.last_us),
            Fold::LastValue => number(|state| state.last_value),
            Fold::Key(at) => key(*at),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        // A step may be asked for in a finer unit.
        let arrays = keys.chain(folds).zip(fields);
        let arrays = arrays.map(|(array, field)| cast(&array, field.data_type()));
        let arrays = arrays.collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    /// Adds readings of one series, in whatever order; those that follow one another in time are looked up once.
    fn run(&mut self, names: Box<[Box<str>]>, rows: impl Iterator<Item = (i64, f64)>) {
        let step = self.step();
        let mut run: Option<(i64, State)> = None;
        for (at_us, value) in rows {
            let floor = step.floor(at_us);
            match &mut run {
                Some((known, state)) if *known == floor => state.push(at_us, value),
                _ => {
                    let next = (floor, State::first(at_us, value));
                    if let Some((floor, state)) = run.replace(next) {
                        self.add(names.clone(), floor, &state);
                    }
                }
            }
        }
        if let Some((floor, state)) = run {
            self.add(names, floor, &state);
        }
    }

    fn add(&mut self, names: Box<[Box<str>]>, step: i64, state: &State) {
        let steps = self.groups.entry(names).or_default();
        match steps.get_mut(&step) {
            Some(known) => known.merge(state),
            None => {
                steps.insert(step, *state);
                self.len += 1;
            }
        }
    }

    fn names(&self, patient: &SubjectPseudonym, device: &str, signal: &Signal) -> Box<[Box<str>]> {
        let texts = self.shape.keys.iter().filter_map(|key| match key {
            Key::Text(Column::Patient) => Some(patient.as_str()),
            Key::Text(Column::Device) => Some(device),
            Key::Text(Column::Code) => Some(signal.code),
            Key::Text(Column::Display) => Some(signal.display),
            Key::Text(_) => Some(signal.unit),
            Key::Step(_) => None,
        });
        texts.map(Box::from).collect()
    }

    fn step(&self) -> Step {
        let width = self.shape.keys.iter().find_map(|key| match key {
            Key::Step(width) => Some(*width),
            Key::Text(_) => None,
        });
        Step(width)
    }

    /// Which columns have to be decoded of a series that is not taken whole.
    fn needs(&self, steps: bool) -> Needs {
        let asks = |of: &[Fold]| self.shape.folds.iter().any(|fold| of.contains(fold));
        let times = steps || asks(&[Fold::First, Fold::Last, Fold::LastValue]);
        let values = asks(&[
            Fold::Min,
            Fold::Max,
            Fold::Sum,
            Fold::Average,
            Fold::LastValue,
        ]);
        Needs {
            times,
            values,
            messages: false,
        }
    }
}

/// Cuts instants off.
#[derive(Clone, Copy)]
struct Step(Option<i64>);

impl Step {
    fn floor(self, at_us: i64) -> i64 {
        match self.0 {
            None => 0,
            Some(width) => at_us.div_euclid(width).saturating_mul(width),
        }
    }
}

impl State {
    fn of(stats: &Stats) -> Self {
        Self {
            count: stats.count as u64,
            sum: stats.sum,
            min: stats.min,
            max: stats.max,
            first_us: stats.first_us,
            last_us: stats.last_us,
            last_value: stats.last_value,
        }
    }

    fn first(at_us: i64, value: f64) -> Self {
        Self {
            count: 1,
            sum: value,
            min: value,
            max: value,
            first_us: at_us,
            last_us: at_us,
            last_value: value,
        }
    }

    /// Of the wanted rows of a series, when nobody asks when they were.
    fn without_times(series: &Series, decoded: &Decoded, needs: Needs) -> Self {
        let mut state = Self {
            count: decoded.len() as u64,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            ..Self::of(&series.stats)
        };
        if needs.values {
            for row in decoded.rows() {
                let value = decoded.values.get(row).copied().unwrap_or_default();
                state.sum += value;
                state.extend(value, value);
            }
        }
        state
    }

    fn push(&mut self, at_us: i64, value: f64) {
        self.count += 1;
        self.sum += value;
        self.extend(value, value);
        self.first_us = self.first_us.min(at_us);
        if at_us >= self.last_us {
            (self.last_us, self.last_value) = (at_us, value);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.extend(other.min, other.max);
        self.first_us = self.first_us.min(other.first_us);
        if other.last_us > self.last_us {
            (self.last_us, self.last_value) = (other.last_us, other.last_value);
        }
    }

    /// In the order of the engine, which tells −0 from 0.
    fn extend(&mut self, min: f64, max: f64) {
        if min.total_cmp(&self.min).is_lt() {
            self.min = min;
        }
        if max.total_cmp(&self.max).is_gt() {
            self.max = max;
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "as the engine divides; exact below 2^53 readings"
    )]
    fn average(&self) -> f64 {
        self.sum / self.count as f64
    }
}
