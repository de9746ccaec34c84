//! Which rows of a file can be read, page by page.
//!
//! A batch that cannot be read says nothing of where the damage is. Each page of each column is read by itself then: it
//! is the least that one flipped bit costs.

use std::collections::BTreeMap;
use std::future::ready;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{
    AsyncFileReader as _, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder,
};
use parquet::errors::ParquetError;

use super::Place;
use crate::catalog::DataFile;
use crate::files::{FilesError, SealedFileReader, SealedFiles};
use crate::schema;
use crate::store::StoreError;

/// Rows that are read in one go.
const BATCH: usize = 256;

/// Rows with a page that cannot be read, and the columns of such pages.
pub(super) type Unreadable = BTreeMap<u64, Vec<String>>;

/// Rows of a file.
pub(super) struct Rows {
    pub(super) batches: BoxStream<'static, Result<RecordBatch, ParquetError>>,
    /// Which ones, in the order in which they come.
    pub(super) numbers: Vec<u64>,
}

/// A file whose footer could be read.
pub(super) struct Pages<'a> {
    files: &'a SealedFiles,
    file: &'a DataFile,
    metadata: ArrowReaderMetadata,
}

impl<'a> Pages<'a> {
    pub(super) async fn of(
        files: &'a SealedFiles,
        file: &'a DataFile,
    ) -> Result<Self, ParquetError> {
        let found = files.reader(file).get_metadata(None).await?;
        let metadata = ArrowReaderMetadata::try_new(found, ArrowReaderOptions::new())?;
        Ok(Self {
            files,
            file,
            metadata,
        })
    }

    /// The rows but for those `without`.
    pub(super) fn rows(&self, without: &Unreadable) -> Result<Rows, StoreError> {
        let (mut left, mut next) = (Vec::new(), 0);
        for bad in without.keys().copied().chain([self.count()]) {
            left.push(next..bad);
            next = bad + 1;
        }
        left.retain(|range| !range.is_empty());
        let batches = self.stream(ProjectionMask::all(), &left)?.boxed();
        let numbers = left.into_iter().flatten().collect();
        Ok(Rows { batches, numbers })
    }

    /// These rows, with nothing in a column of ciphertext that cannot be read or does not open.
    pub(super) fn rows_less(&self, blob: &str, numbers: Vec<u64>) -> Result<Rows, StoreError> {
        let parquet = self.metadata.parquet_schema();
        let leaves = parquet.columns().iter().enumerate();
        let leaves = leaves.filter(|(_, column)| column.name() != blob);
        let mask = ProjectionMask::leaves(parquet, leaves.map(|(leaf, _)| leaf));
        let ranges: Vec<_> = numbers.iter().map(|row| *row..row + 1).collect();
        let schema = self.file.kind.schema();
        let filled = move |batch: RecordBatch| {
            let columns = schema.fields().iter().map(|field| {
                let nothing = std::iter::repeat_n([], batch.num_rows());
                let nothing = || Arc::new(BinaryArray::from_iter_values(nothing)) as ArrayRef;
                batch
                    .column_by_name(field.name())
                    .map_or_else(nothing, Arc::clone)
            });
            Ok(RecordBatch::try_new(
                Arc::clone(&schema),
                columns.collect(),
            )?)
        };
        let batches = self.stream(mask, &ranges)?;
        let batches = batches.and_then(move |batch| ready(filled(batch))).boxed();
        Ok(Rows { batches, numbers })
    }

    /// Reads every page by itself.
    pub(super) async fn unreadable(&self) -> Result<Unreadable, StoreError> {
        let mut unreadable = Unreadable::new();
        let parquet = self.metadata.metadata();
        let mut first = 0;
        for (at, group) in parquet.row_groups().iter().enumerate() {
            let rows = u64::try_from(group.num_rows())?;
            for (leaf, column) in group.columns().iter().enumerate() {
                let mask = ProjectionMask::leaves(self.metadata.parquet_schema(), [leaf]);
                for page in self.pages(at, leaf, rows)? {
                    let page = first + page.start..first + page.end;
                    if self.reads(mask.clone(), page.clone()).await? {
                        continue;
                    }
                    for row in page {
                        let columns = unreadable.entry(row).or_default();
                        columns.push(column.column_path().string());
                    }
                }
            }
            first += rows;
        }
        Ok(unreadable)
    }

