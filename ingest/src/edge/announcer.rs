//! What an operator says to many.

use bytes::Bytes;
use vitalseal_storage::Ward;

use super::fanout::{Fanout, Topic};
use crate::alerts::Raised;

/// The largest notice, in bytes: what a small device can hold beside everything else.
pub const MAX_NOTICE_BYTES: usize = 64 * 1024;

/// Publishes as the edge does; clones share its router. Who is to hear it hears it with QoS 1, now or when it comes back.
#[derive(Debug, Clone)]
pub struct Announcer {
    fanout: Fanout,
}

/// A notice that is larger than [`MAX_NOTICE_BYTES`], or has no byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a notice has 1 to {MAX_NOTICE_BYTES} bytes, this one {0}")]
pub struct NoticeSize(pub usize);

impl Announcer {
    pub(super) fn new(fanout: Fanout) -> Self {
        Self { fanout }
    }

    /// Tells every device, on `v1/notices`.
    ///
    /// # Errors
    /// [`NoticeSize`].
    pub async fn notice(&self, notice: Bytes) -> Result<(), NoticeSize> {
        if !(1..=MAX_NOTICE_BYTES).contains(&notice.len()) {
            return Err(NoticeSize(notice.len()));
        }
        self.fanout.publish(Topic::Notices, notice).await;
        Ok(())
    }

    /// Sends an alert to a ward's displays.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub async fn alert(&self, ward: &Ward, raised: &Raised) -> Result<(), serde_json::Error> {
        let json = serde_json::to_vec(raised)?;
        let topic = Topic::Alerts(ward.clone());
        self.fanout.publish(topic, json.into()).await;
        Ok(())
    }
}
