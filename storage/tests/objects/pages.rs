//! Whoever wants few rows fetches and opens few pages.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray as _, BooleanArray, RecordBatch};
use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderOptions, RowFilter};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use vitalseal_storage::{FileKind, SealedFileReader, schema};

use crate::site::{Site, put, rows};

/// Remembers what was asked for.
struct Watched {
    reader: SealedFileReader,
    asked: Arc<Mutex<Vec<Range<u64>>>>,
}

impl AsyncFileReader for Watched {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.asked.lock().unwrap().push(range.clone());
        self.reader.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        self.asked.lock().unwrap().extend(ranges.iter().cloned());
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        self.reader.get_metadata(options)
    }
}

#[tokio::test]
async fn of_a_blob_column_only_the_pages_of_the_rows_that_are_wanted_are_fetched() {
    let site = Site::new();
    let store = site.create().await;
    let written = rows(FileKind::Chunks, 300, 3000);
    let file = put(&store, 1, FileKind::Chunks, &written).await;
    let metadata = store.files.metadata(&file).await.unwrap();
    let group = metadata.row_group(0);
    assert_eq!((metadata.num_row_groups(), group.num_rows()), (1, 300));

    let asked = Arc::new(Mutex::new(Vec::new()));
    let reader = Watched {
        reader: store.files.reader(&file),
        asked: Arc::clone(&asked),
    };
    let wanted = [7, 8, 250];
    let subjects: Vec<String> = {
        let column = written.column(0).as_string::<i32>();
        wanted
            .iter()
            .map(|row| column.value(*row).to_owned())
            .collect()
    };
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.unwrap();
    let columns =
        |names: &[&str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let theirs = ArrowPredicateFn::new(columns(&[schema::SUBJECT]), move |batch: RecordBatch| {
        let column = batch.column(0).as_string::<i32>();
        let found = column
            .iter()
            .map(|s| subjects.iter().any(|w| Some(w.as_str()) == s));
        Ok(BooleanArray::from_iter(found.map(Some)))
    });
    let both = columns(&[schema::SUBJECT, schema::SEALED]);
    let stream = builder
        .with_projection(both)
        .with_row_filter(RowFilter::new(vec![Box::new(theirs)]));
    let found: Vec<RecordBatch> = stream.build().unwrap().try_collect().await.unwrap();
    let blobs: Vec<Vec<u8>> = found
        .iter()
        .flat_map(|batch| batch.column(1).as_binary::<i32>().iter().flatten())
        .map(<[u8]>::to_vec)
        .collect();
    let sealed = written
        .column_by_name(schema::SEALED)
        .unwrap()
        .as_binary::<i32>();
    assert_eq!(blobs, wanted.map(|row| sealed.value(row).to_vec()));

    let asked = asked.lock().unwrap();
    let column = |index: usize| {
        let (start, length) = group.column(index).byte_range();
        start..start + length
    };
    let within = |column: Range<u64>| -> Vec<Range<u64>> {
        let inside = |range: &&Range<u64>| column.start <= range.start && range.end <= column.end;
        asked.iter().filter(inside).cloned().collect()
    };
    let pages = metadata.offset_index().unwrap()[0][11].page_locations();
    let page = |row: usize| {
        let start = u64::try_from(pages[row].offset).unwrap();
        start..start + u64::try_from(pages[row].compressed_page_size).unwrap()
    };
    assert_eq!(within(column(11)), wanted.map(page));
    assert_eq!(within(column(12)), [], "evidence was not asked for");
    assert_eq!(asked.len(), within(column(0)).len() + 3, "nothing else was");
}
