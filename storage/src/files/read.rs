//! Reads a data file as Parquet does, from the catalog's copy of its footer and ranges of its bytes.
//!
//! What a disk or a bucket answers is hostile until it was opened. Parquet 59 takes lengths of sealed modules as they
//! stand there, and ends the process for one that is too short; so [`is_framed`] looks first.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use super::twice::Twice;
use super::{FilesError, SealedFiles};
use crate::catalog::DataFile;
use crate::keys::StoreKeys;
use crate::store::StoreError;

/// The shortest module of Modular Encryption, after its length: nonce 12, tag 16.
const SHORTEST: usize = 28;

/// What a file's last bytes say of it.
pub(super) struct Opened {
    pub(super) metadata: Arc<ParquetMetaData>,
    twice: Twice,
    /// Whether the log has it that pages are damaged.
    told: AtomicBool,
}

/// One file, as `parquet` and DataFusion read it. Its metadata carry the file's decryptor: nothing else needs a key.
#[derive(Clone, Debug)]
pub struct SealedFileReader {
    files: SealedFiles,
    file: DataFile,
    /// Held for as long as it reads, whatever else is opened meanwhile.
    opened: Option<Arc<Opened>>,
}

impl SealedFileReader {
    pub(super) fn new(files: SealedFiles, file: DataFile) -> Self {
        let opened = None;
        Self {
            files,
            file,
            opened,
        }
    }

    /// Bytes that were asked for, or an error that names the file: never fewer, and framed as modules if they are sealed.
    async fn read(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let mut read = self.bytes(ranges).await?;
        if !self.file.encrypted {
            return Ok(read);
        }
        let opened = self.opened().await?;
        for (range, bytes) in ranges.iter().zip(&mut read) {
            self.mend(&opened, range, bytes).await?;
            if !is_framed(bytes) {
                return Err(self.no_pages(range));
            }
        }
        Ok(read)
    }

