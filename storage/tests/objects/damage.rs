//! What a disk or a thief changed is never taken for what was written, and costs no more than it must.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use arrow::compute::concat_batches;
use futures::TryStreamExt as _;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::ColumnChunkMetaData;
use vitalseal_storage::{DataFile, FileKind, FilesError, Store, StoreError, schema};

use crate::errors::chain;
use crate::site::{Site, name, put, read, rows};

fn path(store: &Store, file: &DataFile) -> std::path::PathBuf {
    store.paths().parquet().join(file.path.as_ref())
}

/// Whether a column is ciphertext: a page of it holds one row, and stands once.
fn is_ciphertext(column: &ColumnChunkMetaData) -> bool {
    let name = column.column_path().string();
    [schema::ENVELOPE, schema::SEALED, schema::EVIDENCE].contains(&name.as_str())
}

/// The pages of all columns of a file, and whether they are ciphertext.
async fn pages(store: &Store, file: &DataFile) -> Vec<(Range<usize>, bool)> {
    let metadata = store.files.metadata(file).await.unwrap();
    let indexes = metadata.offset_index().unwrap().iter();
    let columns = metadata.row_groups().iter().zip(indexes);
    let columns = columns.flat_map(|(group, indexes)| group.columns().iter().zip(indexes));
    let pages = columns.flat_map(|(column, index)| {
        index.page_locations().iter().map(|page| {
            let start = usize::try_from(page.offset).unwrap();
            let length = usize::try_from(page.compressed_page_size).unwrap();
            (start..start + length, is_ciphertext(column))
        })
    });
    pages.collect()
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
        let mut pages = pages(&store, &file).await;
        let groups_end = pages.iter().map(|(page, _)| page.end).max().unwrap();
        pages.retain(|(_, is_ciphertext)| *is_ciphertext);
        // Every byte of every page; of what stands elsewhere too, some.
        for at in (0..groups_end).chain((groups_end..whole.len()).step_by(16)) {
            let mut damaged = whole.clone();
            damaged[at] ^= [1 << (at % 8), 0xff][at % 2];
            fs::write(&path, &damaged).unwrap();
            let is_ciphertext = pages.iter().any(|(page, _)| page.contains(&at));
            match read(&store, &file).await {
                Ok(found) => {
                    assert_eq!(found, std::slice::from_ref(&written), "{kind:?}, byte {at}");
                    assert!(!is_ciphertext, "{kind:?}, byte {at} is a row's own");
                }
                Err(StoreError::Files(FilesError::Damaged { name, .. })) => {
                    assert!(is_ciphertext, "{kind:?}, byte {at} stands twice");
                    assert_eq!(name, file.path.as_ref());
                }
                Err(other) => panic!("{kind:?}, byte {at}: {}", chain(&other)),
            }
        }
        let copied = whole.len() - file.footer.len();
        for length in [0, 4, copied / 2, copied - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            // All that may be missing is what stands a second time.
            let read = read(&store, &file).await;
            assert!(read.is_err() || length == copied - 1, "{kind:?}, {length}");
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
async fn small_columns_stand_twice_and_either_place_does() {
    let site = Site::new();
    let store = site.create().await;
    for (kind, blobs) in [(FileKind::Rows, 1), (FileKind::Chunks, 2)] {
        // Two groups, several pages a column.
        let written = rows(kind, 5_000, 20);
        let file = put(&store, 1, kind, &written).await;
        let metadata = store.files.metadata(&file).await.unwrap();
        assert_eq!(metadata.num_row_groups(), 2);
        let path = path(&store, &file);
        let whole = fs::read(&path).unwrap();
        let mut pages = pages(&store, &file).await;
        let one_row = pages.extract_if(.., |(_, is_ciphertext)| *is_ciphertext);
        assert_eq!(one_row.count(), blobs * 5_000, "{kind:?}: a page a row");
        let small: Vec<u8> = pages
            .iter()
            .flat_map(|(page, _)| whole[page.clone()].to_vec())
            .collect();
        let copied = whole.len() - file.footer.len();
        let again = copied - small.len()..copied;
        assert_eq!(whole[again.clone()], small, "{kind:?}");

        let found = async |damaged: &[u8]| {
            fs::write(&path, damaged).unwrap();
            let found = read(&store, &file).await?;
            assert_eq!(concat_batches(&found[0].schema(), &found).unwrap(), written);
            Ok::<_, StoreError>(())
        };
        let mut first = whole.clone();
        for (page, _) in &pages {
            first[page.clone()].fill(0x5a);
        }
        found(&first).await.unwrap();
        let mut second = whole.clone();
        second[again.clone()].fill(0x5a);
        found(&second).await.unwrap();

        // One page is damaged where it is read, all others where they stand again; then it is in both places.
        let (before, rest) = pages.split_at(pages.len() / 2);
        let one = rest[0].0.clone();
        let start = again.start + before.iter().map(|(page, _)| page.len()).sum::<usize>();
        second[start..start + one.len()].copy_from_slice(&whole[one.clone()]);
        second[one].fill(0x5a);
        found(&second).await.unwrap();
        second[start + 20] ^= 1;
        let lost = found(&second).await.unwrap_err();
        assert!(
            matches!(lost, StoreError::Files(FilesError::Damaged { .. })),
            "{lost}"
        );
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_footer_that_was_tampered_with_in_the_catalog_opens_as_it_was_or_not_at_all() {
    let site = Site::new();
    let store = site.create().await;
    let written = rows(FileKind::Rows, 3, 40);
    let file = put(&store, 1, FileKind::Rows, &written).await;
    let whole = store.files.metadata(&file).await.unwrap();
    // Opened footers are remembered by name, so each has a name of its own; there is no file that has it.
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
            let tampered = renamed(footer);
            match store.files.metadata(&tampered).await {
                Ok(metadata) => assert_eq!(metadata.row_groups(), whole.row_groups(), "byte {at}"),
                Err(_) => refused += 1,
            }
            if at % 64 < 2 {
                // With the file there, its own footer is read.
                fs::copy(path(&store, &file), path(&store, &tampered)).unwrap();
                let found = read(&store, &tampered).await.unwrap();
                assert_eq!(found, std::slice::from_ref(&written), "byte {at}");
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
async fn a_flipped_bit_in_a_page_of_ciphertext_costs_that_chunk_or_message_alone() {
    let site = Site::new();
    let store = site.create().await;
    for (kind, columns) in [(FileKind::Rows, 8..9), (FileKind::Chunks, 11..13)] {
        let written = rows(kind, 12, 500);
        let file = put(&store, 1, kind, &written).await;
        let path = path(&store, &file);
        let whole = fs::read(&path).unwrap();
        let metadata = store.files.metadata(&file).await.unwrap();
        for column in columns {
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
        fs::remove_file(&path).unwrap();
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
