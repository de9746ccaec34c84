//! One directory for snapshots of one store: the only place where their paths are built.
//!
//! ```text
//! PLACE/                                     the operator's; made by `init` alone
//! PLACE/<store id>/                          0700
//!   <root epoch>-<serial>.keys               manifest; the highest pair is the newest    0600
//!   pages/<SHA-256 of the file>.page         sealed KEKs of one page, written once       0600
//! ```
//!
//! A manifest gets its name when its last byte is on disk, so whatever bears one was whole once. A page file bears its
//! digest as its name: two stores that went apart, or two attempts, never write the same one differently.
//!
//! A disk that is not mounted must not pass for a place without snapshots, and nothing may be written below its mount
//! point: `PLACE` has to be there, and once it took a snapshot, `PLACE/<store id>` too.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use vitalseal_crypto::{KeyEpoch, default_backend};

use super::SnapshotError;
use super::format::PageFile;
use crate::durable::{self, FileError};

/// Which snapshot of a store. The root decides first: one of a later root knows every erasure that one of an earlier
/// root knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotId {
    /// The root that it is sealed under.
    pub root_epoch: KeyEpoch,
    /// Counts the snapshots under this root.
    pub serial: u64,
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.root_epoch, self.serial)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    dir: PathBuf,
    /// What has to be there.
    anchor: PathBuf,
}

impl Place {
    /// `taken`: it took a snapshot of this store before.
    pub(super) fn new(place: &Path, store_id: &str, taken: bool) -> Self {
        let dir = place.join(store_id);
        let anchor = if taken { &dir } else { place };
        Self {
            anchor: anchor.to_path_buf(),
            dir,
        }
    }

    pub(super) fn manifest(&self, id: SnapshotId) -> PathBuf {
        self.dir.join(format!("{id}.keys"))
    }

    fn pages(&self) -> PathBuf {
        self.dir.join("pages")
    }

    pub(super) fn page(&self, file: &PageFile) -> PathBuf {
        self.pages().join(page_name(file))
    }

    /// The newest snapshot here.
    pub(super) fn newest(&self) -> Result<Option<SnapshotId>, SnapshotError> {
        Ok(self.snapshots()?.last().copied())
    }

    /// Refuses a snapshot of a root that the registry does not know: another copy of the store wrote it.
    pub(super) fn refuse_foreign(&self, known: &BTreeSet<KeyEpoch>) -> Result<(), SnapshotError> {
        let snapshots = self.snapshots()?;
        match snapshots.iter().find(|id| !known.contains(&id.root_epoch)) {
            Some(id) => Err(SnapshotError::Foreign(self.manifest(*id))),
            None => Ok(()),
        }
    }

    /// All of them here, the newest last.
    pub(super) fn snapshots(&self) -> Result<BTreeSet<SnapshotId>, SnapshotError> {
        self.refuse_if_away()?;
        let names = names(&self.dir)?;
        Ok(names.iter().filter_map(|name| parse(name)).collect())
    }

    fn refuse_if_away(&self) -> Result<(), SnapshotError> {
        if self.anchor.is_dir() {
            Ok(())
        } else {
            Err(SnapshotError::Away(self.anchor.clone()))
        }
    }

    /// Writes a page file, once.
    pub(super) fn put_page(
        &self,
        generation: i64,
        bytes: &[u8],
    ) -> Result<PageFile, SnapshotError> {
        self.make()?;
        let file = PageFile::of(generation, bytes);
        let path = self.page(&file);
        durable::write_new(&path, bytes)?;
        Ok(file)
    }

    /// Writes a manifest, which must be a new one.
    pub(super) fn put_manifest(&self, id: SnapshotId, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.make()?;
        let path = self.manifest(id);
        let unfinished = path.with_extension("tmp");
        durable::remove(&unfinished)?;
        durable::write_new(&unfinished, bytes)?;
        Ok(durable::rename(&unfinished, &path)?)
    }

    /// Makes what directories are missing, one by one: each name is durable before anything stands below it.
    fn make(&self) -> Result<(), SnapshotError> {
        self.refuse_if_away()?;
        for dir in [&self.dir, &self.pages()] {
            if !dir.is_dir() {
                durable::create_dir(dir)?;
            }
        }
        Ok(())
    }

    /// Removes every snapshot but these, and every page file that none of them names; nothing when somebody else wrote
    /// a later one meanwhile.
    pub(super) fn keep(
        &self,
        snapshots: &[SnapshotId],
        pages: &BTreeSet<&PageFile>,
    ) -> Result<(), SnapshotError> {
        if self.newest()?.as_ref() > snapshots.iter().max() {
            return Ok(());
        }
        for name in names(&self.dir)? {
            let old = parse(&name).is_some_and(|id| !snapshots.contains(&id));
            if old || name.ends_with(".tmp") {
                durable::remove(&self.dir.join(name))?;
            }
        }
        let named: BTreeSet<String> = pages.iter().map(|file| page_name(file)).collect();
        for name in names(&self.pages())? {
            if name.ends_with(".page") && !named.contains(&name) {
                durable::remove(&self.pages().join(name))?;
            }
        }
        Ok(())
    }
}

fn page_name(file: &PageFile) -> String {
    format!("{}.page", file.sha256)
}

fn parse(name: &str) -> Option<SnapshotId> {
    let (root_epoch, serial) = name.strip_suffix(".keys")?.split_once('-')?;
    let id = SnapshotId {
        root_epoch: KeyEpoch(root_epoch.parse().ok()?),
        serial: serial.parse().ok()?,
    };
    // One spelling each: `01-1.keys` is nobody's.
    (name == format!("{id}.keys")).then_some(id)
}

fn names(dir: &Path) -> Result<Vec<String>, FileError> {
    let names = durable::names(dir)?.into_iter();
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    default_backend().sha256(&[bytes])
}
