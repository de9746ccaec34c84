//! Rows of `waveforms` out of sealed rows: a stretch of samples as its device took it, in the signal's unit.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use jiff::Timestamp;
use vitalseal_crypto::default_backend;
use vitalseal_storage::catalog::TableKind;
use vitalseal_storage::chunk::Waveforms as Opened;
use vitalseal_vitals::{Period, Signal, waveform};

use super::Opener;
use super::chunks::{Amount, Chunk};
use super::gather::{Batches, Gather};
use super::rows::{Message, Rows};
use crate::error::QueryError;
use crate::run::QueryRun;
use crate::table::{Sealed, sample_field, waveforms_schema};
use crate::wanted::{Known, Test};

/// Opens waveforms, one row each.
pub(crate) struct Waveforms {
    run: Arc<QueryRun>,
    schema: SchemaRef,
    columns: Arc<[usize]>,
}

impl Waveforms {
    /// `columns` of the table are wanted, in this order.
    ///
    /// # Errors
    /// When there is no such column.
    pub(crate) fn new(run: Arc<QueryRun>, columns: Vec<usize>) -> Result<Self> {
        Ok(Self {
            run,
            schema: Arc::new(waveforms_schema().project(&columns)?),
            columns: columns.into(),
        })
    }
}

impl Opener for Waveforms {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn open(
        self: Arc<Self>,
        sealed: Sealed,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        match Rows::of(&sealed) {
            Ok(rows) => Box::new(Batches {
                gather: Gathering {
                    run: Arc::clone(&self.run),
                    rows,
                    stretches: Stretches::new(Arc::clone(&self.columns)),
                },
                sealed,
                next: 0,
            }),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        }
    }
}

impl fmt::Debug for Waveforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waveforms").finish_non_exhaustive()
    }
}

struct Gathering {
    run: Arc<QueryRun>,
    rows: Rows,
    stretches: Stretches,
}

impl Gather for Gathering {
    fn add(&mut self, at: usize, sealed: &Sealed) -> Result<()> {
        self.run.going_on()?;
        match &self.rows {
            Rows::Messages(rows) => {
                if let Some(message) = rows.message(at, sealed)? {
                    message_of(message, sealed, &self.run, &mut self.stretches)?;
                }
            }
            Rows::Chunks(rows) => {
                if let Some(chunk) = rows.chunk(at, sealed) {
                    chunk_of(&chunk, sealed, &self.run, &mut self.stretches)?;
                }
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.stretches.bytes
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.stretches.batch()
    }
}

/// The waveform of one message.
fn message_of(
    message: Message<'_>,
    sealed: &Sealed,
    run: &QueryRun,
    out: &mut Stretches,
) -> Result<()> {
    let header = message.envelope.header();
    if TableKind::from(header.content_type) != TableKind::Waveforms {
        return Ok(());
    }
    let damaged = || QueryError::Damaged(message.id.clone());
    let kek = message.keys.find(message.envelope.kek_kid());
    let payload = message
        .envelope
        .open(kek.ok_or_else(damaged)?, default_backend())
        .map_err(|_| damaged())?;
    let waveform = waveform::read(&payload).map_err(|_| damaged())?;
    let (first, last) = message.span_us;
    let at = |us| Timestamp::from_microsecond(us).ok();
    let samples = waveform.samples();
    run.opened(
        message.patient,
        1,
        samples.len() as u64,
        at(first).zip(at(last)),
    );
    let stretch = Stretch {
        patient: message.patient.as_str(),
        device: message.id.device.as_str(),
        signal: waveform.signal(),
        start_us: waveform.start().as_microsecond(),
        period: waveform.period(),
        received_at_us: message.received_at_us,
        boot: message.id.boot.cast_signed(),
        sequence: message.id.sequence.cast_signed(),
    };
    if stretch.is_wanted(&sealed.wanted) {
        out.push(&stretch, waveform.origin(), waveform.factor(), samples);
    }
    Ok(())
}

/// The waveforms of one chunk.
fn chunk_of(chunk: &Chunk<'_>, sealed: &Sealed, run: &QueryRun, out: &mut Stretches) -> Result<()> {
    let plain = chunk.open(TableKind::Waveforms)?;
    let damaged = || chunk.damaged();
    sealed.memory.try_grow(plain.len())?;
    let opened = Opened::parse(plain).map_err(|_| damaged())?;
    let stretches = opened
        .rows()
        .iter()
        .map(|row| (row.signal, row.count, (row.start_us, row.last_us())));
    chunk.opened(&Amount::of(opened.message_count(), stretches), run)?;
    let messages = opened.messages().map_err(|_| damaged())?;
    let mut samples = Vec::new();
    for row in opened.rows() {
        let message = row.message as usize;
        let part = |of: &[i64]| of.get(message).copied().ok_or_else(damaged);
        let device = messages.device.get(message).copied().ok_or_else(damaged)?;
        let device = opened.devices().get(device as usize).ok_or_else(damaged)?;
        let stretch = Stretch {
            patient: chunk.patient.as_str(),
            device: device.as_str(),
            signal: row.signal,
            start_us: row.start_us,
            period: row.period,
            received_at_us: part(&messages.received_at_us)?,
            boot: part(&messages.boot)?,
            sequence: part(&messages.sequence)?,
        };
        if !stretch.is_wanted(&sealed.wanted) {
            continue;
        }
        samples.clear();
        if out.wants_samples {
            sealed.memory.try_grow(row.count * size_of::<f64>())?;
            opened.samples(row, &mut samples).map_err(|_| damaged())?;
        }
        out.push(&stretch, row.origin, row.factor, &samples);
    }
    Ok(())
}

/// What is said of a waveform, but for its samples.
struct Stretch<'a> {
    patient: &'a str,
    device: &'a str,
    signal: &'static Signal,
    start_us: i64,
    period: Period,
    received_at_us: i64,
    boot: i64,
    sequence: i64,
}

impl Stretch<'_> {
    /// A waveform is wanted by its first sample.
    fn is_wanted(&self, wanted: &Test) -> bool {
        wanted.allows(&Known {
            patient: Some(self.patient),
            device: Some(self.device),
            signal: Some(self.signal),
            times: (self.start_us, self.start_us),
            ..Known::NOTHING
        })
    }
}

