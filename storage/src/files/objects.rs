//! Files by name, each written once: in a directory, or in a bucket.
//!
//! `object_store` reads both. It does not sync what it writes to a disk, so there a file is written with `std::fs`: under
//! another name, synced, renamed, its directory synced. A bucket takes a file in one conditional PUT: until that is
//! answered nothing is visible, and nothing that exists is ever replaced.

use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, PutMode, RetryConfig,
};

use super::credentials::S3Credentials;
use super::{FilesError, ObjectsPlace, S3Place};
use crate::crash::{CrashHook, CrashPoint};
use crate::durable::{self, failed};
use crate::store::StoreError;

/// How long the client repeats a request at most. `object_store` asks for less than five minutes, since it repeats it
/// with the signature of the first.
const RETRIES_END: Duration = Duration::from_secs(240);

/// A connection that is not there by then is tried again.
const CONNECT: Duration = Duration::from_secs(5);

/// Where data files are.
#[derive(Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// The directory, if they are on the local disk.
    local: Option<PathBuf>,
    place: Arc<str>,
    /// Whether a PUT or a HEAD was answered with a version.
    versions: Arc<AtomicBool>,
}

impl Objects {
    pub(super) fn open(place: &ObjectsPlace) -> Result<Self, FilesError> {
        match place {
            ObjectsPlace::Local(dir) => {
                let shown = dir.display().to_string();
                let store = LocalFileSystem::new_with_prefix(dir);
                Ok(Self {
                    store: Arc::new(store.map_err(object("opening", "", &shown))?),
                    local: Some(dir.clone()),
                    place: shown.into(),
                    versions: Arc::default(),
                })
            }
            ObjectsPlace::S3(place) => Ok(Self {
                store: bucket(place)?,
                local: None,
                place: place.describe().into(),
                versions: Arc::default(),
            }),
        }
    }

