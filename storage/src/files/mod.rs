//! Data files: Parquet under Modular Encryption, on the local disk or in a bucket, named at random, written once.
//!
//! A file has a key of its own; the store key wraps it, and the wrap stands in the file. What is sealed so is metadata:
//! pseudonyms, devices, times, counts. What was measured is sealed once more, in each row, for its patient. A file is
//! read by the catalog's copy of its footer; which files count is the catalog's to say, and nothing here decides it.
//!
//! No pseudonym is ever in a name, and no byte of a column in the clear.

mod cache;
mod credentials;
mod error;
mod key_metadata;
mod objects;
mod owner;
mod place;
mod read;
mod twice;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use vitalseal_crypto::default_backend;

pub use self::error::FilesError;
pub(crate) use self::objects::HALF;
pub use self::place::{ObjectsPlace, S3Place};
pub use self::read::SealedFileReader;
pub use self::write::MAX_FILE_BYTES;

use self::cache::MetadataCache;
use self::objects::Objects;
use self::owner::Owner;
use crate::catalog::{DataFile, FileKind};
use crate::crash::CrashHook;
use crate::keys::StoreKeys;
use crate::paths::StorePaths;
use crate::schema;
use crate::store::StoreError;

/// The store's data files; clones share them.
#[derive(Clone)]
pub struct SealedFiles {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Objects,
    owner: Owner,
    keys: Arc<StoreKeys>,
    cache: MetadataCache,
    crash: CrashHook,
}

/// A file that was just written.
#[derive(Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Bytes.
    pub size: u64,
    /// Digest of them.
    pub sha256: [u8; 32],
    /// A copy of its last bytes, from the sums of pages on: what [`DataFile::footer`] holds.
    pub footer: Arc<[u8]>,
    /// Rows.
    pub rows: u64,
}

impl SealedFiles {
    pub(crate) fn open(
        paths: &StorePaths,
        keys: Arc<StoreKeys>,
        crash: CrashHook,
    ) -> Result<Self, StoreError> {
        let inner = Inner {
            objects: Objects::open(&paths.objects())?,
            owner: Owner::of(&paths.owner())?,
            keys,
            cache: MetadataCache::default(),
            crash,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Takes the place for this store, whose files are `live`, unless it has it already.
    ///
    /// # Errors
    /// [`FilesError::Foreign`] when it is another's, [`FilesError::Away`] when none of the files is there: then nothing is
    /// written there either. [`FilesError::Settings`] for a bucket that a new store could not rely on.
    pub(crate) async fn claim(&self, live: &[DataFile]) -> Result<(), StoreError> {
        let Inner { objects, owner, .. } = &*self.inner;
        let is_live = |name: &str| live.iter().any(|file| file.path.as_ref() == name);
        owner.claim(objects, is_live, live.is_empty()).await
    }

    /// Leaves a bucket as [`SealedFiles::claim`] found it, if that was empty.
    pub(crate) async fn give_up(&self) -> Result<(), FilesError> {
        self.inner.owner.give_up(&self.inner.objects).await
    }

    /// Writes a file of this kind, whole: the batches have the columns of the kind, in the kind's order. It is built in
    /// memory, and durable when this returns.
    ///
    /// # Errors
    /// [`FilesError::TooLarge`] beyond [`MAX_FILE_BYTES`]; [`FilesError::Exists`] when there is such a file, which stays
    /// as it is; [`FilesError::Away`] and [`FilesError::Foreign`]; what the batches fail with; others when it is not durable, and then it may be there: plan a name in the
    /// catalog first.
    pub async fn put(
        &self,
        name: &str,
        kind: FileKind,
        batches: impl Iterator<Item = Result<RecordBatch, StoreError>> + Send + 'static,
    ) -> Result<WrittenFile, StoreError> {
        let keys = Arc::clone(&self.inner.keys);
        let (bytes, written) = tokio::task::spawn_blocking(move || {
            let file = write::encode(kind, batches, keys.current(), default_backend())?;
            let footer = file.bytes.get(file.footer_start..).unwrap_or_default();
            let written = WrittenFile {
                size: u64::try_from(file.bytes.len())?,
                sha256: default_backend().sha256(&[&file.bytes]),
                footer: footer.into(),
                rows: file.rows,
            };
            Ok::<_, StoreError>((file.bytes, written))
        })
        .await??;
        self.put_bytes(name, bytes.into()).await?;
        Ok(written)
    }

    /// Writes a file that was one of this store's before.
    ///
    /// # Errors
    /// As [`SealedFiles::put`].
    pub(crate) async fn put_bytes(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let Inner {
            objects,
            owner,
            crash,
            ..
        } = &*self.inner;
        owner.check(objects).await?;
        objects.create(name, bytes, crash).await
    }

    /// Reads a file as `parquet` and DataFusion do.
    #[must_use]
    pub fn reader(&self, file: &DataFile) -> SealedFileReader {
        SealedFileReader::new(self.clone(), file.clone())
    }

    /// These columns of all rows of a file, in its order, at most `rows` a batch.
    pub fn batches(
        &self,
        file: &DataFile,
        columns: &[&str],
        rows: usize,
    ) -> impl Stream<Item = Result<RecordBatch, StoreError>> + Send + use<> {
        self.batches_of(file, columns, rows, None)
    }

    /// The same, of those row groups only that may have rows of one of these patients; `None`: of all.
    pub(crate) fn batches_of(
        &self,
        file: &DataFile,
        columns: &[&str],
        rows: usize,
        subjects: Option<&BTreeSet<String>>,
    ) -> impl Stream<Item = Result<RecordBatch, StoreError>> + Send + use<> {
        let subjects = subjects.cloned();
        let (reader, name) = (self.reader(file), file.path.to_string());
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let opened = async move {
            let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
            let wanted = columns.iter().map(String::as_str);
            let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
            let groups = builder.metadata().row_groups().iter().enumerate();
            let groups = groups.filter(|(_, group)| {
                let subjects = subjects.as_ref();
                subjects.is_none_or(|s| s.iter().any(|subject| may_hold(group, subject)))
            });
            let groups = groups.map(|(group, _)| group).collect();
            let builder = builder.with_row_groups(groups);
            builder.with_projection(mask).with_batch_size(rows).build()
        };
        let batches = futures::stream::once(opened).try_flatten();
        batches.map(move |batch| batch.map_err(|cause| unreadable(&name, cause)))
    }

    /// What Parquet knows of a file: its opened footer with page indexes and decryptor.
    ///
    /// # Errors
    /// When the footer opens neither in the catalog's copy nor in the file, or a file of version 3 cannot be read.
    pub async fn metadata(&self, file: &DataFile) -> Result<Arc<ParquetMetaData>, StoreError> {
        Ok(Arc::clone(&self.reader(file).opened().await?.metadata))
    }

    /// All bytes of a file, as they are stored.
    ///
    /// # Errors
    /// [`FilesError::Missing`] when there is none of this name; others when it cannot be read.
    pub async fn bytes(&self, name: &str) -> Result<Bytes, FilesError> {
        self.inner.objects.read_all(name).await
    }

    /// Removes a file, and what an interrupted write left of it; none is no error. Gone for good when this returns.
    ///
    /// # Errors
    /// When it is not known to be gone; [`FilesError::Away`] and [`FilesError::Foreign`], and nothing was removed.
    pub async fn remove(&self, name: &str) -> Result<(), FilesError> {
        self.inner.owner.check(&self.inner.objects).await?;
        self.inner.cache.remove(&name.into());
        self.inner.objects.remove(name).await
    }

    /// The names that are there, sorted, with their sizes in bytes: whatever they are, and whether the catalog knows them
    /// or not.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn names(&self) -> Result<Vec<(String, u64)>, FilesError> {
        self.inner.objects.names().await
    }

    /// Bytes of a file; `None` if there is none of this name.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, FilesError> {
        self.inner.objects.size(name).await
    }

