//! What a peer sends on a connection to the MQTT door, from its CONNECT on.

use bytes::BytesMut;

use crate::edge::codec;
use crate::edge::frame;
use crate::edge::packet::{Hello, Inbound, Qos, Version};

/// The largest packet that is taken here: small, so that inputs reach it.
const MAX_BYTES: usize = 2_048;

/// A packet that was understood.
#[derive(Debug, PartialEq)]
enum Packet {
    Hello(Hello),
    Later(Inbound),
}

/// What is whole and readable is a CONNECT and packets of a client, whose strings, topics and identifiers are what the
/// protocol says; however the bytes arrive, and with no more memory than for those that did.
pub fn connection(bytes: &[u8]) -> bool {
    let (packets, is_whole) = read(std::iter::once(bytes));
    assert!(
        (&packets, is_whole) == (&read(bytes.chunks(1)).0, read(bytes.chunks(7)).1),
        "it matters how the bytes arrive"
    );
    for packet in &packets {
        check(packet);
    }
    is_whole && !packets.is_empty()
}

/// The packets of a stream that arrives in these parts, and whether it was packets to its end.
fn read<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Packet>, bool) {
    let mut buffer = BytesMut::new();
    let mut packets: Vec<Packet> = Vec::new();
    let mut version = None;
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            let before = buffer.len();
            let capacity = buffer.capacity();
            let frame = match frame::next(&mut buffer, MAX_BYTES) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    assert!(buffer.len() == before, "bytes of half a packet were lost");
                    assert!(
                        buffer.capacity() <= capacity,
                        "room for what was only announced"
                    );
                    break;
                }
                Err(_) => return (packets, false),
            };
            assert!(frame.bytes.len() + buffer.len() == before);
            assert!((2..=MAX_BYTES).contains(&frame.bytes.len()));
            let packet = match version {
                None => codec::hello(frame).ok().map(Packet::Hello),
                Some(version) => codec::inbound(version, frame).ok().map(Packet::Later),
            };
            let Some(packet) = packet else {
                return (packets, false);
            };
            if let Packet::Hello(hello) = &packet {
                version = Some(hello.version);
            }
            packets.push(packet);
        }
    }
    (packets, buffer.is_empty())
}

fn check(packet: &Packet) {
    match packet {
        Packet::Hello(hello) => {
            assert!(!hello.client_id.contains('\0'));
            assert!(hello.receive_maximum > 0, "a receive maximum of zero");
            assert!(hello.max_packet != Some(0), "a largest packet of nothing");
            if let Some(will) = &hello.will {
                check_topic(&will.topic);
                assert!(!will.topic.is_empty());
                assert!(hello.version == Version::V5 || will.delay == 0);
            }
        }
        Packet::Later(Inbound::Publish(publish)) => {
            check_topic(&publish.topic);
            assert!(!publish.topic.is_empty() || publish.has_alias);
            assert!((publish.qos == Qos::AtMostOnce) == (publish.id == 0));
        }
        Packet::Later(Inbound::PubAck { id } | Inbound::PubRel { id }) => assert!(*id != 0),
        Packet::Later(Inbound::Subscribe { id, filters, .. }) => {
            assert!(*id != 0 && !filters.is_empty());
            assert!(filters.iter().all(|filter| !filter.path.contains('\0')));
        }
        Packet::Later(Inbound::Unsubscribe { id, filters }) => {
            assert!(*id != 0 && !filters.is_empty());
            assert!(filters.iter().all(|filter| !filter.contains('\0')));
        }
        Packet::Later(Inbound::Connect | Inbound::PingReq | Inbound::Disconnect { .. }) => {}
    }
}

fn check_topic(topic: &[u8]) {
    let topic = std::str::from_utf8(topic).expect("a topic is text");
    assert!(!topic.contains(['\0', '+', '#']), "no name of a topic");
}
