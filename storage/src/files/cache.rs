//! Footers that were opened already: opening one costs more than reading a page.
//!
//! Bounded in bytes: when the young half is full it becomes the old half, and what nobody asked for since is dropped. A
//! file never changes and its name is never used again, so nothing here is ever stale.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;

use super::read::Opened;

/// Bytes in one half.
const HALF: usize = 32 * 1024 * 1024;

#[derive(Default)]
pub(super) struct MetadataCache {
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<Path, Arc<Opened>>,
    old: HashMap<Path, Arc<Opened>>,
    young_bytes: usize,
}

impl MetadataCache {
    pub(super) fn find(&self, file: &Path) -> Option<Arc<Opened>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metadata) = halves.young.get(file) {
            return Some(Arc::clone(metadata));
        }
        let metadata = halves.old.remove(file)?;
        halves.insert(file.clone(), Arc::clone(&metadata));
        Some(metadata)
    }

    pub(super) fn insert(&self, file: Path, opened: Arc<Opened>) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.insert(file, opened);
    }

    pub(super) fn remove(&self, file: &Path) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        // What it took stays counted until the halves turn: that only makes them turn sooner.
        halves.young.remove(file);
        halves.old.remove(file);
    }
}

impl Halves {
    fn insert(&mut self, file: Path, opened: Arc<Opened>) {
        let bytes = opened.memory_size();
        if self.young_bytes + bytes > HALF {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(file, opened);
    }
}
