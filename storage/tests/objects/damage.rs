//! What a disk or a thief changed is never taken for what was written, and costs no more than it must.

use std::fs;
use std::sync::Arc;

use arrow::compute::concat_batches;
use futures::TryStreamExt as _;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use vitalseal_storage::{DataFile, FileKind, FilesError, Store, StoreError};

use crate::errors::chain;
use crate::site::{Site, name, put, read, rows};

fn path(store: &Store, file: &DataFile) -> std::path::PathBuf {
    store.paths().parquet().join(file.path.as_ref())
}

#[tokio::test]
async fn no_byte_that_flips_gives_another_row_and_none_ends_the_process() {
    let site = Site::new();
    let store = site.create().await;
    for kind in [FileKind::Rows, FileKind::Chunks] {
        let written = rows(kind, 3, 40);
        let file = put(&store, 1, kind, &written).await;
        let path = path(&store, &file);
        let whole = fs::read(&path).unwrap();
        let pages = 4..whole.len() - file.footer.len();
        // Every byte of every page; of what the catalog has a copy of, some.
        let tried = pages
            .clone()
            .chain((0..4).chain(pages.end..whole.len()).step_by(16));
        for at in tried {
            let mut damaged = whole.clone();
            damaged[at] ^= [1 << (at % 8), 0xff][at % 2];
            fs::write(&path, &damaged).unwrap();
            match read(&store, &file).await {
                Ok(found) => {
                    assert_eq!(found, std::slice::from_ref(&written), "{kind:?}, byte {at}");
                    assert!(!pages.contains(&at), "{kind:?}, byte {at} is in no page");
                }
                Err(StoreError::Files(FilesError::Damaged { name, .. })) => {
                    assert!(pages.contains(&at), "{kind:?}, byte {at} is in a page");
                    assert_eq!(name, file.path.as_ref());
                }
                Err(other) => panic!("{kind:?}, byte {at}: {}", chain(&other)),
            }
        }
        for length in [0, 4, pages.end / 2, pages.end - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            read(&store, &file).await.unwrap_err();
        }
        fs::remove_file(&path).unwrap();
        let missing = read(&store, &file).await.unwrap_err();
        assert!(
            matches!(missing, StoreError::Files(FilesError::Missing { .. })),
            "{missing}"
        );
    }
}

#[tokio::test]
async fn a_footer_that_was_tampered_with_in_the_catalog_opens_as_it_was_or_not_at_all() {
    let site = Site::new();
    let store = site.create().await;
    let file = put(&store, 1, FileKind::Rows, &rows(FileKind::Rows, 3, 40)).await;
    let whole = store.files.metadata(&file).await.unwrap();
    // Opened footers are remembered by name, so each has a name of its own.
    let mut n = 1;
    let mut renamed = |footer: Vec<u8>| {
        n += 1;
        DataFile {
            path: name(FileKind::Rows, n).into(),
            footer: footer.into(),
            ..file.clone()
        }
    };
    let mut refused = 0;
    for at in 0..file.footer.len() {
        for flip in [1 << (at % 8), 0xff] {
            let mut footer = file.footer.to_vec();
            footer[at] ^= flip;
            match store.files.metadata(&renamed(footer)).await {
                Ok(metadata) => assert_eq!(metadata.row_groups(), whole.row_groups(), "byte {at}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(
        refused > file.footer.len(),
        "{refused} of {}",
        2 * file.footer.len()
    );
    for length in 0..file.footer.len() {
        let (head, tail) = (
            &file.footer[..length],
            &file.footer[file.footer.len() - length..],
        );
        assert!(store.files.metadata(&renamed(head.to_vec())).await.is_err());
        // A copy without the page indexes would do.
        if let Ok(metadata) = store.files.metadata(&renamed(tail.to_vec())).await {
            assert_eq!(metadata.row_groups(), whole.row_groups());
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_sealed_blob_costs_that_chunk_alone() {
    let site = Site::new();
    let store = site.create().await;
    let written = rows(FileKind::Chunks, 12, 500);
    let file = put(&store, 1, FileKind::Chunks, &written).await;
    let path = path(&store, &file);
    let whole = fs::read(&path).unwrap();
    let metadata = store.files.metadata(&file).await.unwrap();
    for (column, _) in [(11, "sealed"), (12, "evidence")] {
        let pages = metadata.offset_index().unwrap()[0][column].page_locations();
        assert_eq!(pages.len(), 12, "a page a row");
        for (row, page) in pages.iter().enumerate() {
            let middle = page.offset + i64::from(page.compressed_page_size) / 2;
            let mut damaged = whole.clone();
            damaged[usize::try_from(middle).unwrap()] ^= 1;
            fs::write(&path, damaged).unwrap();
            for wanted in 0..12 {
                let found = one(&store, &file, wanted).await;
                if wanted == row {
                    found.unwrap_err();
                } else {
                    assert_eq!(found.unwrap(), written.slice(wanted, 1));
                }
            }
        }
    }
}

async fn one(
    store: &Store,
    file: &DataFile,
    row: usize,
) -> Result<arrow::array::RecordBatch, parquet::errors::ParquetError> {
    let builder = ParquetRecordBatchStreamBuilder::new(store.files.reader(file)).await?;
    let schema = Arc::clone(builder.schema());
    let only = RowSelection::from(vec![RowSelector::skip(row), RowSelector::select(1)]);
    let found: Vec<_> = builder
        .with_row_selection(only)
        .build()?
        .try_collect()
        .await?;
    Ok(concat_batches(&schema, &found)?)
}

#[tokio::test]
async fn a_file_in_the_place_of_another_is_refused() {
    let site = Site::new();
    let store = site.create().await;
    let [one, two] = [1, 2].map(|n| (n, rows(FileKind::Rows, n * 3, 40)));
    let first = put(&store, one.0, FileKind::Rows, &one.1).await;
    let second = put(&store, two.0, FileKind::Rows, &two.1).await;
    // The last bytes of each are where the catalog says that they are, for its own file.
    fs::copy(path(&store, &second), path(&store, &first)).unwrap();
    read(&store, &first).await.unwrap_err();
    assert_eq!(read(&store, &second).await.unwrap(), [two.1]);

    // Another store's file, and all that its catalog knows of it.
    let elsewhere = Site::new();
    let other = elsewhere.create().await;
    fs::copy(path(&store, &second), path(&other, &second)).unwrap();
    let refused = read(&other, &second).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::Files(FilesError::UnknownKey { .. })),
        "{refused}"
    );
}

#[tokio::test]
async fn a_name_is_written_once() {
    let site = Site::new();
    let store = site.create().await;
    let written = rows(FileKind::Rows, 3, 40);
    let file = put(&store, 1, FileKind::Rows, &written).await;
    let other = rows(FileKind::Rows, 4, 40);
    let again = store
        .files
        .put(
            file.path.as_ref(),
            FileKind::Rows,
            vec![Ok(other)].into_iter(),
        )
        .await;
    let refused = again.err().unwrap();
    assert!(
        matches!(refused, StoreError::Files(FilesError::Exists { .. })),
        "{refused}"
    );
    assert_eq!(read(&store, &file).await.unwrap(), [written]);
    store.files.remove(file.path.as_ref()).await.unwrap();
    assert_eq!(store.files.names().await.unwrap(), []);
    assert_eq!(store.files.size(file.path.as_ref()).await.unwrap(), None);
}
