//! Fan-out of what the server says to many: rumqttd's router behind one publishing and one listening link a topic.
//!
//! ```text
//! publish ─▶ link ─▶ router thread ─▶ link ─▶ watch ─▶ every subscribed session
//! ```
//!
//! Sessions never hold a link: a link that vanishes with unread notifications, a wildcard or a shared subscription are
//! what kills the router thread, and each distinct filter costs it memory for ever. So there is one listener a topic,
//! for as long as the process lives, and sessions read a `watch` that always has the newest message: what a retained
//! topic is.
//!
//! The router's thread cannot be supervised from outside and cannot be restarted with its links. Should it die, the
//! process aborts: acknowledgements that were held back make that safe, and a supervisor starts a whole server again.
//!
//! Never here: telemetry. The router's log is in memory and drops what a slow reader has not fetched.

use std::thread;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::sync::{mpsc, watch};

/// Messages waiting for the publishing thread. They are notices, a few a day.
const QUEUED: usize = 16;

/// The router's in-memory log: notices are 1 KiB, a handful are kept.
const SEGMENT_BYTES: usize = 64 * 1024;

/// One topic's fan-out.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    publish: mpsc::Sender<Bytes>,
    newest: watch::Receiver<Bytes>,
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
    /// Starts a router for `topic`. Blocks until both links stand, so call it where blocking is allowed.
    ///
    /// # Errors
    /// [`FanoutError`].
    pub(crate) fn start(topic: &'static str) -> Result<Self, FanoutError> {
        let config = RouterConfig {
            max_connections: 4,
            max_outgoing_packet_count: 64,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: 2,
            ..RouterConfig::default()
        };
        let router = Router::new(0, config).spawn();
        let (mut tx, listening, _) = LinkBuilder::new("fanout-listen", router.clone()).build()?;
        let (publishing, publish_rx, _) = LinkBuilder::new("fanout-publish", router).build()?;
        tx.subscribe(topic)?;

        let (publish, queue) = mpsc::channel(QUEUED);
        let (newest_tx, newest) = watch::channel(Bytes::new());
        let (subscribed_tx, subscribed) = std::sync::mpsc::channel();
        thread::Builder::new()
            .name("fanout-listen".to_owned())
            .spawn(move || {
                let _listening_half = tx; // a dropped half is a disconnect to the router
                listen(listening, &newest_tx, &subscribed_tx);
            })?;
        // Published before the SUBACK is lost: wait for it.
        subscribed.recv().map_err(|_| LinkError::NotConnectionAck)?;
        thread::Builder::new()
            .name("fanout-publish".to_owned())
            .spawn(move || {
                let _publishing_half = publish_rx;
                publish_all(publishing, topic, queue);
            })?;
        Ok(Self { publish, newest })
    }

    /// Makes `message` the newest one.
    pub(crate) async fn publish(&self, message: Bytes) {
        if self.publish.send(message).await.is_err() {
            die("its publishing thread ended");
        }
    }

    /// The newest message, and all that follow; empty before the first.
    pub(crate) fn newest(&self) -> watch::Receiver<Bytes> {
        self.newest.clone()
    }
}

fn listen(
    mut link: LinkRx,
    newest: &watch::Sender<Bytes>,
    subscribed: &std::sync::mpsc::Sender<()>,
) {
    loop {
        match link.recv() {
            Ok(Some(Notification::Forward(forward))) => {
                newest.send_replace(forward.publish.payload);
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

/// Ends when the last [`Fanout`] is dropped; `LinkTx` blocks, hence a thread.
fn publish_all(mut link: LinkTx, topic: &'static str, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(message) = queue.blocking_recv() {
        if link.publish(topic, message).is_err() {
            die("it does not take messages");
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
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_newest_message_reaches_every_reader() {
        let fanout = tokio::task::spawn_blocking(|| Fanout::start("v1/recipient"))
            .await
            .unwrap()
            .unwrap();
        let mut readers = [fanout.newest(), fanout.newest()];
        // More than the router's log and window hold, so that pausing and resuming is exercised too.
        for round in 0..500_u32 {
            fanout.publish(Bytes::from(format!("{round}"))).await;
        }
        for reader in &mut readers {
            let last = reader.wait_for(|message| &message[..] == b"499");
            tokio::time::timeout(Duration::from_secs(10), last)
                .await
                .unwrap()
                .unwrap();
        }
    }
}