    /// Replaces pages that are damaged here by what stands a second time, if that is not damaged too.
    async fn mend(
        &self,
        opened: &Opened,
        range: &Range<u64>,
        bytes: &mut Bytes,
    ) -> Result<(), StoreError> {
        let damaged = opened.twice.damaged(range, bytes);
        if damaged.is_empty() {
            return Ok(());
        }
        if !opened.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                file = self.file.path.as_ref(),
                "pages are damaged, and what stands a second time is read; `vitalseal store check --repair` writes the file anew"
            );
        }
        let places: Vec<_> = damaged.iter().map(|page| page.again()).collect();
        for (page, again) in damaged.iter().zip(&self.bytes(&places).await?) {
            page.mend(range, bytes, again);
        }
        Ok(())
    }

    /// These ranges as they stand in the file.
    async fn bytes(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let name = self.file.path.as_ref();
        let read = match self.files.inner.objects.read(name, ranges).await {
            Ok(read) => read,
            Err(cause) => {
                // What is asked for beyond the end is an error like any other.
                let size = self.files.size(name).await?.unwrap_or(u64::MAX);
                let beyond = ranges.iter().find(|range| range.end > size);
                return Err(beyond.map_or(cause.into(), |range| self.no_pages(range)));
            }
        };
        for (range, bytes) in ranges.iter().zip(&read) {
            if u64::try_from(bytes.len())? != range.end.saturating_sub(range.start) {
                return Err(self.no_pages(range));
            }
        }
        Ok(read)
    }

    fn no_pages(&self, range: &Range<u64>) -> StoreError {
        let what = format!("bytes {} to {} are not pages", range.start, range.end);
        damaged(self.file.path.as_ref(), what).into()
    }

    pub(super) async fn opened(&mut self) -> Result<Arc<Opened>, StoreError> {
        if let Some(opened) = &self.opened {
            return Ok(Arc::clone(opened));
        }
        let path = &self.file.path;
        let found = self.files.inner.cache.find(path);
        let opened = match found {
            Some(opened) => opened,
            None => {
                let opened = Arc::new(self.open().await?);
                let cache = &self.files.inner.cache;
                cache.insert(path.clone(), Arc::clone(&opened));
                opened
            }
        };
        self.opened = Some(Arc::clone(&opened));
        Ok(opened)
    }

    async fn open(&self) -> Result<Opened, StoreError> {
        if self.file.encrypted {
            return self.open_sealed().await;
        }
        // A file of version 3 has no footer in the catalog, and nothing twice.
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
        let mut own = self.clone();
        let metadata = reader.load_and_finish(&mut own, self.file.size).await?;
        Ok(Opened {
            metadata: Arc::new(metadata),
            twice: Twice::default(),
            told: AtomicBool::default(),
        })
    }

    /// Opens the catalog's copy of the footer, or where that is damaged the file's own.
    async fn open_sealed(&self) -> Result<Opened, StoreError> {
        let keys = &self.files.inner.keys;
        let in_catalog = open_tail(&self.file, &self.file.footer, keys);
        let Err(StoreError::Files(FilesError::Damaged { .. })) = in_catalog else {
            return in_catalog;
        };
        let length = u64::try_from(self.file.footer.len())?;
        let own = self.file.size.saturating_sub(length)..self.file.size;
        let tail = self.bytes(&[own]).await?;
        let Some(opened) = tail
            .first()
            .and_then(|tail| open_tail(&self.file, tail, keys).ok())
        else {
            return in_catalog;
        };
        tracing::warn!(
            file = self.file.path.as_ref(),
            "the registry's copy of its footer is damaged, and its own was read; `vitalseal store check --repair` writes both anew"
        );
        Ok(opened)
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

impl Opened {
    pub(super) fn memory_size(&self) -> usize {
        self.metadata.memory_size() + self.twice.memory_size()
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
        async move {
            let opened = self.opened().await.map_err(external)?;
            Ok(Arc::clone(&opened.metadata))
        }
        .boxed()
    }
}

/// Whether these bytes are whole modules of Modular Encryption, one after another.
pub(super) fn is_framed(mut bytes: &[u8]) -> bool {
    loop {
        match first_module(bytes) {
            Some((_, [])) => return true,
            Some((_, rest)) => bytes = rest,
            None => return false,
        }
    }
}

/// The first module of these bytes, and what follows it: length u32 LE, nonce, ciphertext, tag.
pub(super) fn first_module(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let found = rest.split_at_checked(length);
    found.filter(|(module, _)| module.len() >= SHORTEST)
}

/// Opens the last bytes of a file, page indexes included.
fn open_tail(file: &DataFile, tail: &[u8], keys: &StoreKeys) -> Result<Opened, StoreError> {
    let name = file.path.as_ref();
    let none = || {
        damaged(
            name,
            "its footer and the catalog's copy of it are none".to_owned(),
        )
    };
    let (metadata, json) = KeyMetadata::find(tail).ok_or_else(none)?;
    let kid = metadata.kid().ok_or_else(none)?;
    let Some(store_key) = keys.find(&kid) else {
        let name = name.to_owned();
        return Err(FilesError::UnknownKey { name, kid }.into());
    };
    let retriever = OneKey {
        metadata: json.to_vec(),
        key: file_key_to_bytes(&metadata.unwrap(store_key).map_err(|_| none())?),
    };
    let decryption = FileDecryptionProperties::with_key_retriever(Arc::new(retriever)).build()?;
    let length = u64::try_from(tail.len())?;
    let start = file.size.checked_sub(length).ok_or_else(none)?;
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.size)?
        .with_page_index_policy(PageIndexPolicy::Optional)
        .with_file_decryption_properties(Some(decryption));
    decoder.push_range(start..file.size, Bytes::copy_from_slice(tail))?;
    match decoder.try_decode().map_err(|_| none())? {
        DecodeResult::Data(metadata) => Ok(Opened {
            twice: Twice::of(&metadata, tail, start)?,
            metadata: Arc::new(metadata),
            told: AtomicBool::default(),
        }),
        DecodeResult::NeedsData(_) | DecodeResult::Finished => Err(none().into()),
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
