//! What a session hears, and how it is told: subscriptions, their QoS, and what is on its way to the client.
//!
//! ```text
//!  feed ─────────▶ tell ──────┐                                PUBACK
//!                             ├─▶ PUBLISH QoS 0, or 1 ─▶ inflight ─▶ gone, or `done` in the downlink's queue
//!  downlink ─────▶ tell_down ─┘                             │
//!                  tell_again ◀── the next connection ──────┘
//! ```
//!
//! What goes out is at most at QoS 1: whoever hears a message twice knows it by what it says.
//!
//! Never here: I/O (the downlink's messages are handed in), a topic that the ACL does not name.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::acl::{Permissions, Subscription};
use super::fanout::{Fanout, Feed, FeedState, Message};
use super::inflight::{Inflight, Origin};
use super::kept::Kept;
use super::packet::{
    Filter, Hello, MAX_SUBSCRIPTIONS, Qos, RetainedOnSubscribe, SubscribeCode, Telling,
};

/// Messages on their way to a client before it acknowledges one, whatever it allows: what a parked session may hold of
/// them, and more than enough for a round trip of what a device or a display is told.
const MAX_UNACKNOWLEDGED: u16 = 32;

/// What outlives a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// After a restart it begins with what was published since.
    pub(crate) feed: FeedState,
    pub(crate) granted: BTreeMap<Subscription, Granted>,
    pub(crate) inflight: Inflight,
}

/// How a subscription is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    /// QoS 1, otherwise 0.
    pub(crate) at_least_once: bool,
    pub(crate) retain_as_published: bool,
}

impl Granted {
    /// As the options byte of a v5 SUBSCRIBE that asks for it (v5 3.8.3.1).
    pub(crate) fn options(self) -> u8 {
        u8::from(self.at_least_once) | u8::from(self.retain_as_published) << 3
    }

    pub(crate) fn from_options(options: u8) -> Self {
        Self {
            at_least_once: options & 0b11 != 0,
            retain_as_published: options & 0b1000 != 0,
        }
    }
}

/// One connected session's subscriptions.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    permissions: Permissions,
    feed: Feed,
    granted: BTreeMap<Subscription, Granted>,
    inflight: Inflight,
    /// Messages that the client takes before it acknowledges one.
    window: usize,
    /// The newest message of the downlink that went out.
    told_down: i64,
    /// Subscriptions changed, or may have, since they were last [asked for](Self::changed).
    is_changed: bool,
}

/// What the connection before left unacknowledged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Send(Telling),
    /// Message `number` of the downlink, if it is still there.
    Fetch {
        id: u16,
        number: i64,
    },
}

impl Subscriptions {
    /// Takes up what the client left, as far as it may still hear it.
    pub(crate) fn new(
        hello: &Hello,
        permissions: Permissions,
        fanout: &Fanout,
        heard: Heard,
    ) -> Self {
        let Heard {
            feed,
            mut granted,
            mut inflight,
        } = heard;
        let mut feed = fanout.feed(feed);
        granted.retain(|subscription, _| {
            let may_hear = permissions.may_hear(subscription);
            if !may_hear {
                feed.unsubscribe(subscription);
            } else if !feed.is_subscribed(subscription) {
                feed.subscribe(subscription.clone(), false);
            }
            may_hear
        });
        inflight.resume(|origin| match origin {
            Origin::Topic(message) => {
                permissions.may_hear(&Subscription::Topic(message.topic.clone()))
            }
            Origin::Down(_) => permissions.may_hear(&Subscription::Down),
        });
        Self {
            permissions,
            feed,
            granted,
            window: usize::from(hello.receive_maximum.min(MAX_UNACKNOWLEDGED)),
            told_down: inflight.newest_down(),
            inflight,
            is_changed: true,
        }
    }

    /// The subscriptions, in words that outlive the process, when they may have changed since the last call.
    pub(crate) fn changed(&mut self) -> Option<Kept> {
        let granted = self.granted.iter();
        let words = granted.filter_map(|(subscription, granted)| {
            let filter = match subscription {
                Subscription::Down => self.permissions.down()?.to_owned(),
                Subscription::Topic(topic) => topic.name(),
                Subscription::AllAlerts => return None, // kept for devices only
            };
            Some((filter, granted.options()))
        });
        std::mem::take(&mut self.is_changed).then(|| words.collect())
    }

    /// What is published to many.
    pub(crate) fn feed(&mut self) -> &mut Feed {
        &mut self.feed
    }

    /// What to keep when the connection is gone.
    pub(crate) fn into_heard(self) -> Heard {
        Heard {
            feed: self.feed.into_state(),
            granted: self.granted,
            inflight: self.inflight,
        }
    }

