//! What of one connection is on its way: sent, and not yet acknowledged.
//!
//! Packet ids: `publish` only queues, so the id of a message is not known when it is handed over. The event loop
//! reports `Outgoing::Publish(id)` in the order of the queue, hence the two steps here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use vitalseal_crypto::RecipientCertificate;

use crate::Position;

/// Messages between the outbox and their acknowledgement.
pub(super) struct Window {
    /// One permit for each further message that may be sent.
    pub(super) room: Semaphore,
    state: Mutex<WindowState>,
    /// What the server published on this connection and the device trusts: what was known on an earlier one may have
    /// ended since.
    pub(super) recipient: watch::Sender<Option<Arc<RecipientCertificate>>>,
}

#[derive(Default)]
struct WindowState {
    /// Handed to the client, packet id not known yet, in order.
    queued: VecDeque<Addressed>,
    /// Sent under this packet id.
    sent: HashMap<u16, Addressed>,
}

/// A message on its way.
#[derive(Clone, Copy)]
pub(super) struct Addressed {
    pub(super) position: Position,
    /// End of the envelope certificate that it is sent under.
    pub(super) until: Timestamp,
}

impl Window {
    pub(super) fn new(size: u16) -> Self {
        Self {
            room: Semaphore::new(usize::from(size)),
            state: Mutex::default(),
            recipient: watch::Sender::new(None),
        }
    }

    pub(super) fn queue(&self, message: Addressed) {
        self.state().queued.push_back(message);
    }

    pub(super) fn unqueue(&self) {
        self.state().queued.pop_back();
    }

    /// The next message of the queue went out under this packet id.
    pub(super) fn sent_as(&self, packet: u16) {
        let mut state = self.state();
        if let Some(message) = state.queued.pop_front() {
            state.sent.insert(packet, message);
        }
    }

    /// The message of a packet id is acknowledged; makes room for another.
    pub(super) fn acked(&self, packet: u16) -> Option<Addressed> {
        let message = self.state().sent.remove(&packet)?;
        self.room.add_permits(1);
        Some(message)
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
