//! Opened keys of patients, kept close for the hot path.
//!
//! Bounded: when the young half is full it becomes the old half, and what nobody asked for since is
//! dropped (and zeroized). A loader that was under way during a purge must not put an erased key
//! back: it takes a [`Ticket`] before it reads, and the purge voids every ticket.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vitalseal_crypto::{PatientKeys, SubjectPseudonym};

/// Keys in one half. A patient's keys with the pseudonym take about 250 bytes, so both halves stay below 20
/// MB.
const HALF: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(crate) struct PatientKeyCache {
    halves: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<SubjectPseudonym, Arc<PatientKeys>>,
    old: HashMap<SubjectPseudonym, Arc<PatientKeys>>,
    purges: u64,
}

/// The state of the cache before a load; see the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl PatientKeyCache {
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.lock().purges)
    }

    pub(crate) fn find(&self, subject: &SubjectPseudonym) -> Option<Arc<PatientKeys>> {
        let mut halves = self.lock();
        if let Some(keys) = halves.young.get(subject) {
            return Some(Arc::clone(keys));
        }
        let keys = halves.old.remove(subject)?;
        halves.insert(subject.clone(), Arc::clone(&keys));
        Some(keys)
    }

    pub(crate) fn insert(&self, ticket: Ticket, subject: SubjectPseudonym, keys: Arc<PatientKeys>) {
        let mut halves = self.lock();
        if halves.purges == ticket.0 {
            halves.insert(subject, keys);
        }
    }

    pub(crate) fn purge(&self, subject: &SubjectPseudonym) {
        let mut halves = self.lock();
        halves.purges += 1;
        halves.young.remove(subject);
        halves.old.remove(subject);
    }

    /// Whoever they are of.
    pub(crate) fn purge_all(&self) {
        let mut halves = self.lock();
        let purges = halves.purges + 1;
        *halves = Halves {
            purges,
            ..Halves::default()
        };
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        // Every change is one map operation: a panic elsewhere cannot leave half of one.
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halves {
    fn insert(&mut self, subject: SubjectPseudonym, keys: Arc<PatientKeys>) {
        if self.young.len() >= HALF {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(subject, keys);
    }
}

#[cfg(test)]
mod tests {
    use vitalseal_crypto::{Kek, default_backend};

    use super::*;

    #[test]
    fn a_load_that_overlaps_a_purge_does_not_bring_the_key_back() {
        let backend = default_backend();
        let subject = SubjectPseudonym::random(backend).unwrap();
        let kek = Kek::generate(backend).unwrap();
        let keys = Arc::new(PatientKeys::new(kek, Vec::new()));
        let cache = PatientKeyCache::default();
        let early = cache.ticket();
        cache.insert(early, subject.clone(), Arc::clone(&keys));
        assert!(cache.find(&subject).is_some());
        cache.purge(&subject);
        cache.insert(early, subject.clone(), Arc::clone(&keys));
        assert!(cache.find(&subject).is_none());
        cache.insert(cache.ticket(), subject.clone(), keys);
        assert!(cache.find(&subject).is_some());
    }
}
