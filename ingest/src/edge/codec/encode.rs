//! Packets of this server.

use bytes::{BufMut, BytesMut};

use crate::edge::packet::{ConnectAnswer, Offer, Outbound, SubscribeCode, Telling, Version};

/// A packet of ours that could not be written: too many entries or too long for the format. Ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packet cannot be encoded")]
pub(crate) struct Unencodable;

/// Appends `packet` to `out`. A DISCONNECT to a v3.1.1 client writes nothing: servers of that version just close.
///
/// # Errors
/// [`Unencodable`], with `out` as it was.
pub(crate) fn encode(
    version: Version,
    packet: &Outbound,
    out: &mut BytesMut,
) -> Result<(), Unencodable> {
    let v5 = version == Version::V5;
    match packet {
        Outbound::ConnAck { answer, offer } => connack(version, *answer, offer.as_ref(), out),
        Outbound::PubAck { id, reason } => ack(v5, 0x40, *id, *reason as u8, out),
        Outbound::PubRec { id, reason } => ack(v5, 0x50, *id, *reason as u8, out),
        Outbound::PubComp { id, known } => ack(v5, 0x70, *id, if *known { 0 } else { 0x92 }, out),
        Outbound::SubAck { id, codes } => {
            let code = |&code: &SubscribeCode| match code as u8 {
                refused @ 0x80.. if v5 => refused,
                0x80.. => 0x80,
                granted => granted,
            };
            let codes: Vec<u8> = codes.iter().map(code).collect();
            write(0x90, &[&id.to_be_bytes(), no_properties(v5), &codes], out)
        }
        Outbound::UnsubAck { id, existed } => {
            let codes = existed
                .iter()
                .map(|&existed| if existed { 0 } else { 0x11 });
            let codes: Vec<u8> = codes.filter(|_| v5).collect();
            write(0xB0, &[&id.to_be_bytes(), no_properties(v5), &codes], out)
        }
        Outbound::Publish(telling) => publish(v5, telling, out),
        Outbound::PingResp => write(0xD0, &[], out),
        // Without properties, and says so: there are clients that do not know that this may be left out.
        Outbound::Disconnect(code) if v5 => write(0xE0, &[&[*code as u8, 0]], out),
        Outbound::Disconnect(_) => Ok(()),
    }
}

fn connack(
    version: Version,
    answer: ConnectAnswer,
    offer: Option<&Offer>,
    out: &mut BytesMut,
) -> Result<(), Unencodable> {
    let (v311, v5) = match answer {
        ConnectAnswer::Accepted { .. } => (0, 0),
        ConnectAnswer::UnsupportedVersion => (1, 0x84),
        ConnectAnswer::IdentifierRejected => (2, 0x85),
        ConnectAnswer::ServerUnavailable => (3, 0x88),
        ConnectAnswer::QuotaExceeded => (3, 0x97),
        ConnectAnswer::NotAuthorized => (5, 0x87),
        ConnectAnswer::BadAuthenticationMethod => (5, 0x8C),
    };
    let present = matches!(
        answer,
        ConnectAnswer::Accepted {
            session_present: true
        }
    );
    match version {
        Version::V311 => write(0x20, &[&[u8::from(present), v311]], out),
        Version::V5 => {
            let properties = offer.map(properties).unwrap_or_default();
            let len = u8::try_from(properties.len()).map_err(|_| Unencodable)?;
            write(0x20, &[&[u8::from(present), v5, len], &properties], out)
        }
    }
}

/// What is not offered is said, so that a client need not find out by being disconnected. Left out, because the standard
/// takes it for granted: QoS 2, retained messages (the server has some), wildcards (the ACL knows one), no topic aliases.
fn properties(offer: &Offer) -> BytesMut {
    let mut properties = BytesMut::new();
    if let Some(seconds) = offer.session_expiry {
        properties.put_u8(0x11);
        properties.put_u32(seconds);
    }
    if let Some(seconds) = offer.keep_alive {
        properties.put_u8(0x13);
        properties.put_u16(seconds);
    }
    properties.put_u8(0x21);
    properties.put_u16(offer.receive_maximum);
    properties.put_u8(0x27);
    properties.put_u32(offer.max_packet);
    // Subscription identifiers and shared subscriptions: none.
    properties.put_slice(&[0x29, 0, 0x2A, 0]);
    properties
}

/// v5 leaves out what is zero (3.4.2.1).
fn ack(v5: bool, first: u8, id: u16, reason: u8, out: &mut BytesMut) -> Result<(), Unencodable> {
    match v5 && reason != 0 {
        true => write(first, &[&id.to_be_bytes(), &[reason]], out),
        false => write(first, &[&id.to_be_bytes()], out),
    }
}

fn publish(v5: bool, telling: &Telling, out: &mut BytesMut) -> Result<(), Unencodable> {
    let topic = telling.topic.as_bytes();
    let topic_len = u16::try_from(topic.len()).map_err(|_| Unencodable)?;
    let id = telling.id.map(u16::to_be_bytes);
    let flags = u8::from(telling.dup) << 3 | u8::from(id.is_some()) << 1 | u8::from(telling.retain);
    write(
        0x30 | flags,
        &[
            &topic_len.to_be_bytes(),
            topic,
            id.as_ref().map_or(&[], |id| &id[..]),
            no_properties(v5),
            &telling.payload,
        ],
        out,
    )
}

/// [MQTT-2.2.2-1]
fn no_properties(v5: bool) -> &'static [u8] {
    if v5 { &[0] } else { &[] }
}

/// One packet: first byte, remaining length, `parts`.
fn write(first: u8, parts: &[&[u8]], out: &mut BytesMut) -> Result<(), Unencodable> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut left = u32::try_from(len).map_err(|_| Unencodable)?;
    if left >= 1 << 28 {
        return Err(Unencodable);
    }
    out.reserve(len + 5);
    out.put_u8(first);
    loop {
        let [.., low] = (left & 0x7F).to_be_bytes();
        left >>= 7;
        match left {
            0 => break out.put_u8(low),
            _ => out.put_u8(low | 0x80),
        }
    }
    for part in parts {
        out.put_slice(part);
    }
    Ok(())
}
