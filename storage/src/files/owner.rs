//! Whose a place is: in it lies a file `owner` with the same bytes as the store's own `parquet.owner`.
//!
//! ```text
//! <32 hex digits, drawn once for each data directory> \n
//! ```
//!
//! Files are removed by a catalog's word, and a catalog that is older than the place, as that of a restored backup, takes
//! files for leftovers that a newer one lives by. So nothing is written or removed where another `owner` lies, or none: a
//! disk that is not mounted has none either. It is in no backup, so a restored store has another; who replaces the file
//! in the place shuts out whoever wrote there so far.
//!
//! Never here: which store it is, or anything else that a bucket's provider could use.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use vitalseal_crypto::default_backend;

use super::FilesError;
use super::objects::Objects;
use crate::crash::CrashHook;
use crate::durable;
use crate::store::StoreError;

/// The name in the place. No data file has such a name.
pub(super) const OWNER: &str = "owner";

/// What this store's places hold.
#[derive(Debug)]
pub(super) struct Owner {
    file: PathBuf,
    bytes: Bytes,
    /// Whether this process took the place, and found it empty.
    is_new: AtomicBool,
}

impl Owner {
    /// Reads the store's own, or draws it.
    pub(super) fn of(file: &Path) -> Result<Self, StoreError> {
        if !file.exists() {
            let mut id = [0; 16];
            default_backend().fill_random(&mut id)?;
            let partial = file.with_extension("owner.tmp");
            durable::remove(&partial)?;
            durable::write_new(&partial, format!("{}\n", hex::encode(id)).as_bytes())?;
            durable::rename(&partial, file)?;
        }
        Ok(Self {
            file: file.to_path_buf(),
            bytes: durable::read(file)?.into(),
            is_new: AtomicBool::default(),
        })
    }

    /// Refuses a place that is not this store's, or cannot be seen to be.
    pub(super) async fn check(&self, objects: &Objects) -> Result<(), FilesError> {
        if self.is_there(objects).await? {
            return Ok(());
        }
        Err(FilesError::Away {
            place: objects.place().to_owned(),
            owner: self.file.clone(),
        })
    }

    /// Takes a place that nobody has: one with a file of this store in it, or for a store without files an empty one.
    pub(super) async fn claim(
        &self,
        objects: &Objects,
        live: impl Fn(&str) -> bool,
        is_new: bool,
    ) -> Result<(), StoreError> {
        if self.is_there(objects).await? {
            return Ok(());
        }
        let there = objects.names().await?;
        let is_stranger = is_new && !objects.is_local() && !there.is_empty();
        if is_stranger {
            let why = "there are objects already; name a prefix that is this store's own";
            return Err(objects.refused(why).into());
        }
        if !is_new && !there.iter().any(|(name, _)| live(name)) {
            return Ok(self.check(objects).await?);
        }
        objects.clear_partial(OWNER)?;
        let bytes = self.bytes.clone();
        objects.create(OWNER, bytes, &CrashHook::default()).await?;
        if objects.takes_a_name_twice(OWNER).await? {
            objects.remove(OWNER).await?;
            let why = "the server takes a name twice; it must know conditional PUT (If-None-Match)";
            return Err(objects.refused(why).into());
        }
        self.is_new.store(is_new, Ordering::Relaxed);
        Ok(())
    }

    /// Leaves a bucket as it was found, for a store that is not to be. A directory is left to whoever made it.
    pub(super) async fn give_up(&self, objects: &Objects) -> Result<(), FilesError> {
        if objects.is_local() || !self.is_new.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (name, _) in objects.names().await? {
            self.check(objects).await?;
            objects.remove(&name).await?;
        }
        self.check(objects).await?;
        objects.remove(OWNER).await
    }

    async fn is_there(&self, objects: &Objects) -> Result<bool, FilesError> {
        match objects.read_all(OWNER).await {
            Ok(found) if found == self.bytes => Ok(true),
            Ok(_) => Err(FilesError::Foreign {
                place: objects.place().to_owned(),
                owner: self.file.clone(),
            }),
            Err(FilesError::Missing { .. }) => Ok(false),
            Err(cause) => Err(cause),
        }
    }
}
