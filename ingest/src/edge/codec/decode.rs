//! Packets of a connected client.

use super::Unreadable;
use super::properties::{Carrier, Properties};
use super::reader::{Reader, check_name};
use crate::edge::frame::{self, Frame};
use crate::edge::packet::{
    Filter, Inbound, MAX_SUBSCRIPTIONS, Publish, Qos, RetainedOnSubscribe, Version,
};

/// Topic filters in one packet. Nobody has more subscriptions than this, and a packet of 300 KiB would have room for
/// 100,000 of them, each a string of its own.
const MAX_FILTERS: usize = MAX_SUBSCRIPTIONS;

/// Reads one packet of a connected client.
///
/// # Errors
/// [`Unreadable`].
pub(crate) fn inbound(version: Version, frame: Frame) -> Result<Inbound, Unreadable> {
    let (packet_type, flags) = (frame.packet_type(), frame.flags());
    let mut body = Reader::new(frame.into_body());
    let packet = match packet_type {
        frame::CONNECT => return Ok(Inbound::Connect),
        frame::PUBLISH => return publish(version, flags, body),
        frame::PUBACK => Inbound::PubAck {
            id: ack(version, &mut body, PUBACK_REASONS)?,
        },
        frame::PUBREL => Inbound::PubRel {
            id: ack(version, &mut body, PUBREL_REASONS)?,
        },
        frame::SUBSCRIBE => subscribe(version, &mut body)?,
        frame::UNSUBSCRIBE => unsubscribe(version, &mut body)?,
        frame::PINGREQ => Inbound::PingReq,
        frame::DISCONNECT => disconnect(version, &mut body)?,
        _ => return Err(Unreadable::Protocol),
    };
    body.end()?;
    Ok(packet)
}

/// ```text
/// topic name   [identifier, above QoS 0]   [v5: properties]   payload, to the end
/// ```
fn publish(version: Version, flags: u8, mut body: Reader) -> Result<Inbound, Unreadable> {
    let qos = qos((flags >> 1) & 0b11)?;
    let topic = body.string()?;
    check_name(&topic)?;
    let id = match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce | Qos::ExactlyOnce => body.identifier()?,
    };
    let properties = properties(version, &mut body, Carrier::Publish)?;
    // Only an alias may stand for it (v5 3.3.2.1, [MQTT-4.7.3-1]).
    if topic.is_empty() && !properties.has_alias {
        return Err(Unreadable::Protocol);
    }
    Ok(Inbound::Publish(Publish {
        topic,
        qos,
        id,
        retain: flags & 1 != 0,
        has_alias: properties.has_alias,
        payload: body.rest(),
    }))
}

/// v5 3.4.2.1
const PUBACK_REASONS: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// v5 3.6.2.1
const PUBREL_REASONS: &[u8] = &[0x00, 0x92];
/// v5 3.14.2.1, as far as a client may use them
const DISCONNECT_REASONS: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
];

/// ```text
/// identifier   [v5: reason   [properties]]
/// ```
fn ack(version: Version, body: &mut Reader, reasons: &[u8]) -> Result<u16, Unreadable> {
    let id = body.identifier()?;
    if version == Version::V5 {
        reason(body, reasons, Carrier::Ack)?;
    }
    Ok(id)
}

/// Reason code and properties, each of which may be left out from the end (v5 3.4.2.1, 3.14.2.1).
fn reason(
    body: &mut Reader,
    reasons: &[u8],
    carrier: Carrier,
) -> Result<(u8, Properties), Unreadable> {
    if body.is_empty() {
        return Ok((0, Properties::default()));
    }
    let reason = body.byte()?;
    if !reasons.contains(&reason) {
        return Err(Unreadable::Protocol);
    }
    let properties = match body.is_empty() {
        true => Properties::default(),
        false => Properties::read(body, carrier)?,
    };
    Ok((reason, properties))
}

/// ```text
/// identifier   [v5: properties]   { topic filter   options }+
/// options      v3.1.1: 000000 qos qos    v5: 00 handling handling published local qos qos
/// ```
fn subscribe(version: Version, body: &mut Reader) -> Result<Inbound, Unreadable> {
    let id = body.identifier()?;
    let properties = properties(version, body, Carrier::Subscribe)?;
    let filters = filters(body, |body| filter(version, body))?;
    Ok(Inbound::Subscribe {
        id,
        filters,
        has_identifier: properties.has_subscription_identifier,
    })
}

fn filter(version: Version, body: &mut Reader) -> Result<Filter, Unreadable> {
    let (path, options) = (body.text()?, body.byte()?);
    let reserved = match version {
        Version::V311 => 0b1111_1100, // v3.1.1 [MQTT-3-8.3-4]
        Version::V5 => 0b1100_0000,   // [MQTT-3.8.3-5]
    };
    if options & reserved != 0 {
        return Err(Unreadable::Malformed);
    }
    // [MQTT-3.8.3-4]
    if options & 0b100 != 0 && path.starts_with("$share/") {
        return Err(Unreadable::Protocol);
    }
    Ok(Filter {
        path,
        qos: qos(options & 0b11)?,
        retain_as_published: options & 0b1000 != 0,
        retained: match options >> 4 {
            0 => RetainedOnSubscribe::Always,
            1 => RetainedOnSubscribe::IfNew,
            2 => RetainedOnSubscribe::Never,
            _ => return Err(Unreadable::Protocol),
        },
    })
}

/// ```text
/// identifier   [v5: properties]   { topic filter }+
/// ```
fn unsubscribe(version: Version, body: &mut Reader) -> Result<Inbound, Unreadable> {
    let id = body.identifier()?;
    properties(version, body, Carrier::Unsubscribe)?;
    let filters = filters(body, Reader::text)?;
    Ok(Inbound::Unsubscribe { id, filters })
}

/// All that is left: at least one (v5 [MQTT-3.8.3-2] and [MQTT-3.10.3-2], v3.1.1 [MQTT-3.8.3-3]), [`MAX_FILTERS`] at most.
fn filters<T>(
    body: &mut Reader,
    next: impl Fn(&mut Reader) -> Result<T, Unreadable>,
) -> Result<Vec<T>, Unreadable> {
    let mut filters = Vec::new();
    while !body.is_empty() {
        if filters.len() == MAX_FILTERS {
            return Err(Unreadable::TooLarge);
        }
        filters.push(next(body)?);
    }
    match filters.is_empty() {
        true => Err(Unreadable::Protocol),
        false => Ok(filters),
    }
}

/// v3.1.1 says nothing more; v5: `[reason   [properties]]`.
fn disconnect(version: Version, body: &mut Reader) -> Result<Inbound, Unreadable> {
    let (reason, properties) = match version {
        Version::V311 => (0, Properties::default()),
        Version::V5 => reason(body, DISCONNECT_REASONS, Carrier::Disconnect)?,
    };
    Ok(Inbound::Disconnect {
        is_normal: reason == 0,
        session_expiry: properties.session_expiry,
    })
}

fn properties(
    version: Version,
    body: &mut Reader,
    carrier: Carrier,
) -> Result<Properties, Unreadable> {
    match version {
        Version::V311 => Ok(Properties::default()),
        Version::V5 => Properties::read(body, carrier),
    }
}

fn qos(bits: u8) -> Result<Qos, Unreadable> {
    match bits {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        _ => Err(Unreadable::Malformed),
    }
}
