//! The highest counters that each device was heard with since the start, in memory: most messages are beyond them, and
//! so need not be looked up before they are verified.
//!
//! A hint, and never the judge of a repetition: that is the transaction which stores a message. A hint that is too low
//! costs a signature check of what was stored before, nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vitalseal_crypto::{DeviceId, MessageId};

/// Boot and sequence, by device; of enrolled devices only, since others are not admitted.
#[derive(Clone, Default)]
pub(super) struct Newest(Arc<Mutex<HashMap<DeviceId, (u64, u64)>>>);

impl Newest {
    /// Whether it comes after everything that was stored of its device. `false` also when nobody knows.
    pub(super) fn is_before(&self, message: &MessageId) -> bool {
        let newest = self.lock().get(&message.device).copied();
        newest.is_some_and(|newest| newest < (message.boot, message.sequence))
    }

    /// After the message was stored.
    pub(super) fn note(&self, message: &MessageId) {
        let counters = (message.boot, message.sequence);
        let mut newest = self.lock();
        match newest.get_mut(&message.device) {
            Some(newest) => *newest = counters.max(*newest),
            None => {
                newest.insert(message.device.clone(), counters);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, (u64, u64)>> {
        // Every change is one map operation: a panic elsewhere cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_beyond_everything_known_needs_no_look() {
        let newest = Newest::default();
        let message = |boot, sequence| MessageId {
            device: "mon-7".parse().unwrap(),
            boot,
            sequence,
        };
        assert!(!newest.is_before(&message(9, 9)), "nothing is known yet");
        newest.note(&message(3, 5));
        newest.note(&message(2, 70));
        for (boot, sequence, beyond) in [(3, 6, true), (4, 0, true), (3, 5, false), (2, 71, false)]
        {
            assert_eq!(newest.is_before(&message(boot, sequence)), beyond);
        }
    }
}
