//! What is to be told to a connected client: what it left unacknowledged, what is published to many, its own queue.
//!
//! The order of the three is that; within each, the order in which it came. Never here: bytes, an acknowledgement that the
//! client did not give.

use std::future::pending;

use super::closing::Closing;
use super::downlink::Downlink;
use super::packet::Telling;
use super::subscriptions::{Again, Subscriptions};

/// Fetches for one connection.
#[derive(Debug)]
pub(crate) struct Teller {
    downlink: Downlink,
    /// The feed may have something, the queue may. They are asked only then, and not with every packet of ten thousand
    /// devices: one is a lock that all share, the other a database.
    feed_is_due: bool,
    down_is_due: bool,
    hears_down: bool,
    /// Messages of the queue at QoS 0 that are not flushed yet. Written is all that is asked of them.
    written: Vec<i64>,
}

impl Teller {
    pub(crate) fn new(downlink: Downlink) -> Self {
        Self {
            downlink,
            feed_is_due: true,
            down_is_due: false,
            hears_down: false,
            written: Vec::new(),
        }
    }

    /// The next message to send, if there is one that the client takes now.
    ///
    /// # Errors
    /// `Lagged`: it has missed messages. `Storage`: the queue cannot be read.
    pub(crate) async fn next(
        &mut self,
        subscriptions: &mut Subscriptions,
    ) -> Result<Option<Telling>, Closing> {
        while let Some(again) = subscriptions.tell_again() {
            let (id, number) = match again {
                Again::Send(telling) => return Ok(Some(telling)),
                Again::Fetch { id, number } => (id, number),
            };
            match self.downlink.next_after(number - 1).await? {
                Some((found, payload)) if found == number => {
                    return Ok(Some(subscriptions.tell_down(number, payload, Some(id))));
                }
                // It expired or was taken back.
                _ => {
                    subscriptions.on_acknowledged(id);
                }
            }
        }
        if !subscriptions.may_tell() {
            return Ok(None);
        }
        if self.feed_is_due {
            let next = subscriptions.feed().next().map_err(|_| Closing::Lagged)?;
            if let Some(message) = next {
                return Ok(Some(subscriptions.tell(message)));
            }
            self.feed_is_due = false;
        }
        let heard_before = std::mem::replace(&mut self.hears_down, subscriptions.hears_down());
        self.down_is_due |= !heard_before;
        if !(self.hears_down && self.down_is_due) {
            return Ok(None);
        }
        match self.downlink.next_after(subscriptions.told_down()).await? {
            Some((number, payload)) => {
                let telling = subscriptions.tell_down(number, payload, None);
                if telling.id.is_none() {
                    self.written.push(number);
                }
                Ok(Some(telling))
            }
            None => {
                self.down_is_due = false;
                Ok(None)
            }
        }
    }

    /// Resolves when there may be a next message. Cancel safe.
    pub(crate) async fn news(&mut self, subscriptions: &mut Subscriptions) {
        if !subscriptions.may_tell() {
            return pending().await; // until an acknowledgement comes
        }
        let hears_down = subscriptions.hears_down();
        tokio::select! {
            () = subscriptions.feed().news() => self.feed_is_due = true,
            () = self.downlink.news(), if hears_down => self.down_is_due = true,
        }
    }

    /// What was written before this has been sent.
    ///
    /// # Errors
    /// `Storage`.
    pub(crate) async fn flushed(&mut self) -> Result<(), Closing> {
        for number in self.written.drain(..) {
            self.downlink.done(number).await?;
        }
        Ok(())
    }

    /// The client acknowledged this message of its queue.
    ///
    /// # Errors
    /// `Storage`.
    pub(crate) async fn delivered(&mut self, number: i64) -> Result<(), Closing> {
        self.downlink.done(number).await
    }
}
