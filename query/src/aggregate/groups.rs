//! What is known of each group so far, and what that takes of the memory that all queries share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::chunk::{Series, Stats};
use vitalseal_vitals::Signal;

use super::shape::{Fold, Key, Shape};
use crate::decrypt::{Column, Decoded, MessagePiece, Needs, READINGS_PER_BATCH, SeriesPiece};
use crate::error::QueryError;
use crate::wanted::Test;

/// What the state of a group takes, about: an entry of a table that has just doubled, beside the one that it leaves.
const GROUP_BYTES: usize = 256;

/// What the texts of some groups take beside that, about: their key, and a table of its own.
const TEXTS_BYTES: usize = 512;

/// Memory is asked for in parts of this size.
const ROOM_BYTES: usize = 64 << 10;

/// Groups of a shape.
#[derive(Debug)]
pub(crate) struct Groups {
    shape: Arc<Shape>,
    groups: Known,
    room: Room,
}

/// By the texts of the keys, then by the step of time; the latter is 0 where no key is one.
type Known = HashMap<Box<[Box<str>]>, HashMap<i64, State>>;

/// The texts and the step of a group, and what is known of it.
type Row = (Arc<[Box<str>]>, i64, Option<State>);

/// Memory that the groups may take. It goes back to the pool with them.
#[derive(Debug)]
struct Room {
    memory: MemoryReservation,
    left: usize,
}

impl Room {
    /// # Errors
    /// When the pool has no more.
    fn take(&mut self, bytes: usize) -> Result<()> {
        if self.left < bytes {
            self.memory.try_grow(ROOM_BYTES)?;
            self.left += ROOM_BYTES;
        }
        self.left -= bytes;
        Ok(())
    }
}

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
    /// None yet. What they take is asked of `memory` while they grow, and is theirs until the last is laid out.
    pub(crate) fn new(shape: Arc<Shape>, memory: MemoryReservation) -> Self {
        Self {
            shape,
            groups: HashMap::new(),
            room: Room { memory, left: 0 },
        }
    }

    /// Takes a series: by what is said of it, if that is enough.
    ///
    /// # Errors
    /// When it has to be decoded and is damaged, or makes more groups than there is memory for.
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
            return self.add(names, step.floor(stats.first_us), &State::of(stats));
        }
        let needs = self.needs(!one);
        let decoded = Decoded::of(readings, series, &piece.rest, needs)
            .map_err(|_| QueryError::Malformed(vitalseal_storage::schema::SEALED))?;
        if !needs.times {
            let state = State::without_times(series, &decoded, needs);
            if state.count > 0 {
                self.add(names, step.floor(stats.first_us), &state)?;
            }
            return Ok(());
        }
        let rows = decoded.rows().map(|row| {
            let at_us = decoded.times.get(row).copied().unwrap_or_default();
            let value = decoded.values.get(row).copied().unwrap_or_default();
            (at_us, value)
        });
        self.run(names, rows)
    }

    /// Takes a message.
    ///
    /// # Errors
    /// When it makes more groups than there is memory for.
    pub(crate) fn message(&mut self, piece: &MessagePiece) -> Result<(), QueryError> {
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
            self.run(names, rows)?;
        }
        Ok(())
    }

    /// Takes the groups of another partition. There may be millions; whoever cancels gets a word in between.
    ///
    /// # Errors
    /// When there is not the memory for both.
    pub(crate) async fn merge(&mut self, other: Self) -> Result<(), QueryError> {
        let mut taken = 0_usize;
        for (names, steps) in other.groups {
            for (step, state) in steps {
                self.add(names.clone(), step, &state)?;
                taken += 1;
                if taken.is_multiple_of(READINGS_PER_BATCH) {
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(())
    }

    /// The rows that the aggregate gives, laid out batch by batch.
    pub(crate) fn finish(self) -> impl Iterator<Item = Result<RecordBatch>> {
        let Self {
            shape,
            groups,
            room,
        } = self;
        // Without keys there is one group, even of nothing.
        let nothing: Option<Row> =
            (groups.is_empty() && shape.keys.is_empty()).then(|| (Arc::from([]), 0, None));
        let rows = groups.into_iter().flat_map(|(names, steps)| {
            let names: Arc<[Box<str>]> = Arc::from(names);
            let row = move |(step, state)| (Arc::clone(&names), step, Some(state));
            steps.into_iter().map(row)
        });
        let mut rows = rows.chain(nothing);
        std::iter::from_fn(move || {
            let _until_the_last = &room;
            let next: Vec<Row> = rows.by_ref().take(READINGS_PER_BATCH).collect();
            (!next.is_empty()).then(|| batch(&shape, &next))
        })
    }

    /// Adds readings of one series, in whatever order; those that follow one another in time are looked up once.
    fn run(
        &mut self,
        names: Box<[Box<str>]>,
        rows: impl Iterator<Item = (i64, f64)>,
    ) -> Result<(), QueryError> {
        let step = self.step();
        let mut run: Option<(i64, State)> = None;
        for (at_us, value) in rows {
            let floor = step.floor(at_us);
            match &mut run {
                Some((known, state)) if *known == floor => state.push(at_us, value),
                _ => {
                    let next = (floor, State::first(at_us, value));
                    if let Some((floor, state)) = run.replace(next) {
                        self.add(names.clone(), floor, &state)?;
                    }
                }
            }
        }
        match run {
            Some((floor, state)) => self.add(names, floor, &state),
            None => Ok(()),
        }
    }

    fn add(&mut self, names: Box<[Box<str>]>, step: i64, state: &State) -> Result<(), QueryError> {
        let steps = match self.groups.entry(names) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.room.take(TEXTS_BYTES)?;
                new.insert(HashMap::new())
            }
        };
        match steps.entry(step) {
            Entry::Occupied(mut known) => known.get_mut().merge(state),
            Entry::Vacant(new) => {
                self.room.take(GROUP_BYTES)?;
                new.insert(*state);
            }
        }
        Ok(())
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

/// Rows of the schema.
///
/// # Errors
/// When they do not fit it.
fn batch(shape: &Shape, rows: &[Row]) -> Result<RecordBatch> {
    let schema = Arc::clone(&shape.schema);
    let fields = schema.fields().iter();
    let key = |at: usize| -> ArrayRef {
        let before = shape.keys.iter().take(at);
        let text = before.filter(|key| matches!(key, Key::Text(_))).count();
        match shape.keys.get(at) {
            Some(Key::Step(_)) => {
                let steps = rows.iter().map(|(_, step, _)| *step);
                Arc::new(TimestampMicrosecondArray::from_iter_values(steps).with_timezone("UTC"))
            }
            _ => Arc::new(StringViewArray::from_iter(
                rows.iter()
                    .map(|(names, ..)| names.get(text).map(|name| &**name)),
            )),
        }
    };
    let number = |of: fn(&State) -> f64| -> ArrayRef {
        let values = rows.iter().map(|(.., state)| state.as_ref().map(of));
        Arc::new(Float64Array::from_iter(values))
    };
    let instant = |of: fn(&State) -> i64| -> ArrayRef {
        let values = rows.iter().map(|(.., state)| state.as_ref().map(of));
        Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
    };
    let keys = (0..shape.keys.len()).map(key);
    let folds = shape.folds.iter().map(|fold| match fold {
        Fold::Count => {
            let counts = rows
                .iter()
                .map(|(.., state)| state.as_ref().map_or(0, |it| it.count));
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

#[cfg(test)]
mod tests;
