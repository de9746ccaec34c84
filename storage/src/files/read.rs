//! Reads a data file as Parquet does, from the catalog's copy of its footer and ranges of its bytes.
//!
//! What a disk or a bucket answers is hostile until it was opened. Parquet 59 takes lengths of sealed modules as they
//! stand there, and ends the process for one that is too short; so [`is_framed`] looks first.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder, ParquetMetaDataReader,
};
use vitalseal_crypto::danger::file_key_to_bytes;
use zeroize::Zeroizing;

use super::key_metadata::KeyMetadata;
use super::{FilesError, SealedFiles};
use crate::catalog::DataFile;
use crate::keys::StoreKeys;
use crate::store::StoreError;

/// The shortest module of Modular Encryption, after its length: nonce 12, tag 16.
const SHORTEST: usize = 28;

/// One file, as `parquet` and DataFusion read it. Its metadata carry the file's decryptor: nothing else needs a key.
#[derive(Debug)]
pub struct SealedFileReader {
    files: SealedFiles,
    file: DataFile,
}

impl SealedFileReader {
    pub(super) fn new(files: SealedFiles, file: DataFile) -> Self {
        Self { files, file }
    }

    /// Bytes that were asked for, or an error that names the file: never fewer, and framed as modules if they are sealed.
    async fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let name = self.file.path.as_ref();
        let read = self.files.inner.objects.read(name, ranges).await?;
        for (range, bytes) in ranges.iter().zip(&read) {
            let whole = u64::try_from(bytes.len())? == range.end.saturating_sub(range.start);
            if !whole || (self.file.encrypted && !is_framed(bytes)) {
                let what = format!("bytes {} to {} are not pages", range.start, range.end);
                return Err(damaged(name, what).into());
            }
        }
        Ok(read)
    }

    pub(super) async fn metadata(&mut self) -> Result<Arc<ParquetMetaData>, StoreError> {
        if let Some(metadata) = self.files.inner.cache.find(&self.file.path) {
            return Ok(metadata);
        }
        let metadata = if self.file.encrypted {
            open_footer(&self.file, &self.files.inner.keys)?
        } else {
            // A file of version 3 has no footer in the catalog.
            let size = self.file.size;
            let reader =
                ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            reader.load_and_finish(&mut *self, size).await?
        };
        let metadata = Arc::new(metadata);
        let cache = &self.files.inner.cache;
        cache.insert(self.file.path.clone(), Arc::clone(&metadata));
        Ok(metadata)
    }
}

impl AsyncFileReader for SealedFileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let mut read = self.read(&[range]).await.map_err(external)?;
            read.pop()
                .ok_or_else(|| ParquetError::EOF("nothing was read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.read(&ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move { self.metadata().await.map_err(external) }.boxed()
    }
}

/// Whether these bytes are whole modules of Modular Encryption, one after another: length u32 LE, nonce, ciphertext, tag.
pub(super) fn is_framed(mut bytes: &[u8]) -> bool {
    loop {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            return false;
        };
        let length = usize::try_from(u32::from_le_bytes(*length));
        match length.ok().and_then(|length| rest.split_at_checked(length)) {
            Some((module, _)) if module.len() < SHORTEST => return false,
            Some((_, [])) => return true,
            Some((_, rest)) => bytes = rest,
            None => return false,
        }
    }
}

/// Opens the catalog's copy of a footer, page indexes included.
fn open_footer(file: &DataFile, keys: &StoreKeys) -> Result<ParquetMetaData, StoreError> {
    let name = file.path.as_ref();
    let copy = || damaged(name, "the catalog's copy of its footer is none".to_owned());
    let (metadata, json) = KeyMetadata::find(&file.footer).ok_or_else(copy)?;
    let kid = metadata.kid().ok_or_else(copy)?;
    let Some(store_key) = keys.find(&kid) else {
        let name = name.to_owned();
        return Err(FilesError::UnknownKey { name, kid }.into());
    };
    let retriever = OneKey {
        metadata: json.to_vec(),
        key: file_key_to_bytes(&metadata.unwrap(store_key).map_err(|_| copy())?),
    };
    let decryption = FileDecryptionProperties::with_key_retriever(Arc::new(retriever)).build()?;
    let length = u64::try_from(file.footer.len())?;
    let start = file.size.checked_sub(length).ok_or_else(copy)?;
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.size)?
        .with_page_index_policy(PageIndexPolicy::Optional)
        .with_file_decryption_properties(Some(decryption));
    decoder.push_range(start..file.size, Bytes::copy_from_slice(&file.footer))?;
    match decoder.try_decode().map_err(|_| copy())? {
        DecodeResult::Data(metadata) => Ok(metadata),
        DecodeResult::NeedsData(_) | DecodeResult::Finished => Err(copy().into()),
    }
}

/// Gives the key for the very key metadata that were checked: Parquet found its way through the rest of the footer.
struct OneKey {
    metadata: Vec<u8>,
    key: Zeroizing<[u8; 32]>,
}

impl KeyRetriever for OneKey {
    fn retrieve_key(&self, metadata: &[u8]) -> Result<Vec<u8>, ParquetError> {
        if metadata == self.metadata {
            Ok(self.key.to_vec())
        } else {
            Err(ParquetError::General("no such key".to_owned()))
        }
    }
}

pub(super) fn damaged(name: &str, what: String) -> FilesError {
    let name = name.to_owned();
    FilesError::Damaged { name, what }
}

fn external(error: StoreError) -> ParquetError {
    ParquetError::External(Box::new(error))
}
