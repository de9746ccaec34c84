//! One MQTT session without I/O: packets and outcomes go in, [`Step`]s come out.
//!
//! ```text
//!                    PUBLISH QoS 1            PUBLISH QoS 2             PUBREL
//!  session          Submit ─▶ on_outcome     Submit ─▶ on_outcome       Send PUBCOMP
//!                         └▶ PUBACK                └▶ PUBREC, id kept ─▶ id forgotten
//!
//! ```
//!
//! What goes the other way is the work of [`Subscriptions`].
//!
//! A QoS 2 identifier is kept only from the moment its message is durable. So a session that outlives its connection
//! never claims a message that was still on its way, and a client that repeats the PUBLISH after a reconnect is answered
//! by the pipeline, which knows the message by its own id.
//!
//! Never here: a clock, a socket, a payload's content, an acknowledgement before [`Session::on_outcome`] said so.

use std::collections::HashSet;

use bytes::Bytes;
use vitalseal_storage::QuarantineReason;

use super::acl::Permissions;
use super::closing::Closing;
use super::packet::{AckReason, Inbound, Outbound, Publish, Qos, SubscribeCode, Version};
use super::subscriptions::{Heard, Subscriptions};
use crate::pipeline::Outcome;

/// QoS 2 exchanges that a v3.1.1 client may leave open; it cannot be told a receive maximum. Generous beside the
/// 10 to 100 that client libraries use, and 2 KiB of identifiers at most.
const MAX_OPEN_EXACTLY_ONCE: usize = 1_024;

/// What outlives a connection (v5 4.1 "Session State", as far as this server keeps any).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SessionState {
    pub(crate) heard: Heard,
    /// QoS 2 messages that are durable and not yet released.
    pub(crate) received: HashSet<u16>,
}

/// A connected session.
#[derive(Debug)]
pub(crate) struct Session {
    version: Version,
    permissions: Permissions,
    receive_maximum: u16,
    /// QoS 2 messages that are durable and not yet released.
    received: HashSet<u16>,
    /// QoS 2 messages that the pipeline has and that are not durable yet.
    receiving: HashSet<u16>,
    /// PUBACKs owed.
    unacknowledged: usize,
    /// What it hears.
    pub(crate) subscriptions: Subscriptions,
}

/// What the connection has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Send at once.
    Send(Outbound),
    /// Hand this to the pipeline; its outcome comes back through [`Session::on_outcome`], in order of arrival.
    Submit(Delivery, Bytes),
    /// An acknowledgement that is due without the pipeline, in order of arrival.
    Acknowledge(Delivery, AckReason),
    /// The client has this message of its downlink.
    Delivered(i64),
    /// The client said goodbye.
    Goodbye {
        is_normal: bool,
        session_expiry: Option<u32>,
    },
}

/// Which PUBLISH an outcome belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) qos: Qos,
    pub(crate) id: u16,
}

impl Session {
    /// `receive_maximum` is what the client is held to.
    pub(crate) fn new(
        version: Version,
        permissions: Permissions,
        receive_maximum: u16,
        subscriptions: Subscriptions,
        received: HashSet<u16>,
    ) -> Self {
        Self {
            version,
            permissions,
            receive_maximum,
            received,
            receiving: HashSet::new(),
            unacknowledged: 0,
            subscriptions,
        }
    }

    /// What to keep when the connection is gone.
    pub(crate) fn into_state(self) -> SessionState {
        SessionState {
            heard: self.subscriptions.into_heard(),
            received: self.received,
        }
    }

    /// Takes one packet.
    ///
    /// # Errors
    /// The reason to close the connection.
    pub(crate) fn on_packet(&mut self, packet: Inbound) -> Result<Step, Closing> {
        match packet {
            Inbound::Publish(publish) => self.on_publish(publish),
            Inbound::PubAck { id } => {
                let down = self.subscriptions.on_acknowledged(id);
                Ok(down.map_or(Step::Nothing, Step::Delivered))
            }
            Inbound::PubRel { id } => self.on_release(id),
            Inbound::Subscribe {
                id,
                filters,
                has_identifier,
            } => {
                let codes = filters.iter().map(|filter| match has_identifier {
                    true => SubscribeCode::IdentifiersNotSupported,
                    false => self.subscriptions.subscribe(filter),
                });
                let codes = codes.collect();
                Ok(Step::Send(Outbound::SubAck { id, codes }))
            }
            Inbound::Unsubscribe { id, filters } => {
                let existed = filters.iter();
                let existed = existed.map(|filter| self.subscriptions.unsubscribe(filter));
                let existed = existed.collect();
                Ok(Step::Send(Outbound::UnsubAck { id, existed }))
            }
            Inbound::PingReq => Ok(Step::Send(Outbound::PingResp)),
            Inbound::Disconnect {
                is_normal,
                session_expiry,
            } => Ok(Step::Goodbye {
                is_normal,
                session_expiry,
            }),
            Inbound::Connect => Err(Closing::Protocol),
        }
    }

