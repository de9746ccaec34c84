//! What the server tells the device, for the program to take.

use std::fmt;

use rumqttc::Publish;
use tokio::sync::mpsc;

/// Messages that the program has not taken yet, at most. The server has 32 on their way to one client.
pub(super) const UNTAKEN: usize = 64;

/// Which topic a message came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `v1/d/{device}/down`: to this device alone.
    Down,
    /// `v1/notices`: to every device.
    Notices,
}

/// A message from the server. It is acknowledged when it is [taken](Incoming::take), and comes again on a later connection
/// when it is not, or when the acknowledgement was lost: a program that must not act twice tells by the content.
pub struct Incoming {
    /// Where it was said.
    pub source: Source,
    publish: Publish,
    taken: mpsc::UnboundedSender<Publish>,
}

impl Incoming {
    pub(super) fn new(
        source: Source,
        publish: Publish,
        taken: mpsc::UnboundedSender<Publish>,
    ) -> Self {
        Self {
            source,
            publish,
            taken,
        }
    }

    /// The content, before it is taken.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    /// Takes it: the program has done with it, or kept it where it survives a restart. Only then does the server learn
    /// that it arrived.
    pub fn take(self) -> Vec<u8> {
        let payload = self.publish.payload.to_vec();
        // A connection that is gone acknowledges nothing; the message comes again on the next one.
        let _ = self.taken.send(self.publish);
        payload
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("source", &self.source)
            .field("bytes", &self.publish.payload.len())
            .finish_non_exhaustive()
    }
}
