//! Counters of the consumers. Numbers only: nothing here names a device or a person.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::pipeline::Outcome;

/// What the consumers have done since they started. All counters only grow, but for the one that says "now".
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    pub(super) connected: AtomicU64,
    pub(super) connections_lost: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) redelivered: AtomicU64,
    pub(super) unnamed: AtomicU64,
    acked: AtomicU64,
    duplicates: AtomicU64,
    quarantined: AtomicU64,
    chain_gaps: AtomicU64,
}

impl ClusterMetrics {
    /// Consumers that are connected and subscribed now.
    pub fn connected(&self) -> u64 {
        self.connected.load(Relaxed)
    }

    /// Connections that failed, were lost, or were given up so that the cluster sends again.
    pub fn connections_lost(&self) -> u64 {
        self.connections_lost.load(Relaxed)
    }

    /// Messages that came, repeated ones included.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Of these, the ones that the cluster marked as sent before (DUP).
    pub fn redelivered(&self) -> u64 {
        self.redelivered.load(Relaxed)
    }

    /// Of these, the ones whose topic names no device; they are in the quarantine.
    pub fn unnamed(&self) -> u64 {
        self.unnamed.load(Relaxed)
    }

    /// Messages whose outcome was durable and acknowledged; duplicates and quarantined ones included.
    pub fn acked(&self) -> u64 {
        self.acked.load(Relaxed)
    }

    /// Of these, the ones that were stored already.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Relaxed)
    }

    /// Of these, the ones that were quarantined.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Relaxed)
    }

    /// Stored messages whose predecessor, which they name, was not there yet.
    pub fn chain_gaps(&self) -> u64 {
        self.chain_gaps.load(Relaxed)
    }

    pub(super) fn count_acked(&self, outcome: Outcome) {
        self.acked.fetch_add(1, Relaxed);
        let what = match outcome {
            Outcome::Stored { gap: false, .. } => return,
            Outcome::Stored { gap: true, .. } => &self.chain_gaps,
            Outcome::Duplicate => &self.duplicates,
            Outcome::Quarantined(_) => &self.quarantined,
        };
        what.fetch_add(1, Relaxed);
    }

    /// A consumer counts as connected for as long as this lives.
    pub(super) fn connection(&self) -> Connected<'_> {
        self.connected.fetch_add(1, Relaxed);
        Connected(self)
    }
}

/// One connected consumer.
#[derive(Debug)]
pub(super) struct Connected<'a>(&'a ClusterMetrics);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Relaxed);
    }
}