    /// Where, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Refuses a bucket that a new store could not rely on: it must be empty here, and must refuse a name that exists.
    pub(super) async fn try_out(&self, id: &[u8; 16]) -> Result<(), FilesError> {
        if self.local.is_some() {
            return Ok(());
        }
        let refuse = |why: &str| Err(FilesError::Settings(format!("{}: {why}", self.place)));
        if !self.names().await?.is_empty() {
            return refuse("there are objects already; name a prefix that is this store's own");
        }
        let path = ObjectPath::from(format!("trial-{}", hex::encode(id)));
        let put = |bytes: &'static [u8]| async {
            let put = self
                .store
                .put_opts(&path, bytes.into(), PutMode::Create.into());
            put.await
        };
        let failed = |cause| self.failed("trying out", path.as_ref())(cause);
        put(b"1").await.map_err(failed)?;
        let again = put(b"2").await;
        self.store.delete(&path).await.map_err(failed)?;
        match again {
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Ok(_) => refuse(
                "the server takes a name twice; it must know conditional PUT (If-None-Match)",
            ),
            Err(cause) => Err(failed(cause)),
        }
    }

    /// Whether what is removed stays: the bucket keeps versions, as far as an answer told.
    pub(super) fn keeps_versions(&self) -> bool {
        self.versions.load(Ordering::Relaxed)
    }

    pub(super) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// Writes a file that must not exist yet; it is durable when this returns.
    pub(super) async fn create(
        &self,
        name: &str,
        bytes: Bytes,
        crash: &CrashHook,
    ) -> Result<(), StoreError> {
        if let Some(dir) = &self.local {
            let (path, place, crash) = (dir.join(name), self.place.to_string(), crash.clone());
            return tokio::task::spawn_blocking(move || create_local(&path, &bytes, place, &crash))
                .await?;
        }
        let path = ObjectPath::from(name);
        let put = self
            .store
            .put_opts(&path, bytes.clone().into(), PutMode::Create.into());
        match put.await {
            Ok(done) => {
                if done.version.is_some() {
                    self.versions.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            // An answer that got lost and a second try: then what is there is what we sent.
            Err(object_store::Error::AlreadyExists { .. }) if self.holds(name, &bytes).await? => {
                Ok(())
            }
            Err(object_store::Error::AlreadyExists { .. }) => Err(self.exists(name).into()),
            Err(cause) => Err(self.failed("writing", name)(cause).into()),
        }
    }

    /// Ranges of a file, in their order. A range beyond its end comes back shorter or is an error.
    pub(super) async fn read(
        &self,
        name: &str,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, FilesError> {
        let path = ObjectPath::from(name);
        let read = self.store.get_ranges(&path, ranges).await;
        read.map_err(self.failed("reading", name))
    }

    /// A whole file.
    pub(super) async fn read_all(&self, name: &str) -> Result<Bytes, FilesError> {
        let path = ObjectPath::from(name);
        let got = self.store.get(&path).await;
        let got = got.map_err(self.failed("reading", name))?;
        got.bytes().await.map_err(self.failed("reading", name))
    }

    /// Bytes of a file; `None` if there is none of this name.
    pub(super) async fn size(&self, name: &str) -> Result<Option<u64>, FilesError> {
        match self.store.head(&ObjectPath::from(name)).await {
            Ok(found) => {
                if found.version.is_some() {
                    self.versions.store(true, Ordering::Relaxed);
                }
                Ok(Some(found.size))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(self.failed("looking for", name)(cause)),
        }
    }

    /// Removes a file, and what an interrupted write left of it, if they are there; they are gone for good when this
    /// returns.
    pub(super) async fn remove(&self, name: &str) -> Result<(), FilesError> {
        if let Some(dir) = &self.local {
            let path = dir.join(name);
            durable::remove(&path)?;
            return Ok(durable::remove(&partial(&path))?);
        }
        match self.store.delete(&ObjectPath::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(self.failed("removing", name)(cause)),
        }
    }

    /// The names that are there, with their sizes in bytes.
    pub(super) async fn names(&self) -> Result<Vec<(String, u64)>, FilesError> {
        let listed = self
            .store
            .list(None)
            .map_ok(|found| (found.location.to_string(), found.size));
        let mut names: Vec<_> = listed
            .try_collect()
            .await
            .map_err(self.failed("listing", "files"))?;
        names.sort_unstable();
        Ok(names)
    }

    async fn holds(&self, name: &str, bytes: &Bytes) -> Result<bool, FilesError> {
        let size = u64::try_from(bytes.len()).ok();
        Ok(self.size(name).await? == size && self.read_all(name).await? == *bytes)
    }

    fn exists(&self, name: &str) -> FilesError {
        let (name, place) = (name.to_owned(), self.place.to_string());
        FilesError::Exists { name, place }
    }

    fn failed(
        &self,
        what: &'static str,
        name: &str,
    ) -> impl FnOnce(object_store::Error) -> FilesError {
        object(what, name, &self.place)
    }
}

fn create_local(
    path: &Path,
    bytes: &[u8],
    place: String,
    crash: &CrashHook,
) -> Result<(), StoreError> {
    // One process has the store, so nobody takes the name between this look and the renaming.
    if path.exists() {
        let name = path.file_name().unwrap_or_default().display().to_string();
        return Err(FilesError::Exists { name, place }.into());
    }
    let partial = partial(path);
    let mut file = durable::create_new(&partial)?;
    let written = file.write_all(bytes);
    written.map_err(failed("writing", &partial))?;
    crash.reached(CrashPoint::FileHalfWritten)?;
    file.sync_all().map_err(failed("syncing", &partial))?;
    Ok(durable::rename(&partial, path)?)
}

fn partial(path: &Path) -> PathBuf {
    path.with_extension("parquet.tmp")
}

fn bucket(place: &S3Place) -> Result<Arc<dyn ObjectStore>, FilesError> {
    place.check()?;
    let credentials = S3Credentials::read(place.credentials.as_deref())?;
    let endpoint = place.endpoint.as_deref();
    let plain = endpoint.is_some_and(|at| at.starts_with("http:"));
    let options = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT)
        .with_timeout(Duration::from_secs(place.timeout_s.into()));
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: usize::try_from(place.retries).unwrap_or(usize::MAX),
        retry_timeout: RETRIES_END,
    };
    // Not from the environment: a variable of another program must not change where readings go.
    let mut builder = AmazonS3Builder::new()
        .with_region(&place.region)
        .with_bucket_name(&place.bucket)
        .with_virtual_hosted_style_request(place.virtual_host)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(options)
        .with_retry(retry)
        .with_access_key_id(credentials.id)
        .with_secret_access_key(credentials.secret.as_str());
    if let Some(token) = &credentials.token {
        builder = builder.with_token(token.as_str());
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let store = builder.build();
    let store = store.map_err(object("opening", "", &place.describe()))?;
    Ok(Arc::new(PrefixStore::new(store, place.prefix.as_str())))
}

fn object(
    what: &'static str,
    name: &str,
    place: &str,
) -> impl FnOnce(object_store::Error) -> FilesError {
    move |cause| {
        let (name, place) = (name.to_owned(), place.to_owned());
        match cause {
            object_store::Error::NotFound { .. } => FilesError::Missing { name, place },
            cause => FilesError::Object {
                what,
                name,
                place,
                cause: Box::new(cause),
            },
        }
    }
}
