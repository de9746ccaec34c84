//! Files by name, each written once: in a directory, or in a bucket.
//!
//! `object_store` reads both. It does not sync what it writes to a disk, so there a file is written with `std::fs`: under
//! another name, synced, renamed, its directory synced. A bucket takes a file in one conditional PUT: until that is
//! answered nothing is visible, and nothing that exists is ever replaced.

use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use super::owner::OWNER;
use super::{FilesError, ObjectsPlace, S3Place};
use crate::crash::{CrashHook, CrashPoint};
use crate::durable::{self, failed};
use crate::store::StoreError;

/// How long the client repeats a request at most. `object_store` asks for less than five minutes, since it repeats it
/// with the signature of the first.
const RETRIES_END: Duration = Duration::from_secs(240);

/// A connection that is not there by then is tried again.
const CONNECT: Duration = Duration::from_secs(5);

/// What is behind the name of a file while it is written to a disk.
pub(crate) const HALF: &str = ".tmp";

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

    /// Why this place is not to be used.
    pub(super) fn refused(&self, why: &str) -> FilesError {
        FilesError::Settings(format!("{}: {why}", self.place))
    }

    /// Whether the server replaces what has this name, which is there. On a disk nothing ever is.
    pub(super) async fn takes_a_name_twice(&self, name: &str) -> Result<bool, FilesError> {
        if self.local.is_some() {
            return Ok(false);
        }
        let path = ObjectPath::from(name);
        let again = self
            .store
            .put_opts(&path, "again".into(), PutMode::Create.into());
        match again.await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(cause) => Err(self.failed("trying out", name)(cause)),
        }
    }

    /// Removes what an interrupted [`Objects::create`] left of this name.
    pub(super) fn clear_partial(&self, name: &str) -> Result<(), FilesError> {
        match &self.local {
            Some(dir) => Ok(durable::remove(&partial(&dir.join(name)))?),
            None => Ok(()),
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
            let gone = Arc::<Mutex<bool>>::default();
            let _waiting = Waiting(Arc::clone(&gone));
            let create = move || create_local(&path, &bytes, place, &crash, &gone);
            return tokio::task::spawn_blocking(create).await?;
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
            durable::remove(&dir.join(name))?;
            return self.clear_partial(name);
        }
        // Of one that is there, the bucket says whether it will keep it.
        self.size(name).await?;
        match self.store.delete(&ObjectPath::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(self.failed("removing", name)(cause)),
        }
    }

    /// The names that are there but [`OWNER`], with their sizes in bytes.
    pub(super) async fn names(&self) -> Result<Vec<(String, u64)>, FilesError> {
        let listed = self
            .store
            .list(None)
            .map_ok(|found| (found.location.to_string(), found.size));
        let mut names: Vec<_> = listed
            .try_collect()
            .await
            .map_err(self.failed("listing", "files"))?;
        names.retain(|(name, _)| name != OWNER);
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
    gone: &Mutex<bool>,
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
    // Locked until the file has its name: whoever goes away finds it, or it is never there.
    let gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
    if *gone {
        return Ok(durable::remove(&partial)?);
    }
    Ok(durable::rename(&partial, path)?)
}

/// Somebody who waits for a file. Once this is dropped, nobody knows its name, and it does not appear any more.
struct Waiting(Arc<Mutex<bool>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(HALF);
    partial.into()
}

fn bucket(place: &S3Place) -> Result<Arc<dyn ObjectStore>, FilesError> {
    place.check()?;
    let credentials = S3Credentials::read(place.credentials.as_deref())?;
    let server = place.server();
    let plain = server.as_deref().is_some_and(|at| at.starts_with("http:"));
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
    if let Some(server) = server {
        builder = builder.with_endpoint(server);
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_file_that_nobody_waits_for_any_more_does_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(&ObjectsPlace::Local(dir.path().to_path_buf())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (begin, waiting) = std::sync::mpsc::channel();
        runtime.block_on(async {
            // The one thread for files is busy.
            let busy = tokio::task::spawn_blocking(move || waiting.recv());
            let hook = CrashHook::default();
            for keep in [false, true] {
                let name = format!("r-{keep}.parquet");
                let mut create = Box::pin(objects.create(&name, "bytes".into(), &hook));
                assert!((&mut create).now_or_never().is_none());
                if keep {
                    begin.send(()).unwrap();
                    create.await.unwrap();
                }
            }
            busy.await.unwrap().unwrap();
            // What was queued before this is over.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        });
        let there = std::fs::read_dir(dir.path()).unwrap();
        let there: Vec<_> = there.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(there, ["r-true.parquet"]);
    }
}
