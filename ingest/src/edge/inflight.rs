//! Messages of QoS 1 between their PUBLISH and the client's PUBACK, in the order in which they went out.
//!
//! ```text
//!   acknowledged │ sent on this connection │ left over from the one before │ not sent yet
//!                └──────────── sent ───────────────────────────────────────┘
//!                └──────── on_wire ────────┘
//! ```
//!
//! What is left over goes first, under its old identifier and with DUP ([MQTT-4.4.0-1]), and at no other time.
//!
//! Never here: a clock (nothing is repeated because time passed), a payload of the downlink, whose queue keeps it.

use std::collections::VecDeque;

use super::fanout::Message;

/// Unacknowledged messages of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inflight {
    sent: VecDeque<(u16, Origin)>,
    on_wire: usize,
    last_id: u16,
}

/// What a message is, and where its acknowledgement goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Published to many, and kept here until it is acknowledged. RETAIN as it went out.
    Topic(Message),
    /// Of the device's own queue, by its number there.
    Down(i64),
}

impl Inflight {
    /// Begins a connection: all that is here was sent on another one. What the client `may_hear` no longer goes.
    pub(crate) fn resume(&mut self, may_hear: impl Fn(&Origin) -> bool) {
        self.sent.retain(|(_, origin)| may_hear(origin));
        self.on_wire = 0;
    }

    /// May another message go out, when the client takes `window` unacknowledged ones?
    pub(crate) fn has_room(&self, window: usize) -> bool {
        self.sent.len() < window
    }

    /// The next message that is left over, if the client takes it now.
    pub(crate) fn again(&mut self, window: usize) -> Option<(u16, &Origin)> {
        if self.on_wire >= window {
            return None;
        }
        let (id, origin) = self.sent.get(self.on_wire)?;
        self.on_wire += 1;
        Some((*id, origin))
    }

    /// Takes a new message in and says its identifier: never zero, never one in use ([MQTT-2.2.1-4]).
    pub(crate) fn send(&mut self, origin: Origin) -> u16 {
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if self.sent.iter().all(|(used, _)| *used != id) {
                break;
            }
        }
        self.last_id = id;
        self.sent.push_back((id, origin));
        self.on_wire = self.sent.len();
        id
    }

    /// The client has it, or is never to get it. `None` for an identifier that is not in use.
    pub(crate) fn acknowledge(&mut self, id: u16) -> Option<Origin> {
        let place = self.sent.iter().position(|(used, _)| *used == id)?;
        if place < self.on_wire {
            self.on_wire -= 1;
        }
        self.sent.remove(place).map(|(_, origin)| origin)
    }

    /// The newest message of the queue that is here; 0 for none.
    pub(crate) fn newest_down(&self) -> i64 {
        let numbers = self.sent.iter().map(|(_, origin)| match origin {
            Origin::Down(number) => *number,
            Origin::Topic(_) => 0,
        });
        numbers.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Event {
        Send,
        Acknowledge(usize),
        Reconnect,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => Just(Event::Send),
            3 => (0..8_usize).prop_map(Event::Acknowledge),
            1 => Just(Event::Reconnect),
        ];
        prop::collection::vec(event, 0..200)
    }

    proptest! {
        /// In whatever order messages are sent, acknowledged and left over: no identifier is zero or used twice at a
        /// time, the window holds, and each message is sent again on each connection until it is acknowledged, in order.
        #[test]
        fn every_message_comes_again_until_it_is_acknowledged(events in events(), window in 1..6_usize) {
            let mut inflight = Inflight { last_id: u16::MAX - 9, ..Inflight::default() };
            let (mut model, mut next): (Vec<(u16, i64)>, i64) = (Vec::new(), 1);
            for event in events {
                match event {
                    Event::Send if inflight.has_room(window) => {
                        let id = inflight.send(Origin::Down(next));
                        prop_assert!(id != 0 && model.iter().all(|(used, _)| *used != id));
                        model.push((id, next));
                        next += 1;
                    }
                    Event::Send => prop_assert_eq!(model.len(), window),
                    Event::Acknowledge(place) => {
                        let Some((id, number)) = model.get(place).copied() else { continue };
                        prop_assert_eq!(inflight.acknowledge(id), Some(Origin::Down(number)));
                        prop_assert_eq!(inflight.acknowledge(id), None);
                        model.remove(place);
                    }
                    Event::Reconnect => {
                        inflight.resume(|_| true);
                        let mut again = Vec::new();
                        while let Some((id, Origin::Down(number))) = inflight.again(window) {
                            again.push((id, *number));
                        }
                        prop_assert_eq!(&again, &model);
                    }
                }
                prop_assert_eq!(inflight.newest_down(), model.iter().map(|(_, n)| *n).max().unwrap_or(0));
                let ids: HashSet<u16> = model.iter().map(|(id, _)| *id).collect();
                prop_assert!(ids.len() == model.len() && model.len() <= window);
            }
        }
    }

    #[test]
    fn a_smaller_window_of_the_next_connection_holds_for_what_is_left_over() {
        let mut inflight = Inflight::default();
        let ids: Vec<u16> = (1..=4)
            .map(|number| inflight.send(Origin::Down(number)))
            .collect();
        assert_eq!(
            inflight.again(4),
            None,
            "all of it went out on this connection"
        );
        inflight.resume(|_| true);
        assert_eq!(inflight.again(2), Some((ids[0], &Origin::Down(1))));
        assert_eq!(inflight.again(2), Some((ids[1], &Origin::Down(2))));
        assert_eq!(inflight.again(2), None);
        inflight.acknowledge(ids[0]);
        assert_eq!(inflight.again(2), Some((ids[2], &Origin::Down(3))));
        assert!(!inflight.has_room(2));
    }
}
