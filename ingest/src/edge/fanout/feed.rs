//! What one session has to be told of the topics that it subscribed to: each message once, in each topic's order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::super::acl::Subscription;
use super::log::Logs;
use super::topic::Topic;

/// Where a session stands in each topic. Outlives its connection, and not the process: a log that begins anew has
/// nothing that was missed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FeedState {
    subscriptions: Vec<Subscription>,
    /// The next message to be told, by topic.
    next: BTreeMap<Topic, u64>,
}

impl FeedState {
    /// Of a session from before this process: it hears all that was published since.
    pub(crate) fn since_the_start(subscriptions: Vec<Subscription>) -> Self {
        Self {
            subscriptions,
            next: BTreeMap::new(),
        }
    }
}

/// A session's view of what is published.
#[derive(Debug)]
pub(crate) struct Feed {
    logs: Arc<Logs>,
    news: watch::Receiver<()>,
    state: FeedState,
    /// What a SUBSCRIBE asked to be sent at once: each topic once, however often it was asked for before it was sent.
    retained: Vec<Topic>,
}

/// One message for a session. `Debug` prints its size only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    /// It was there before the subscription that it answers ([MQTT-3.3.1-8], [MQTT-3.3.1-9]).
    pub(crate) retained: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("retained", &self.retained)
            .finish()
    }
}

/// The session is so far behind that messages for it are gone: it must not be told that it has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lagged;

impl Feed {
    pub(crate) fn new(logs: Arc<Logs>, state: FeedState) -> Self {
        let mut feed = Self {
            news: logs.news(true),
            logs,
            state,
            retained: Vec::new(),
        };
        feed.listen();
        feed
    }

    /// Begins to hear a subscription: from now on, and what is retained before that, if `retained`.
    pub(crate) fn subscribe(&mut self, subscription: Subscription, retained: bool) {
        let state = &mut self.state;
        self.logs.with(|topics| {
            for (topic, log) in topics
                .iter()
                .filter(|(topic, _)| subscription.covers(topic))
            {
                state.next.entry(topic.clone()).or_insert(log.next());
                let is_asked_for = retained && topic.is_retained() && log.next() > 0;
                if is_asked_for && !self.retained.contains(topic) {
                    self.retained.push(topic.clone());
                }
            }
        });
        if !state.subscriptions.contains(&subscription) {
            state.subscriptions.push(subscription);
        }
        self.listen();
    }

    /// Hears it no longer. `false` when it did not.
    pub(crate) fn unsubscribe(&mut self, subscription: &Subscription) -> bool {
        let before = self.state.subscriptions.len();
        self.state.subscriptions.retain(|own| own != subscription);
        let subscriptions = &self.state.subscriptions;
        let covered = |topic: &Topic| subscriptions.iter().any(|own| own.covers(topic));
        self.state.next.retain(|topic, _| covered(topic));
        self.retained.retain(covered);
        self.listen();
        self.state.subscriptions.len() < before
    }

    /// The next message, if there is one now.
    ///
    /// # Errors
    /// [`Lagged`].
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Lagged> {
        self.news.mark_unchanged();
        let Self {
            logs,
            state,
            retained,
            ..
        } = self;
        let FeedState {
            subscriptions,
            next,
        } = state;
        logs.with(|topics| {
            if let Some(topic) = retained.pop()
                && let Some(log) = topics.get(&topic)
            {
                let newest = log.next().saturating_sub(1);
                let told = next.entry(topic.clone()).or_default();
                *told = (*told).max(log.next());
                return Ok(log.get(newest).map(|payload| Message {
                    topic,
                    payload: payload.clone(),
                    retained: true,
                }));
            }
            for (topic, log) in topics {
                if !subscriptions.iter().any(|own| own.covers(topic)) {
                    continue;
                }
                // A topic that first spoke after the subscription is heard from its beginning.
                let next = next.entry(topic.clone()).or_default();
                if topic.is_retained() {
                    *next = (*next).max(log.oldest()); // only the newest counts
                }
                if *next < log.oldest() {
                    return Err(Lagged);
                }
                if let Some(payload) = log.get(*next) {
                    *next += 1;
                    return Ok(Some(Message {
                        topic: topic.clone(),
                        payload: payload.clone(),
                        retained: false,
                    }));
                }
            }
            Ok(None)
        })
    }

    /// Resolves when there may be a next message. Cancel safe.
    pub(crate) async fn news(&mut self) {
        // The sender lives as long as the logs, which we hold.
        let _ = self.news.changed().await;
    }

    pub(crate) fn is_subscribed(&self, subscription: &Subscription) -> bool {
        self.state.subscriptions.contains(subscription)
    }

    /// What to keep when the connection is gone.
    pub(crate) fn into_state(self) -> FeedState {
        self.state
    }

    /// Listens for what its subscriptions are about; what came before is looked at by the next [`Feed::next`].
    fn listen(&mut self) {
        let alerts = |own: &Subscription| {
            matches!(
                own,
                Subscription::AllAlerts | Subscription::Topic(Topic::Alerts(_))
            )
        };
        self.news = self.logs.news(!self.state.subscriptions.iter().any(alerts));
        self.news.mark_changed();
    }
}