    /// Whether the bucket keeps versions, so that what is removed stays: known from the first file that this process wrote
    /// or removed.
    #[must_use]
    pub fn keeps_versions(&self) -> bool {
        self.inner.objects.keeps_versions()
    }

    /// Whether they are on this machine's disk.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.inner.objects.is_local()
    }

    /// The keys that files, and the evidence in them, are sealed under.
    pub(crate) fn keys(&self) -> &StoreKeys {
        &self.inner.keys
    }

    /// Where they are, for people: no credential is in it.
    #[must_use]
    pub fn place(&self) -> &str {
        self.inner.objects.place()
    }
}

/// Whether a row group may have rows of a patient. Rows are sorted by patient, so its statistics rule out nearly every one.
pub(crate) fn may_hold(group: &RowGroupMetaData, subject: &str) -> bool {
    let is_subject = |path: &str| path == schema::SUBJECT;
    let mut columns = group.columns().iter();
    let column = columns.find(|column| is_subject(&column.column_path().string()));
    let Some(Statistics::ByteArray(range)) = column.and_then(|column| column.statistics()) else {
        return true;
    };
    let subject = subject.as_bytes();
    range.min_opt().is_none_or(|min| min.data() <= subject)
        && range.max_opt().is_none_or(|max| max.data() >= subject)
}

/// An error of Parquet, with the file's name. What this module said itself stays as it is.
fn unreadable(name: &str, cause: ParquetError) -> StoreError {
    match cause {
        ParquetError::External(cause) => match cause.downcast::<StoreError>() {
            Ok(own) => *own,
            Err(cause) => StoreError::Parquet(ParquetError::External(cause)),
        },
        cause => read::damaged(name, cause.to_string()).into(),
    }
}

impl fmt::Debug for SealedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFiles")
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WrittenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrittenFile")
            .field("size", &self.size)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
