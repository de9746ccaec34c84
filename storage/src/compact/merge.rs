//! The rows of several sorted files as one sorted stream, a batch of each in memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parquet::errors::ParquetError;

use crate::catalog::{DataFile, FileKind};
use crate::chunk::ChunkRow;
use crate::files::{FilesError, SealedFiles};
use crate::inbox::rows::SealedRow;
use crate::schema;
use crate::store::StoreError;

/// Rows of a file that are in memory at once.
const MESSAGES: usize = 256;
const CHUNKS: usize = 4;

/// A row of a data file.
pub(crate) enum Row {
    /// A message.
    Message(SealedRow),
    /// A chunk.
    Chunk(ChunkRow),
}

impl Row {
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Message(row) => &row.subject,
            Self::Chunk(row) => row.subject.as_str(),
        }
    }

    /// What the row is sorted by within its patient, µs.
    pub(crate) fn start_us(&self) -> i64 {
        match self {
            Self::Message(row) => row.first_at_us,
            Self::Chunk(row) => row.bucket_start_us,
        }
    }

    pub(crate) fn messages(&self) -> u64 {
        match self {
            Self::Message(_) => 1,
            Self::Chunk(row) => u64::from(row.messages),
        }
    }

    pub(crate) fn readings(&self) -> u64 {
        match self {
            Self::Message(row) => u64::try_from(row.readings).unwrap_or(0),
            Self::Chunk(row) => row.readings,
        }
    }

    /// Bytes that it keeps in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Message(row) => row.envelope.len(),
            Self::Chunk(row) => row.sealed.len() + row.evidence.len(),
        }
    }
}

/// The rows of one file.
pub(crate) struct Rows {
    kind: FileKind,
    batches: BoxStream<'static, Result<RecordBatch, StoreError>>,
    batch: Option<RecordBatch>,
    next: usize,
}

impl Rows {
    pub(crate) fn of(file: &DataFile, files: &SealedFiles) -> Self {
        let (schema, rows) = match file.kind {
            FileKind::Rows => (schema::sealed_rows(), MESSAGES),
            FileKind::Chunks => (schema::chunks(), CHUNKS),
        };
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Self {
            kind: file.kind,
            batches: files.batches(file, &columns, rows).boxed(),
            batch: None,
            next: 0,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Row>, StoreError> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|b| self.next < b.num_rows()) {
                let row = match self.kind {
                    FileKind::Rows => Row::Message(SealedRow::of_batch(batch, self.next)?),
                    FileKind::Chunks => Row::Chunk(ChunkRow::read(batch, self.next)?),
                };
                self.next += 1;
                return Ok(Some(row));
            }
            match self.batches.next().await {
                Some(batch) => (self.batch, self.next) = (Some(batch?), 0),
                None => return Ok(None),
            }
        }
    }
}

/// Several files as one.
pub(super) struct Merge {
    inputs: Vec<(DataFile, Rows, Option<Row>)>,
    /// The first row of each input that has one.
    heap: BinaryHeap<Reverse<(String, i64, usize)>>,
    last: (String, i64),
}

impl Merge {
    pub(super) async fn of(files: &[DataFile], sealed: &SealedFiles) -> Result<Self, StoreError> {
        let inputs = files
            .iter()
            .map(|file| (file.clone(), Rows::of(file, sealed), None));
        let mut merge = Self {
            inputs: inputs.collect(),
            heap: BinaryHeap::new(),
            last: (String::new(), i64::MIN),
        };
        for input in 0..merge.inputs.len() {
            merge.advance(input).await?;
        }
        Ok(merge)
    }

    /// The next row in the order of all.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, StoreError> {
        let Some(Reverse((subject, start_us, input))) = self.heap.pop() else {
            return Ok(None);
        };
        let row = self
            .inputs
            .get_mut(input)
            .and_then(|(_, _, row)| row.take());
        self.last = (subject, start_us);
        self.advance(input).await?;
        Ok(row)
    }

    /// The next row, without taking it.
    pub(super) fn peek(&self) -> Option<&Row> {
        let Reverse((_, _, input)) = self.heap.peek()?;
        self.inputs.get(*input)?.2.as_ref()
    }

    async fn advance(&mut self, input: usize) -> Result<(), StoreError> {
        let Some((file, rows, row)) = self.inputs.get_mut(input) else {
            return Ok(());
        };
        *row = rows.next().await.map_err(|cause| unusable(file, cause))?;
        if let Some(row) = row {
            let key = (row.subject().to_owned(), row.start_us());
            if key < self.last {
                return Err(unusable(file, StoreError::Unsorted));
            }
            self.heap.push(Reverse((key.0, key.1, input)));
        }
        Ok(())
    }
}

/// Says which file cannot be read; of a disk or an object store that does not answer, that says nothing.
pub(crate) fn unusable(file: &DataFile, cause: StoreError) -> StoreError {
    let passing = match &cause {
        StoreError::Files(FilesError::Damaged { .. } | FilesError::Missing { .. }) => false,
        StoreError::Files(FilesError::UnknownKey { .. }) => false,
        StoreError::Files(_) => true,
        StoreError::Parquet(ParquetError::External(cause)) => !cause.is::<ArrowError>(),
        _ => false,
    };
    if passing {
        return cause;
    }
    StoreError::Input {
        file: file.path.to_string(),
        cause: Box::new(cause),
    }
}
