//! What is opened of sealed rows, piece by piece: a series of a chunk, or a message.
//!
//! What does not hold ends the query with an error that names the place, and says nothing of what is in it.

use std::sync::Arc;

use vitalseal_crypto::{Backend, DeviceId, MessageId, SubjectPseudonym, default_backend};
use vitalseal_storage::catalog::TableKind;
use vitalseal_storage::chunk::{Readings, Series};
use vitalseal_vitals::{Reading, senml};

use super::chunks::{self, Amount};
use super::rows;
use crate::error::QueryError;
use crate::run::QueryRun;
use crate::table::Sealed;
use crate::wanted::{Known, Test, ordinal};

/// Readings that share a patient.
#[derive(Debug)]
pub(crate) enum Piece {
    /// One series of a chunk, not decoded yet.
    Series(SeriesPiece),
    /// One message.
    Message(MessagePiece),
}

/// Readings of one signal from one device, in order of time.
#[derive(Debug)]
pub(crate) struct SeriesPiece {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) index: usize,
    /// What is left to ask of each reading.
    pub(crate) rest: Test,
}

/// An opened chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) patient: SubjectPseudonym,
    pub(crate) readings: Readings,
}

/// The wanted readings of one message, in its order.
#[derive(Debug)]
pub(crate) struct MessagePiece {
    pub(crate) patient: SubjectPseudonym,
    pub(crate) message: MessageId,
    pub(crate) received_at_us: i64,
    pub(crate) readings: Vec<Reading>,
}

impl Chunk {
    /// The device of a series.
    pub(crate) fn device(&self, series: &Series) -> Option<&DeviceId> {
        let at = usize::try_from(series.device).ok()?;
        self.readings.devices().get(at)
    }
}

impl SeriesPiece {
    /// What is known of it without decoding.
    pub(crate) fn series(&self) -> Option<&Series> {
        self.chunk.readings.series().get(self.index)
    }
}

/// Opens `sealed` rows of `vitals` as far as they are wanted. Counts for the audit log what it opens, and stops when the
/// query does.
pub(crate) struct Pieces {
    run: Arc<QueryRun>,
    sealed: Sealed,
    rows: rows::Rows,
    backend: &'static dyn Backend,
    next: usize,
    chunk: Option<(Arc<Chunk>, usize)>,
    /// Of the rows as they came.
    sealed_bytes: usize,
}

impl Pieces {
    /// # Errors
    /// [`QueryError::Malformed`] when a column is missing or of another type.
    pub(crate) fn of(run: Arc<QueryRun>, sealed: Sealed) -> Result<Self, QueryError> {
        let rows = rows::Rows::of(&sealed)?;
        Ok(Self {
            sealed_bytes: sealed.memory.size(),
            run,
            sealed,
            rows,
            backend: default_backend(),
            next: 0,
            chunk: None,
        })
    }

    fn find(&mut self) -> Result<Option<Piece>, QueryError> {
        loop {
            self.run.going_on()?;
            if let Some(piece) = self.next_series() {
                return Ok(Some(piece));
            }
            if self.next >= self.sealed.rows.num_rows() {
                return Ok(None);
            }
            let at = self.next;
            self.next += 1;
            self.sealed.renew();
            match &self.rows {
                rows::Rows::Messages(rows) => {
                    let Some(row) = rows.message(at, &self.sealed)? else {
                        continue;
                    };
                    let piece = message(row, &self.sealed, &self.run, self.backend)?;
                    if let Some(piece) = piece {
                        return Ok(Some(Piece::Message(piece)));
                    }
                }
                rows::Rows::Chunks(rows) => {
                    let Some(row) = rows.chunk(at, &self.sealed) else {
                        continue;
                    };
                    let bytes = self.sealed_bytes + opened_bytes(&row);
                    self.sealed.memory.try_resize(bytes)?;
                    self.chunk = Some((Arc::new(chunk(&row, &self.run)?), 0));
                }
            }
        }
    }

    /// The next series of the chunk that is open, passing over those in which nothing can be wanted.
    fn next_series(&mut self) -> Option<Piece> {
        let (chunk, next) = self.chunk.as_mut()?;
        while let Some(series) = chunk.readings.series().get(*next) {
            let index = *next;
            *next += 1;
            let stats = &series.stats;
            let rest = self.sealed.wanted.given(&Known {
                patient: Some(chunk.patient.as_str()),
                device: chunk.device(series).map(DeviceId::as_str),
                signal: Some(series.signal),
                times: (stats.first_us, stats.last_us),
                values: (ordinal(stats.min), ordinal(stats.max)),
                flagged: match stats.flagged {
                    0 => Some(false),
                    all if all == stats.count => Some(true),
                    _ => None,
                },
            });
            if rest != Test::Never {
                let chunk = Arc::clone(chunk);
                return Some(Piece::Series(SeriesPiece { chunk, index, rest }));
            }
        }
        self.chunk = None;
        None
    }
}

impl Iterator for Pieces {
    type Item = Result<Piece, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find();
        if found.is_err() {
            (self.next, self.chunk) = (usize::MAX, None);
        }
        found.transpose()
    }
}

/// The readings of one message; `None` when none of them is wanted.
fn message(
    row: rows::Message<'_>,
    sealed: &Sealed,
    run: &QueryRun,
    backend: &dyn Backend,
) -> Result<Option<MessagePiece>, QueryError> {
    let header = row.envelope.header();
    if TableKind::from(header.content_type) != TableKind::Vitals {
        return Ok(None);
    }
    let damaged = || QueryError::Damaged(row.id.clone());
    let kek = row.keys.find(row.envelope.kek_kid()).ok_or_else(damaged)?;
    let payload = row.envelope.open(kek, backend).map_err(|_| damaged())?;
    let mut readings = senml::decode(&payload).map_err(|_| damaged())?;
    let times = || readings.iter().map(|reading| reading.at);
    let span = times().min().zip(times().max());
    run.opened(row.patient, 1, readings.len() as u64, span);
    let (patient, device) = (row.patient.as_str(), row.id.device.as_str());
    readings.retain(|reading| sealed.wanted.wants(patient, device, reading));
    Ok((!readings.is_empty()).then(|| MessagePiece {
        patient: row.patient.clone(),
        message: row.id,
        received_at_us: row.received_at_us,
        readings,
    }))
}

/// Bytes that opening and decoding a chunk may take: its plaintext, and two numbers and a place in a batch for each
/// reading. A count that is too small is found before anything is decoded.
fn opened_bytes(row: &chunks::Chunk<'_>) -> usize {
    let readings = usize::try_from(row.said.readings).unwrap_or(0);
    let decoded = readings.saturating_mul(40);
    decoded.saturating_add(row.sealed.len())
}

/// The readings of one chunk.
fn chunk(row: &chunks::Chunk<'_>, run: &QueryRun) -> Result<Chunk, QueryError> {
    let plain = row.open(TableKind::Vitals)?;
    let readings = Readings::parse(plain).map_err(|_| row.damaged())?;
    row.opened(&Amount::of_readings(&readings), run)?;
    Ok(Chunk {
        patient: row.patient.clone(),
        readings,
    })
}
