//! Counters of the edge. Numbers only: nothing here names a device or a person.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::closing::Closing;
use super::slots::Slots;

/// What the edge has done since it started. All counters only grow, but for those that say "now".
#[derive(Debug, Default)]
pub struct EdgeMetrics {
    pub(super) slots: Arc<Slots>,
    sessions: AtomicU64,
    acked: AtomicU64,
    duplicates: AtomicU64,
    quarantined: AtomicU64,
    chain_gaps: AtomicU64,
    wills: AtomicU64,
    refused: AtomicU64,
    handshakes: AtomicU64,
    throttled: AtomicU64,
    closed: [AtomicU64; Closing::ALL.len()],
}

impl EdgeMetrics {
    /// TCP connections open now, handshaking ones included.
    pub fn connections(&self) -> u64 {
        self.slots.connections() as u64
    }

    /// MQTT sessions connected now.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// Messages whose outcome was durable and, above QoS 0, acknowledged; duplicates and quarantined ones included.
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

    /// Stored messages whose predecessor, which they name, was not there.
    pub fn chain_gaps(&self) -> u64 {
        self.chain_gaps.load(Relaxed)
    }

    /// TLS handshakes that began.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Relaxed)
    }

    /// Connections open now that have no session yet.
    pub fn strangers(&self) -> u64 {
        self.slots.strangers() as u64
    }

    /// Times that a client was too fast for long. It is read no faster than the limits say; nothing is dropped.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Relaxed)
    }

    /// Wills that were published; they are not among the acknowledged.
    pub fn wills(&self) -> u64 {
        self.wills.load(Relaxed)
    }

    /// Connections that ended for a reason other than an ordinary one.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Connections that ended for this reason.
    pub fn closed(&self, reason: Closing) -> u64 {
        self.closed
            .get(reason as usize)
            .map_or(0, |count| count.load(Relaxed))
    }

    pub(crate) fn count_closed(&self, reason: Closing) {
        if let Some(count) = self.closed.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
        if reason.is_refusal() {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn count_acked(&self) {
        self.acked.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_duplicate(&self) {
        self.duplicates.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_quarantined(&self) {
        self.quarantined.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_chain_gap(&self) {
        self.chain_gaps.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_handshake(&self) {
        self.handshakes.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_throttled(&self) {
        self.throttled.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_will(&self) {
        self.wills.fetch_add(1, Relaxed);
    }

    pub(crate) fn session(&self) -> Gauge<'_> {
        Gauge::raise(&self.sessions)
    }
}

/// One more for as long as it lives.
#[derive(Debug)]
pub(crate) struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    fn raise(value: &'a AtomicU64) -> Self {
        value.fetch_add(1, Relaxed);
        Self(value)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let metrics = EdgeMetrics::default();
        for (index, reason) in Closing::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason}");
            metrics.count_closed(reason);
        }
        assert!(
            Closing::ALL
                .into_iter()
                .all(|reason| metrics.closed(reason) == 1)
        );
        // Four ends are ordinary.
        assert_eq!(metrics.refused(), Closing::ALL.len() as u64 - 4);
    }
}
