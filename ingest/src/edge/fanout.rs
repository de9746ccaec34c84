//! Fan-out of what the server says to many: rumqttd's router behind one publishing and one listening link.
//!
//! ```text
//! publish ─▶ link ─▶ router thread ─▶ link ─▶ a log a topic ─▶ every session, at its own pace
//! ```
//!
//! Sessions never hold a link: a link that vanishes with unread notifications, a wildcard or a shared subscription are
//! what kills the router thread, and each distinct filter costs it memory for ever. So there is one listener with one
//! filter, for as long as the process lives; it keeps the last messages of each topic, and a session's [`Feed`] reads on
//! from where it was. Memory is bounded by topics, not by who does not read.
//!
//! The router's thread cannot be supervised from outside and cannot be restarted with its links. Should it die, the
//! process aborts: acknowledgements that were held back make that safe, and a supervisor starts a whole server again.
//!
//! Never here: telemetry. What is kept is in memory, and who is too far behind has lost something. Nor a topic or a
//! message that a client chose: [`Topic`] is all that there is.

mod feed;
mod log;
mod topic;

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::sync::mpsc;

pub(crate) use self::feed::{Feed, FeedState, Message};
pub(crate) use self::log::Logs;
pub(crate) use self::topic::Topic;

/// Messages waiting for the publishing thread.
const QUEUED: usize = 64;

/// The router's in-memory log: messages are a few KiB, a handful are kept.
const SEGMENT_BYTES: usize = 64 * 1024;

/// The listener's one filter. Each further one would cost the router memory for ever.
const EVERYTHING: &str = "v1/#";

/// Publishing, and what was published.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    publish: mpsc::Sender<(Topic, Bytes)>,
    logs: Arc<Logs>,
}

/// The router could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FanoutError {
    #[error("linking to the fan-out router")]
    Link(#[source] Box<LinkError>),
    #[error("starting a fan-out thread")]
    Thread(#[from] std::io::Error),
}

impl From<LinkError> for FanoutError {
    fn from(cause: LinkError) -> Self {
        Self::Link(Box::new(cause))
    }
}

impl Fanout {
    /// Starts a router. Blocks until both links stand, so call it where blocking is allowed.
    ///
    /// # Errors
    /// [`FanoutError`].
    pub(crate) fn start() -> Result<Self, FanoutError> {
        let router = Router::new(0, router_config()).spawn();
        Self::over(|name| {
            let (tx, rx, _) = LinkBuilder::new(name, router.clone()).build()?;
            Ok((tx, rx))
        })
    }

    /// Works over a router that hands out links by these names.
    fn over(
        link: impl Fn(&'static str) -> Result<(LinkTx, LinkRx), FanoutError>,
    ) -> Result<Self, FanoutError> {
        let (mut tx, listening) = link("fanout-listen")?;
        let (publishing, publish_rx) = link("fanout-publish")?;
        tx.subscribe(EVERYTHING)?;

        let (publish, queue) = mpsc::channel(QUEUED);
        let logs = Arc::new(Logs::default());
        let (subscribed_tx, subscribed) = std::sync::mpsc::channel();
        let heard = Arc::clone(&logs);
        thread::Builder::new()
            .name("fanout-listen".to_owned())
            .spawn(move || {
                let _listening_half = tx; // a dropped half is a disconnect to the router
                listen(listening, &heard, &subscribed_tx);
            })?;
        // Published before the SUBACK is lost: wait for it.
        subscribed.recv().map_err(|_| LinkError::NotConnectionAck)?;
        let ours = Arc::clone(&logs);
        thread::Builder::new()
            .name("fanout-publish".to_owned())
            .spawn(move || {
                let _publishing_half = publish_rx;
                publish_all(publishing, &ours, queue);
            })?;
        Ok(Self { publish, logs })
    }

    /// Publishes on a topic of ours. The topic keeps it, if it is a retained one.
    pub(crate) async fn publish(&self, topic: Topic, message: Bytes) {
        if self.publish.send((topic, message)).await.is_err() {
            die("its publishing thread ended");
        }
    }

    /// What a session reads from.
    pub(crate) fn feed(&self, state: FeedState) -> Feed {
        Feed::new(Arc::clone(&self.logs), state)
    }
}

fn router_config() -> RouterConfig {
    RouterConfig {
        max_connections: 4,
        max_outgoing_packet_count: 64,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: 2,
        ..RouterConfig::default()
    }
}

fn listen(mut link: LinkRx, logs: &Logs, subscribed: &std::sync::mpsc::Sender<()>) {
    loop {
        match link.recv() {
            Ok(Some(Notification::Forward(forward))) => {
                let topic = std::str::from_utf8(&forward.publish.topic);
                if let Some(topic) = topic.ok().and_then(Topic::parse) {
                    logs.append(&topic, forward.publish.payload);
                }
            }
            Ok(Some(Notification::DeviceAck(_))) => {
                let _ = subscribed.send(());
            }
            // We were too slow for it and are paused; never said after a disconnect.
            Ok(Some(Notification::Unschedule)) => {
                if link.ready().is_err() {
                    die("it does not take events");
                }
            }
            Ok(Some(Notification::Disconnect(..))) => die("it dropped its listener"),
            Ok(_) => {}
            Err(_) => die("it is gone"),
        }
    }
}

/// Ends when the last [`Fanout`] is dropped; `LinkTx` blocks, hence a thread. The router drops what its listener has not
/// fetched in time, so no more is under way than its log holds.
fn publish_all(mut link: LinkTx, logs: &Logs, mut queue: mpsc::Receiver<(Topic, Bytes)>) {
    let mut published = logs.appended();
    while let Some((topic, message)) = queue.blocking_recv() {
        if link.publish(topic.name(), message).is_err() {
            die("it does not take messages");
        }
        published += 1;
        if !logs.wait_for(published) {
            die("what was published did not come back");
        }
    }
}

fn die(what: &'static str) -> ! {
    tracing::error!(
        what,
        "the fan-out router died; aborting, unacknowledged messages come again"
    );
    std::process::abort()
}

#[cfg(test)]
mod tests;