    /// Where these rows are: of what they hold, as much as can be read.
    pub(super) async fn places(&self, unreadable: &Unreadable) -> Result<Vec<Place>, StoreError> {
        let is_sealed = |column: &String| schema::CIPHERTEXT.contains(&column.as_str());
        let (known, unknown): (Vec<_>, Vec<_>) = unreadable
            .iter()
            .partition(|(_, columns)| columns.iter().all(is_sealed));
        let mut places: Vec<Place> = unknown
            .iter()
            .map(|(row, _)| Place::row(self.file, **row))
            .collect();
        let rows: Vec<u64> = known.iter().map(|(row, _)| **row).collect();
        let parquet = self.metadata.parquet_schema();
        let clear = parquet.columns().iter().enumerate();
        let clear = clear.filter(|(_, column)| !schema::CIPHERTEXT.contains(&column.name()));
        let mask = ProjectionMask::leaves(parquet, clear.map(|(leaf, _)| leaf));
        let ranges: Vec<_> = rows.iter().map(|row| *row..row + 1).collect();
        let (mut stream, mut rows) = (self.stream(mask, &ranges)?, rows.as_slice());
        while let Some(batch) = stream.try_next().await? {
            let Some((these, rest)) = rows.split_at_checked(batch.num_rows()) else {
                break;
            };
            places.extend(Place::rows(self.file, &batch, these));
            rows = rest;
        }
        Ok(places)
    }

    /// Rows of each page of a column, counted from the start of its group; all of them where there is no index.
    fn pages(&self, group: usize, leaf: usize, rows: u64) -> Result<Vec<Range<u64>>, StoreError> {
        let indexes = self.metadata.metadata().offset_index();
        let index = indexes.and_then(|groups| groups.get(group)?.get(leaf));
        let mut starts = Vec::new();
        for page in index.into_iter().flat_map(|index| index.page_locations()) {
            starts.push(u64::try_from(page.first_row_index)?);
        }
        if starts.is_empty() {
            starts.push(0);
        }
        let ends = starts.iter().copied().skip(1).chain([rows]);
        Ok(starts
            .iter()
            .copied()
            .zip(ends)
            .map(|(s, e)| s..e)
            .collect())
    }

    async fn reads(&self, mask: ProjectionMask, rows: Range<u64>) -> Result<bool, StoreError> {
        let mut stream = self.stream(mask, &[rows])?;
        loop {
            match stream.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(error) if is_passing(&error) => return Err(error.into()),
                Err(_) => return Ok(false),
            }
        }
    }

    fn stream(
        &self,
        mask: ProjectionMask,
        rows: &[Range<u64>],
    ) -> Result<ParquetRecordBatchStream<SealedFileReader>, StoreError> {
        let mut ranges = Vec::with_capacity(rows.len());
        for range in rows {
            ranges.push(usize::try_from(range.start)?..usize::try_from(range.end)?);
        }
        let count = usize::try_from(self.count())?;
        let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), count);
        let reader = self.files.reader(self.file);
        let builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone());
        Ok(builder
            .with_projection(mask)
            .with_batch_size(BATCH)
            .with_row_selection(selection)
            .build()?)
    }

    /// Rows that the footer counts.
    fn count(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups();
        let counts = groups.iter().map(|group| u64::try_from(group.num_rows()));
        counts.map(Result::unwrap_or_default).sum()
    }
}

/// Whether reading failed for another reason than damage: the disk or the object store did not answer.
pub(super) fn is_passing(error: &ParquetError) -> bool {
    of_files(error).is_some_and(|files| !matches!(files, FilesError::Damaged { .. }))
}

/// Whether the store key is not here that the file is sealed under.
pub(super) fn is_locked(error: &ParquetError) -> bool {
    of_files(error).is_some_and(|files| matches!(files, FilesError::UnknownKey { .. }))
}

fn of_files(error: &ParquetError) -> Option<&FilesError> {
    let ParquetError::External(cause) = error else {
        return None;
    };
    match cause.downcast_ref() {
        Some(StoreError::Files(files)) => Some(files),
        _ => cause.downcast_ref(),
    }
}
