//! Rows of `vitals` out of sealed rows.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;

use super::Opener;
use super::columns::{Column, Columns};
use super::pieces::{Piece, Pieces};
use crate::run::QueryRun;
use crate::table::Sealed;

/// Opens readings, one row each.
pub(crate) struct Vitals {
    run: Arc<QueryRun>,
    schema: SchemaRef,
    limit: Option<usize>,
}

impl Vitals {
    /// `schema` is that of `vitals` after the projection. More than `limit` rows are of no use.
    pub(crate) fn new(run: Arc<QueryRun>, schema: SchemaRef, limit: Option<usize>) -> Self {
        Self { run, schema, limit }
    }
}

impl Opener for Vitals {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn yields_readings(&self) -> bool {
        true
    }

    fn open(
        self: Arc<Self>,
        sealed: Sealed,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        let columns = self.schema.fields().iter();
        let columns = columns.filter_map(|field| Column::named(field.name()));
        let columns = Columns::new(Arc::clone(&self.schema), columns.collect(), self.limit);
        match Pieces::of(Arc::clone(&self.run), sealed) {
            Ok(pieces) => Box::new(Batches {
                pieces: Some(pieces),
                columns,
                ready: VecDeque::new(),
            }),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").finish_non_exhaustive()
    }
}

/// Batches of one batch of sealed rows: no piece is opened before the batches of those before it were taken.
struct Batches {
    pieces: Option<Pieces>,
    columns: Columns,
    ready: VecDeque<RecordBatch>,
}

impl Batches {
    fn find(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if let Some(batch) = self.columns.gathered(self.pieces.is_none())? {
                return Ok(Some(batch));
            }
            let Some(pieces) = &mut self.pieces else {
                return Ok(None);
            };
            match pieces.next().transpose()? {
                Some(Piece::Message(message)) => self.columns.message(&message),
                Some(Piece::Series(series)) => self.ready.extend(self.columns.series(&series)?),
                None => self.pieces = None,
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find();
        if found.is_err() {
            self.pieces = None;
            self.columns.forget();
        }
        found.transpose()
    }
}