    /// The same filter again replaces what was granted before ([MQTT-3.8.4-3]), and its place in the topic stays.
    pub(crate) fn subscribe(&mut self, filter: &Filter) -> SubscribeCode {
        if filter.path.starts_with("$share/") {
            return SubscribeCode::SharedNotSupported;
        }
        if !is_filter(&filter.path) {
            return SubscribeCode::TopicFilterInvalid;
        }
        let Some(subscription) = self.permissions.subscription(&filter.path) else {
            return SubscribeCode::NotAuthorized;
        };
        let is_new = !self.granted.contains_key(&subscription);
        if is_new && self.granted.len() >= MAX_SUBSCRIPTIONS {
            return SubscribeCode::QuotaExceeded;
        }
        let at_least_once = filter.qos != Qos::AtMostOnce;
        let granted = Granted {
            at_least_once,
            retain_as_published: filter.retain_as_published,
        };
        self.is_changed = true;
        self.granted.insert(subscription.clone(), granted);
        let retained = match filter.retained {
            RetainedOnSubscribe::Always => true,
            RetainedOnSubscribe::IfNew => is_new,
            RetainedOnSubscribe::Never => false,
        };
        self.feed.subscribe(subscription, retained);
        match at_least_once {
            true => SubscribeCode::GrantedQos1,
            false => SubscribeCode::GrantedQos0,
        }
    }

    /// `false` when there was no such subscription. What went out before is still to be acknowledged ([MQTT-3.10.4-3]).
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> bool {
        let Some(subscription) = self.permissions.subscription(filter) else {
            return false;
        };
        self.is_changed = true;
        self.feed.unsubscribe(&subscription);
        self.granted.remove(&subscription).is_some()
    }

    /// The client has a message; the number of one that was of the downlink. An identifier that is not in use is passed
    /// over: neither version calls it an error, and a client may well acknowledge what a restarted server forgot.
    pub(crate) fn on_acknowledged(&mut self, id: u16) -> Option<i64> {
        match self.inflight.acknowledge(id)? {
            Origin::Down(number) => Some(number),
            Origin::Topic(_) => None,
        }
    }

    /// May a new message go out now? Not while the client owes as many acknowledgements as it allows. Then what it hears at
    /// QoS 0 waits too, unless that is all it hears: the order of a topic is kept.
    pub(crate) fn may_tell(&self) -> bool {
        self.inflight.has_room(self.window) || self.granted.values().all(|g| !g.at_least_once)
    }

    /// Does it hear its device's own topic?
    pub(crate) fn hears_down(&self) -> bool {
        self.granted.contains_key(&Subscription::Down)
    }

    /// The next message that the connection before left unacknowledged; one of the downlink has to be fetched again.
    pub(crate) fn tell_again(&mut self) -> Option<Again> {
        let (id, origin) = self.inflight.again(self.window)?;
        Some(match origin {
            Origin::Topic(message) => Again::Send(Telling {
                topic: message.topic.name(),
                id: Some(id),
                dup: true,
                retain: message.retained,
                payload: message.payload.clone(),
            }),
            Origin::Down(number) => Again::Fetch {
                id,
                number: *number,
            },
        })
    }

    /// A message of the feed on its way out. Its QoS is the highest of the subscriptions that it comes by ([MQTT-3.3.4-2]):
    /// they all get one copy.
    pub(crate) fn tell(&mut self, mut message: Message) -> Telling {
        let (mut at_least_once, mut as_published) = (false, false);
        for (own, granted) in &self.granted {
            let covers = own.covers(&message.topic);
            at_least_once |= covers && granted.at_least_once;
            as_published |= covers && granted.retain_as_published;
        }
        // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        message.retained |= as_published && message.topic.is_retained();
        Telling {
            topic: message.topic.name(),
            dup: false,
            retain: message.retained,
            payload: message.payload.clone(),
            id: at_least_once.then(|| self.inflight.send(Origin::Topic(message))),
        }
    }

    /// The newest message of the downlink that went out, on this connection or as one that is not acknowledged.
    pub(crate) fn told_down(&self) -> i64 {
        self.told_down
    }

    /// A message of the downlink on its way out: for the first time, or `again` under its old identifier.
    pub(crate) fn tell_down(&mut self, number: i64, payload: Bytes, again: Option<u16>) -> Telling {
        let granted = self.granted.get(&Subscription::Down);
        let at_least_once = granted.is_some_and(|granted| granted.at_least_once);
        let new = again.is_none() && at_least_once;
        self.told_down = self.told_down.max(number);
        Telling {
            topic: self.permissions.down().unwrap_or_default().to_owned(),
            id: again.or_else(|| new.then(|| self.inflight.send(Origin::Down(number)))),
            dup: again.is_some(),
            retain: false,
            payload,
        }
    }
}

/// At least one character [MQTT-4.7.3-1]; `#` alone in the last level [MQTT-4.7.1-1], `+` alone in any [MQTT-4.7.1-2].
fn is_filter(filter: &str) -> bool {
    let plus = |level: &str| level == "+" || !level.contains('+');
    let (above, last) = filter.rsplit_once('/').unwrap_or(("", filter));
    !filter.is_empty()
        && (last == "#" || !last.contains('#') && plus(last))
        && above
            .split('/')
            .all(|level| !level.contains('#') && plus(level))
}
