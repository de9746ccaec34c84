//! One consumer: connection after connection, with pauses between them.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::DeviceId;

use super::connection::Reason;
use super::{ClusterSettings, Shared};

/// What outlives a connection.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) shared: Arc<Shared>,
    pub(super) index: u16,
    /// Devices that name a session key which is not known, and since when.
    unknown: HashMap<DeviceId, Instant>,
}

/// Devices that are remembered as waited for. With more, some are waited for anew.
const UNKNOWN_SENDERS: usize = 1024;

/// How a connection ended that was not asked to end.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) reason: Reason,
    /// Something was acknowledged on it: the cluster, the store and we are well.
    pub(super) progress: bool,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, index: u16) -> Self {
        Self {
            shared,
            index,
            unknown: HashMap::new(),
        }
    }

    /// Its client identifier, under which the cluster keeps its session.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.shared.settings.client_id, self.index)
    }

    /// Connects, again and again, until told to stop.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let mut pauses = Pauses::new(&shared.settings);
        while let Err(lost) = self.consume(&shutdown).await {
            shared.metrics.connections_lost.fetch_add(1, Relaxed);
            // A cluster that accepts connections and nothing else is not well, nor is a store that takes nothing.
            if lost.progress {
                pauses.reset();
            }
            let pause = pauses.next();
            self.tell(&lost.reason, pause);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    fn tell(&self, reason: &Reason, pause: Duration) {
        let error = reason as &dyn std::error::Error;
        tracing::warn!(
            consumer = %self.name(), error, ?pause,
            "no connection to the MQTT cluster; what is not acknowledged comes again"
        );
    }

    /// Whether a device has been waited for long enough, whose session key is not known. Once it was, its further messages
    /// under that key are not waited with any more.
    pub(super) fn has_waited_for_sender(&mut self, device: &DeviceId) -> bool {
        if self.unknown.len() >= UNKNOWN_SENDERS {
            self.unknown.clear();
        }
        let since = *self
            .unknown
            .entry(device.clone())
            .or_insert_with(Instant::now);
        since.elapsed() >= self.shared.settings.sender_patience
    }

    /// A message of this device opened: the next key that is not known is another one.
    pub(super) fn knows_sender(&mut self, device: &DeviceId) {
        self.unknown.remove(device);
    }
}

/// Pauses that double, with jitter, so that not all nodes come back at the same instant.
#[derive(Debug)]
struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    fn new(settings: &ClusterSettings) -> Self {
        let first = settings.first_pause.max(Duration::from_millis(1));
        Self {
            first,
            longest: settings.longest_pause.max(first),
            next: first,
        }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    fn next(&mut self) -> Duration {
        // The keys of a hasher are drawn at random: enough for a pause.
        let drawn = RandomState::new().hash_one(()).to_be_bytes();
        let chance = f64::from(drawn[0]) / f64::from(u8::MAX);
        let pause = self.next.mul_f64(0.5 + chance / 2.0);
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_progress() {
        let settings = ClusterSettings::new("localhost".to_owned(), 8883);
        let mut pauses = Pauses::new(&settings);
        let mut whole = settings.first_pause;
        for _ in 0..12 {
            let pause = pauses.next();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?}");
            whole = (whole * 2).min(settings.longest_pause);
        }
        assert_eq!(whole, settings.longest_pause);
        pauses.reset();
        assert!(pauses.next() <= settings.first_pause);
    }
}
