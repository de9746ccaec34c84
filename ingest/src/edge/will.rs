//! Wills: messages that clients leave at CONNECT, to be published in their name when they are gone without a word.
//!
//! ```text
//!  CONNECT ─▶ with the connection ─▶ DISCONNECT 0x00: forgotten
//!                                 └▶ any other end ─▶ delay ─▶ published
//!                                                       └▶ back in its session: forgotten; in a new one: published
//! ```
//!
//! A will is a PUBLISH of its client and nothing more: the same ACL, which is asked at CONNECT, and the same pipeline,
//! which keeps aside what is no good envelope. Its acknowledgement has nobody to go to. A client that is not welcome any
//! more has no last word.
//!
//! Wills live in memory, one a client. When the server stops, those without a delay are published with the connections
//! that it closes; those that wait are forgotten, since their clients may be back before the delay would have ended
//! (v5 3.1.2.5 permits a server to defer them to its next start; this one does not keep them for that).
//!
//! Never here: a connection that waits for its will, a will of more bytes than a CONNECT may have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::connection::Context;
use super::identity::{ClientId, Principal};
use super::packet::Will;
use crate::pipeline::{Order, Outcome, PipelineError};

/// Wills whose connections are gone.
#[derive(Debug)]
pub(crate) struct Wills {
    waiting: Mutex<Waiting>,
    /// Each task holds a sender, through which nothing is ever sent. Taken when no more may come.
    alive: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    /// To be told that it is time; dropped, to be forgotten.
    by_client: HashMap<ClientId, (u64, oneshot::Sender<()>)>,
}

impl Default for Wills {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            alive: Mutex::new(Some(mpsc::channel(1))),
        }
    }
}

impl Wills {
    /// The connection of `principal` ended and its will is due after `delay`. Call it while the client cannot connect
    /// again yet. `order` is the connection's: the will comes after what was submitted before.
    pub(crate) fn leave(
        context: &Arc<Context>,
        principal: Principal,
        will: Will,
        delay: Duration,
        order: Order,
    ) {
        let wills = &context.wills;
        let Some(alive) = wills.alive().as_ref().map(|(alive, _)| alive.clone()) else {
            return; // the server has stopped
        };
        let (now, when) = oneshot::channel();
        let client = principal.client_id();
        let number = match delay.is_zero() {
            true => None,
            false => Some(wills.waiting().add(client.clone(), now)),
        };
        let context = Arc::clone(context);
        tokio::spawn(async move {
            let due = match number {
                None => true,
                Some(_) => tokio::select! {
                    // Should it be back although its old connection took too long to let go, it is not gone.
                    () = sleep(delay) => context.directory.connected_as(&client).is_none(),
                    told = when => told.is_ok(),
                    () = context.shutdown.cancelled() => false,
                },
            };
            if let Some(number) = number {
                context.wills.waiting().remove(&client, number);
            }
            if due {
                publish(&context, &principal, will, order).await;
            }
            drop(alive);
        });
    }

    /// The client is connected again. If its session goes on, a will that still waits is not published ([MQTT-3.1.3-9]);
    /// if not, the session that it belongs to has ended, and it is due (v5 3.1.3.2.2).
    pub(crate) fn on_connected(&self, client: &ClientId, is_resumed: bool) {
        let waiting = self.waiting().by_client.remove(client);
        if let Some((_, now)) = waiting
            && !is_resumed
        {
            let _ = now.send(());
        }
    }

    /// Waits until all that are due are published, at most so long. Call it when no connection is left.
    pub(crate) async fn finish(&self, patience: Duration) {
        let Some((alive, mut all_gone)) = self.alive().take() else {
            return;
        };
        drop(alive);
        if timeout(patience, all_gone.recv()).await.is_err() {
            tracing::warn!("wills that were due are not published: they take too long");
        }
    }

    fn alive(&self) -> MutexGuard<'_, Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing can panic while it is locked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, client: ClientId, now: oneshot::Sender<()>) -> u64 {
        self.last += 1;
        self.by_client.insert(client, (self.last, now));
        self.last
    }

    /// Removes the will of this number, and not a later one of the same client.
    fn remove(&mut self, client: &ClientId, number: u64) {
        if self
            .by_client
            .get(client)
            .is_some_and(|(own, _)| *own == number)
        {
            self.by_client.remove(client);
        }
    }
}

async fn publish(context: &Context, principal: &Principal, will: Will, mut order: Order) {
    let Some(device) = principal.device() else {
        return; // nobody else may publish, so nobody else was granted a will
    };
    if !matches!(context.welcome(principal).await, Ok(Some(_))) {
        tracing::info!(client = %principal, "a will is not published: its client is not welcome any more");
        return;
    }
    let (pipeline, payload) = (&context.pipeline, will.payload);
    let outcome: Result<Outcome, PipelineError> = async {
        let credit = pipeline.reserve(payload.len()).await?;
        let outcome = pipeline.submit_reserved(credit, &mut order, device.clone(), payload);
        outcome.await
    }
    .await;
    match outcome {
        Ok(outcome) => {
            context.metrics.count_will();
            tracing::debug!(client = %principal, ?outcome, "a will was published");
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(tracing::field::display);
            tracing::error!(
                client = %principal, %error, cause,
                "a will could not be made durable; it is lost"
            );
        }
    }
}
