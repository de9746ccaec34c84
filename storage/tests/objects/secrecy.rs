//! What a thief of a file finds in its bytes: nothing of any row, in no spelling, and no name of a column.

use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding;
use parquet::file::properties::WriterProperties;
use vitalseal_storage::FileKind;

use crate::site::{Site, put, rows};

#[tokio::test]
async fn no_value_of_a_row_can_be_found_in_the_bytes_of_a_file() {
    let site = Site::new();
    let store = site.create().await;
    for (n, kind) in [(1, FileKind::Rows), (2, FileKind::Chunks)] {
        // Blobs are ciphertext already; a few bytes of each show that not even they stand there as they are.
        let planted = rows(kind, 20, 16);
        let file = put(&store, n, kind, &planted).await;
        let sealed = store.files.bytes(file.path.as_ref()).await.unwrap();
        let plain = in_the_clear(&planted);
        for (place, spellings) in needles(&planted) {
            let in_plain = spellings.iter().any(|s| contains(&plain, s));
            assert!(
                in_plain,
                "{kind:?}: {place} must be found in a file that is not encrypted"
            );
            for spelling in &spellings {
                assert!(
                    !contains(&sealed, spelling),
                    "{kind:?}: {place} as {spelling:02x?}"
                );
                assert!(
                    !contains(&file.footer, spelling),
                    "{kind:?}: {place} in the catalog"
                );
            }
        }
        assert!(sealed.starts_with(b"PARE") && sealed.ends_with(b"PARE"));
    }
}

/// Both would stand beside the columns, the former in the clear.
#[tokio::test]
async fn no_column_of_a_file_has_a_bloom_filter_or_a_dictionary() {
    let site = Site::new();
    let store = site.create().await;
    for (n, kind) in [(1, FileKind::Rows), (2, FileKind::Chunks)] {
        // One value in all rows, which is what a dictionary is for.
        let row = rows(kind, 1, 16);
        let same = concat_batches(&row.schema(), &vec![row.clone(); 500]).unwrap();
        let file = put(&store, n, kind, &same).await;
        let metadata = store.files.metadata(&file).await.unwrap();
        let groups = metadata.row_groups();
        assert_eq!(groups[0].num_columns(), row.num_columns());
        for column in groups.iter().flat_map(|group| group.columns()) {
            let name = column.column_path();
            assert_eq!(column.bloom_filter_offset(), None, "{kind:?}: {name}");
            assert_eq!(column.dictionary_page_offset(), None, "{kind:?}: {name}");
            let in_dictionary = |encoding| {
                matches!(
                    encoding,
                    Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY
                )
            };
            assert!(!column.encodings().any(in_dictionary), "{kind:?}: {name}");
        }
    }
}

/// Every value in every way that it may be written, and the columns' names.
fn needles(rows: &RecordBatch) -> Vec<(String, Vec<Vec<u8>>)> {
    let schema = rows.schema();
    let mut needles = Vec::new();
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        needles.push((
            format!("the name of {}", field.name()),
            vec![field.name().clone().into_bytes()],
        ));
        for row in 0..rows.num_rows() {
            needles.push((
                format!("{} of row {row}", field.name()),
                spellings(column, row),
            ));
        }
    }
    needles
}

fn spellings(column: &dyn Array, row: usize) -> Vec<Vec<u8>> {
    let number = |n: i64| {
        let text = n.to_string().into_bytes();
        vec![n.to_le_bytes().to_vec(), n.to_be_bytes().to_vec(), text]
    };
    match column.data_type() {
        DataType::Utf8 => vec![column.as_string::<i32>().value(row).as_bytes().to_vec()],
        DataType::Binary => vec![column.as_binary::<i32>().value(row).to_vec()],
        DataType::Int64 => number(column.as_primitive::<Int64Type>().value(row)),
        DataType::Int32 => {
            let n = column.as_primitive::<Int32Type>().value(row);
            vec![
                n.to_le_bytes().to_vec(),
                n.to_be_bytes().to_vec(),
                n.to_string().into_bytes(),
            ]
        }
        DataType::Timestamp(..) => {
            let us = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let instant = Timestamp::from_microsecond(us).unwrap();
            let mut spellings = number(us);
            spellings.extend(number(us / 1000));
            spellings.push(instant.to_string().into_bytes());
            spellings
        }
        other => panic!("no spelling for {other}"),
    }
}

/// The same rows as anybody would write them.
fn in_the_clear(rows: &RecordBatch) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