/// The columns of the table while they fill, in its order.
struct Stretches {
    wanted: Arc<[usize]>,
    wants_samples: bool,
    bytes: usize,
    texts: [StringViewBuilder; 5],
    start: TimestampMicrosecondBuilder,
    period_us: Float64Builder,
    samples: ListBuilder<Float64Builder>,
    received_at: TimestampMicrosecondBuilder,
    counters: [Int64Builder; 2],
}

impl Stretches {
    fn new(wanted: Arc<[usize]>) -> Self {
        let samples = waveforms_schema().index_of("samples");
        Self {
            wants_samples: samples.is_ok_and(|samples| wanted.contains(&samples)),
            wanted,
            bytes: 0,
            texts: Default::default(),
            start: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            period_us: Float64Builder::new(),
            samples: ListBuilder::new(Float64Builder::new()).with_field(sample_field()),
            received_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            counters: Default::default(),
        }
    }

    /// Samples that nobody wants may be left out.
    fn push(&mut self, stretch: &Stretch<'_>, origin: f64, factor: f64, samples: &[i32]) {
        let signal = stretch.signal;
        let texts = [
            stretch.patient,
            stretch.device,
            signal.code,
            signal.display,
            signal.unit,
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.append_value(text);
        }
        self.start.append_value(stretch.start_us);
        let Period {
            micros,
            samples: in_them,
        } = stretch.period;
        let period_us = f64::from(micros.get()) / f64::from(in_them.get());
        self.period_us.append_value(period_us);
        if self.wants_samples {
            let values = samples
                .iter()
                .map(|sample| Some(origin + factor * f64::from(*sample)));
            self.samples.values().extend(values);
        }
        self.samples.append(true);
        self.received_at.append_value(stretch.received_at_us);
        let [boot, sequence] = &mut self.counters;
        boot.append_value(stretch.boot);
        sequence.append_value(stretch.sequence);
        self.bytes += 256 + samples.len() * size_of::<f64>();
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.bytes = 0;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(11);
        for texts in &mut self.texts {
            columns.push(Arc::new(texts.finish()));
        }
        columns.push(Arc::new(self.start.finish()));
        columns.push(Arc::new(self.period_us.finish()));
        columns.push(Arc::new(self.samples.finish()));
        columns.push(Arc::new(self.received_at.finish()));
        for counters in &mut self.counters {
            columns.push(Arc::new(counters.finish()));
        }
        let batch = RecordBatch::try_new(waveforms_schema(), columns)?;
        Ok(batch.project(&self.wanted)?)
    }
}