    /// A foreign topic, or a message to be retained, closes a v3.1.1 connection and a v5 one at QoS 0: neither has a word
    /// for "no" (v3.1.1 3.3.5), and a silent drop would hide a misconfigured device for ever. v5 at QoS 1 and 2 has one,
    /// and says it (v5 3.4.2.1, 0x87).
    fn on_publish(&mut self, publish: Publish) -> Result<Step, Closing> {
        if publish.has_alias {
            return Err(Closing::TopicAlias);
        }
        let delivery = Delivery {
            qos: publish.qos,
            id: publish.id,
        };
        let permitted = self.permissions.may_publish(&publish.topic) && !publish.retain;
        if !permitted && (self.version == Version::V311 || publish.qos == Qos::AtMostOnce) {
            return Err(Closing::NotAuthorized);
        }
        match publish.qos {
            Qos::AtMostOnce => return Ok(Step::Submit(delivery, publish.payload)),
            Qos::AtLeastOnce => {
                self.check_receive_maximum()?;
                self.unacknowledged += 1;
            }
            // Repeated before we answered: one PUBREC is on its way for both [MQTT-4.3.3-2].
            Qos::ExactlyOnce if self.receiving.contains(&publish.id) => return Ok(Step::Nothing),
            // Durable and not released, so it should be the same message [MQTT-4.3.3-2]. It is submitted all the
            // same, because the pipeline knows it by its own counters: a device that lost its session in a reboot
            // and uses the identifier for another message must not be told that this one is stored.
            Qos::ExactlyOnce => {
                if !self.received.contains(&publish.id) {
                    self.check_receive_maximum()?;
                }
                self.receiving.insert(publish.id);
            }
        }
        match permitted {
            true => Ok(Step::Submit(delivery, publish.payload)),
            false => Ok(Step::Acknowledge(delivery, AckReason::NotAuthorized)),
        }
    }

    /// [MQTT-3.3.4-7] for v5. A v3.1.1 client was never told a maximum and is throttled by not being read; only its open
    /// QoS 2 exchanges need a bound, because we remember those.
    fn check_receive_maximum(&self) -> Result<(), Closing> {
        let new = self.receiving.difference(&self.received).count();
        let open = self.unacknowledged + new + self.received.len();
        let limit = match self.version {
            Version::V5 => usize::from(self.receive_maximum),
            Version::V311 => MAX_OPEN_EXACTLY_ONCE,
        };
        if open < limit {
            Ok(())
        } else {
            Err(Closing::ReceiveMaximum)
        }
    }

    /// [MQTT-4.3.3-2]: PUBREL is answered even when the identifier is unknown, as it is after our restart.
    fn on_release(&mut self, id: u16) -> Result<Step, Closing> {
        if self.receiving.contains(&id) {
            return Err(Closing::Protocol); // releases what we have not received
        }
        let known = self.received.remove(&id);
        Ok(Step::Send(Outbound::PubComp { id, known }))
    }

    /// The pipeline's word on a submitted message: what to send for it, if its QoS has an acknowledgement at all.
    pub(crate) fn on_outcome(&mut self, delivery: Delivery, outcome: Outcome) -> Option<Outbound> {
        let reason = match outcome {
            Outcome::Stored { .. } | Outcome::Duplicate => AckReason::Success,
            Outcome::Quarantined(reason) => ack_reason(reason),
        };
        self.acknowledge(delivery, reason)
    }

    /// Settles a delivery. An error in PUBREC ends a QoS 2 exchange, so its identifier is not kept (v5 4.3.3).
    pub(crate) fn acknowledge(
        &mut self,
        Delivery { qos, id }: Delivery,
        reason: AckReason,
    ) -> Option<Outbound> {
        match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                Some(Outbound::PubAck { id, reason })
            }
            Qos::ExactlyOnce => {
                self.receiving.remove(&id);
                // v3.1.1 has no reason codes: whatever came of it, the exchange goes on to PUBREL.
                if reason == AckReason::Success || self.version == Version::V311 {
                    self.received.insert(id);
                } else {
                    self.received.remove(&id);
                }
                Some(Outbound::PubRec { id, reason })
            }
        }
    }
}

/// What a device is told about its quarantined message: that its payload is wrong, that it may not send at present, or
/// nothing. Which cryptographic check failed stays with us.
fn ack_reason(reason: QuarantineReason) -> AckReason {
    match reason {
        QuarantineReason::Shape
        | QuarantineReason::Algorithm
        | QuarantineReason::TooLarge
        | QuarantineReason::Payload
        | QuarantineReason::Implausible => AckReason::PayloadFormatInvalid,
        QuarantineReason::DeviceNotActive
        | QuarantineReason::NotAssigned
        | QuarantineReason::PatientErased => AckReason::NotAuthorized,
        _ => AckReason::ImplementationSpecific,
    }
}

#[cfg(test)]
mod tests;
