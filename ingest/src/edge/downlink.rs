//! What a device is told on its own topic, `v1/d/{device}/down`: a durable queue in the inbox's database, one message
//! after the other, each until the device acknowledged it.
//!
//! The session asks for the next message after the newest that it sent, so it may have several on their way; what was
//! not [done](Downlink::done) when a connection ends comes again with the next one, from the beginning. A message is
//! handed out again as often as it is asked for: the queue does not know what is on its way.
//!
//! Never here: a topic, a packet identifier, a decision who may hear it.

use std::sync::Arc;

use bytes::Bytes;
use vitalseal_crypto::DeviceId;
use vitalseal_storage::{Clock, Inbox, InboxError, Listener, Store};

use super::closing::Closing;
use super::identity::Principal;

/// One principal's queue. Of whoever is no device it is empty for ever; and most devices never ask for theirs, so it is
/// listened to from the first question on.
#[derive(Debug)]
pub(crate) struct Downlink {
    inbox: Inbox,
    device: Option<DeviceId>,
    listener: Option<Listener>,
    clock: Arc<dyn Clock>,
}

impl Downlink {
    pub(crate) fn new(store: &Store, clock: Arc<dyn Clock>, principal: &Principal) -> Self {
        Self {
            inbox: store.inbox.clone(),
            device: principal.device().cloned(),
            listener: None,
            clock,
        }
    }

    /// The first message after that of number `id`, if there is one now; numbers begin at 1 and only grow. What expired
    /// is passed over.
    ///
    /// # Errors
    /// [`Closing::Storage`]
    pub(crate) async fn next_after(&mut self, id: i64) -> Result<Option<(i64, Bytes)>, Closing> {
        let now = self.clock.now();
        let Some(listener) = self.listener() else {
            return Ok(None);
        };
        let next = listener.next_after(id, now).await.map_err(failed)?;
        Ok(next.map(|(id, body)| (id, Bytes::copy_from_slice(&body))))
    }

    /// Resolves when there may be a next message. Cancel safe.
    pub(crate) async fn news(&mut self) {
        match self.listener() {
            Some(listener) => listener.news().await,
            None => std::future::pending().await,
        }
    }

    /// The client has it: removes it. Durable when this returns; removing it once more is not an error.
    ///
    /// # Errors
    /// [`Closing::Storage`]; it will then come again.
    pub(crate) async fn done(&mut self, id: i64) -> Result<(), Closing> {
        match self.listener() {
            Some(listener) => listener.done(id).await.map_err(failed),
            None => Ok(()),
        }
    }

    fn listener(&mut self) -> Option<&mut Listener> {
        let device = self.device.as_ref()?;
        let inbox = &self.inbox;
        Some(self.listener.get_or_insert_with(|| inbox.listen(device)))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn failed(error: InboxError) -> Closing {
    let error = &error as &dyn std::error::Error;
    tracing::error!(error, "reading or writing what a device is told failed");
    Closing::Storage
}
