//! The last messages of each topic, numbered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::topic::Topic;

/// How long the router may take to hand back what was published. It is in this process and does microseconds of work.
const ROUND_TRIP: Duration = Duration::from_secs(30);

/// What was published, by topic.
#[derive(Debug)]
pub(crate) struct Logs {
    kept: Mutex<Kept>,
    /// Rung for each message of a topic that devices hear. Ten thousand sessions wait on this one …
    devices: watch::Sender<()>,
    /// … and the few displays on this one, so that an alert does not wake every device.
    listeners: watch::Sender<()>,
    round_trip: std::sync::Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    topics: BTreeMap<Topic, Log>,
    appended: u64,
}

/// One topic: messages `next - messages.len() .. next`. `Debug` prints their numbers only.
#[derive(Default)]
pub(super) struct Log {
    next: u64,
    messages: VecDeque<Bytes>,
}

impl Log {
    /// Number of the message after the newest.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Number of the oldest message that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.next
            .saturating_sub(u64::try_from(self.messages.len()).unwrap_or(u64::MAX))
    }

    pub(super) fn get(&self, number: u64) -> Option<&Bytes> {
        let index = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        self.messages.get(index)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Log")
            .field(&(self.oldest()..self.next))
            .finish()
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            devices: watch::Sender::new(()),
            listeners: watch::Sender::new(()),
            round_trip: std::sync::Condvar::new(),
        }
    }
}

impl Logs {
    /// The next message of a topic.
    pub(crate) fn append(&self, topic: &Topic, message: Bytes) {
        {
            let mut kept = self.kept();
            kept.appended += 1;
            let log = kept.topics.entry(topic.clone()).or_default();
            log.next += 1;
            log.messages.push_back(message);
            while log.messages.len() > topic.kept() {
                log.messages.pop_front();
            }
        }
        self.round_trip.notify_all();
        match topic {
            Topic::Recipient | Topic::Notices => self.devices.send_replace(()),
            Topic::Alerts(_) => self.listeners.send_replace(()),
        };
    }

    /// Messages since the start.
    pub(super) fn appended(&self) -> u64 {
        self.kept().appended
    }

    /// Blocks until so many messages have come; `false` when they do not.
    pub(super) fn wait_for(&self, appended: u64) -> bool {
        let waited = self
            .round_trip
            .wait_timeout_while(self.kept(), ROUND_TRIP, |kept| kept.appended < appended);
        let (_kept, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// Looks at the topics.
    pub(super) fn with<T>(&self, look: impl FnOnce(&BTreeMap<Topic, Log>) -> T) -> T {
        look(&self.kept().topics)
    }

    /// Rung whenever there is news for devices, or for listeners.
    pub(super) fn news(&self, for_devices: bool) -> watch::Receiver<()> {
        match for_devices {
            true => self.devices.subscribe(),
            false => self.listeners.subscribe(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Numbers and messages change together under the lock, and nothing in between can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
