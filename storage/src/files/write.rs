//! What a data file looks like: one way to write rows, one to write chunks, every byte of both sealed.
//!
//! ```text
//! "PARE"
//! row groups: pages of each column, sealed one by one
//! pages of the small columns once more, in their order
//! a sum of each of these pages, 8 bytes                 ┐
//! page indexes, sealed                                  │ the catalog's copy
//! key metadata │ footer, sealed                         ┘
//! ```
//!
//! Modular Encryption, uniform: footer, page headers, pages, statistics and indexes are sealed under the file's own key.
//! There are no bloom filters: parquet 59 writes them in the clear.
//!
//! Every column of ciphertext has a page a row: a flipped bit costs that chunk or message, and a scan that wants few rows
//! fetches and opens no others. The small columns have a page for some rows, and stand twice (see [`super::twice`]).
//! Nothing is in a dictionary, which would be a single place for the rows of a whole group.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use vitalseal_crypto::danger::file_key_to_bytes;
use vitalseal_crypto::{Backend, FileKey, StoreKey};

use super::FilesError;
use super::key_metadata::KeyMetadata;
use super::twice::Again;
use crate::catalog::FileKind;
use crate::keys::KeyError;
use crate::schema;
use crate::store::StoreError;

/// The largest file: it is built in memory before a byte of it is visible.
pub const MAX_FILE_BYTES: usize = 256 * 1024 * 1024;

/// Rows of a group at most. They are sorted by patient, so a group is what a query about one patient reads. Fewer than
/// the 32,767 pages that Modular Encryption can number in a column.
const ROWS_IN_GROUP: usize = 4096;

/// Bytes of a group, about: what one partition of a scan holds of a file at once.
const BYTES_IN_GROUP: usize = 16 * 1024 * 1024;

/// Rows in a page of the small columns. Each page costs two seals and a header, and their opening in every scan.
const ROWS_IN_PAGE: usize = 128;

/// A file as it will be stored.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// Where sums, page indexes, key metadata and footer begin.
    pub(super) footer_start: usize,
    pub(super) rows: u64,
}

/// Lays out batches as a file of this kind, sealed under a key of its own.
pub(super) fn encode(
    kind: FileKind,
    batches: impl Iterator<Item = Result<RecordBatch, StoreError>>,
    key: &StoreKey,
    backend: &dyn Backend,
) -> Result<Encoded, StoreError> {
    let schema = match kind {
        FileKind::Rows => schema::sealed_rows(),
        FileKind::Chunks => schema::chunks(),
    };
    let properties = match kind {
        FileKind::Rows => properties(&schema, schema::FIRST_AT)?,
        FileKind::Chunks => properties(&schema, schema::BUCKET_START)?,
    };
    let sealed = properties.with_file_encryption_properties(seal(key, backend)?);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(sealed.build()))?;
    let mut rows = 0;
    for batch in batches {
        let batch = batch?;
        rows += u64::try_from(batch.num_rows())?;
        writer.write(&batch)?;
        if writer.bytes_written() + writer.in_progress_size() > MAX_FILE_BYTES {
            let limit = MAX_FILE_BYTES;
            return Err(FilesError::TooLarge { limit }.into());
        }
    }
    writer.flush()?;
    // Or not all of it is in `bytes` yet.
    writer.sync().map_err(ParquetError::from)?;
    let again = Again::of(writer.flushed_row_groups(), writer.inner())?;
    for part in [&again.pages, &again.sums] {
        writer.write_all(part).map_err(ParquetError::from)?;
    }
    let footer_start = writer.bytes_written() - again.sums.len();
    writer.close()?;
    Ok(Encoded {
        bytes,
        footer_start,
        rows,
    })
}

/// A key of the file's own, and its wrap, for whoever holds the store key.
fn seal(
    store: &StoreKey,
    backend: &dyn Backend,
) -> Result<Arc<FileEncryptionProperties>, StoreError> {
    let key = FileKey::generate(backend).map_err(KeyError::from)?;
    let metadata = KeyMetadata::wrap(&key, store).map_err(KeyError::from)?;
    let metadata = serde_json::to_vec(&metadata).map_err(FilesError::KeyMetadata)?;
    // From here on the bytes are Parquet's, which does not wipe them. They open this one file, and no reading in it.
    Ok(
        FileEncryptionProperties::builder(file_key_to_bytes(&key).to_vec())
            .with_footer_key_metadata(metadata)
            .build()?,
    )
}

fn properties(
    schema: &arrow::datatypes::Schema,
    second: &str,
) -> Result<WriterPropertiesBuilder, StoreError> {
    let mut sorting = Vec::new();
    for name in [schema::SUBJECT, second] {
        sorting.push(SortingColumn {
            column_idx: i32::try_from(schema.index_of(name)?)?,
            descending: false,
            nulls_first: false,
        });
    }
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROWS_IN_GROUP))
        .set_max_row_group_bytes(Some(BYTES_IN_GROUP))
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(ROWS_IN_PAGE)
        // Whether a page is full is looked at after so many values.
        .set_write_batch_size(ROWS_IN_PAGE)
        .set_sorting_columns(Some(sorting));
    Ok(schema::CIPHERTEXT
        .into_iter()
        .fold(properties, |properties, name| {
            ciphertext(properties, ColumnPath::from(name))
        }))
}

/// A page a row; ciphertext does not shrink and has no order.
fn ciphertext(properties: WriterPropertiesBuilder, column: ColumnPath) -> WriterPropertiesBuilder {
    properties
        // A page is full as soon as anything is in it.
        .set_column_data_page_size_limit(column.clone(), 1)
        .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
        .set_column_statistics_enabled(column, EnabledStatistics::None)
}
