//! Topics and filters that no device has. Each is tried as the topic of a PUBLISH at every QoS and as the filter of a
//! SUBSCRIBE, in both versions.

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use vitalseal_ingest::edge::Closing;

use super::{ends_v4, ends_v5, unharmed};
use crate::raw::{Raw, packet, text};
use crate::rig::{Device, Rig};

/// What v5 says of a packet that it cannot go on after.
const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;

/// What it says to a request and goes on.
const NOT_AUTHORIZED: u8 = 0x87;
const INVALID_FILTER: u8 = 0x8F;
const SHARED: u8 = 0x9E;

/// Others', the server's own, and what looks like a tree of its own.
const FOREIGN: [&[u8]; 7] = [
    b"v1/d/mon-2/vitals",
    b"v1/d/mon-1/vitals/",
    b"/v1/d/mon-1/vitals",
    b"V1/D/MON-1/VITALS",
    b"v1/alerts/icu",
    b"$SYS/broker",
    b"/",
];

/// No message comes in on any of these: v5 is told `reason`, in a DISCONNECT where there is no other word.
async fn is_not_published(rig: &Rig, device: &Device, topics: &[&[u8]], reason: u8) {
    let sealed = rig.seal(device, 1);
    for topic in topics {
        let name = text(topic);
        for (first, id) in [(0x30, &[][..]), (0x32, &[0, 1]), (0x34, &[0, 2])] {
            let (mut raw, _) = Raw::v4(rig, device, true).await;
            raw.send(&packet(first, &[&name, id, &sealed])).await;
            assert_eq!(raw.packet().await, None, "{topic:02x?}");

            let (mut raw, _) = Raw::v5(rig, device, device.id.as_str()).await;
            raw.send(&packet(first, &[&name, id, &[0], &sealed])).await;
            let told = match (reason, first) {
                (NOT_AUTHORIZED, 0x32) => vec![0x40, 3, 0, 1, reason],
                (NOT_AUTHORIZED, 0x34) => vec![0x50, 3, 0, 2, reason],
                _ => vec![0xE0, 2, reason, 0],
            };
            assert_eq!(raw.packet().await, Some(told), "{first:02x} {topic:02x?}");
        }
    }
    let came_in = (rig.metrics.acked(), rig.rows().await);
    assert_eq!(came_in, (0, 0));
}

/// Nothing is subscribed to with any of these, and v5 is told `reason`.
async fn is_not_heard(rig: &Rig, device: &Device, filters: &[&[u8]], reason: u8) {
    let is_the_end = matches!(reason, MALFORMED | PROTOCOL_ERROR);
    for filter in filters {
        let name = text(filter);
        let (mut raw, _) = Raw::v4(rig, device, true).await;
        raw.send(&packet(0x82, &[&[0, 1], &name, &[0]])).await;
        let told = (!is_the_end).then(|| vec![0x90, 3, 0, 1, 0x80]);
        assert_eq!(raw.packet().await, told, "{filter:02x?}");

        let end = vec![0xE0, 2, reason, 0];
        let told = |answer: Vec<u8>| if is_the_end { end.clone() } else { answer };
        for (request, answer) in [
            (
                packet(0x82, &[&[0, 1, 0], &name, &[0]]),
                told(vec![0x90, 4, 0, 1, 0, reason]),
            ),
            // No subscription existed.
            (
                packet(0xA2, &[&[0, 1, 0], &name]),
                told(vec![0xB0, 4, 0, 1, 0, 0x11]),
            ),
        ] {
            let (mut raw, _) = Raw::v5(rig, device, device.id.as_str()).await;
            raw.send(&request).await;
            assert_eq!(raw.packet().await, Some(answer), "{filter:02x?}");
        }
    }
}

/// Both, and the edge is what it was before.
async fn is_no_topic(topics: &[&[u8]], publish: u8, subscribe: u8) {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    is_not_published(&rig, &device, topics, publish).await;
    is_not_heard(&rig, &device, topics, subscribe).await;
    unharmed(&rig).await;
}

/// CWE-20; CVE-2021-34432: a topic of no length ended a server.
#[tokio::test]
async fn a_topic_of_no_length_is_none() {
    is_no_topic(&[b""], PROTOCOL_ERROR, INVALID_FILTER).await;
}

/// CWE-284; CVE-2026-49186: whoever subscribed with a wildcard heard everybody.
#[tokio::test]
async fn a_wildcard_reaches_nobody() {
    let topics: [&[u8]; 6] = [
        b"#",
        b"+",
        b"v1/#",
        b"v1/d/+/vitals",
        b"v1/d/mon-1/#",
        b"v1/alerts/+",
    ];
    is_no_topic(&topics, MALFORMED, NOT_AUTHORIZED).await;
}

/// CWE-158: a name that ends sooner for one reader than for another.
#[tokio::test]
async fn a_null_character_in_a_topic_is_malformed() {
    let topics: [&[u8]; 3] = [b"\0", b"v1/d/mon-1/vitals\0", b"v1/d/mon-1\0/vitals"];
    is_no_topic(&topics, MALFORMED, MALFORMED).await;
}

/// CWE-176; CVE-2017-7653: one such topic, passed on, disconnected everybody who heard it.
#[tokio::test]
async fn a_topic_that_is_not_utf8_is_malformed() {
    let topics: [&[u8]; 5] = [
        b"\xFF\xFE/vitals",
        b"\xC3",             // cut short
        b"\xED\xA0\x80",     // a surrogate
        b"\xC0\x80",         // an overlong NUL
        b"\xF4\x90\x80\x80", // beyond U+10FFFF
    ];
    is_no_topic(&topics, MALFORMED, MALFORMED).await;
}

/// CWE-135: a router that cut a topic after its first byte fell when that was half a character.
#[tokio::test]
async fn a_topic_that_begins_outside_ascii_is_a_foreign_one() {
    let topics = ["\u{fc}/vitals", "\u{1F9A0}", "\u{FEFF}v1/d/mon-1/vitals"].map(str::as_bytes);
    is_no_topic(&topics, NOT_AUTHORIZED, NOT_AUTHORIZED).await;
}

/// CWE-674: a level each, for whoever walks a tree by recursion.
#[tokio::test]
async fn a_topic_of_65_000_levels_is_a_foreign_one() {
    is_no_topic(&[&[b'/'; 65_000]], NOT_AUTHORIZED, NOT_AUTHORIZED).await;
}

/// CWE-639.
#[tokio::test]
async fn nothing_is_published_on_a_topic_that_is_not_the_devices_own() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let listened: [&[u8]; 3] = [b"v1/recipient", b"v1/notices", b"v1/d/mon-1/down"];
    for topics in [&FOREIGN[..], &listened, &[b"$share/a/v1/d/mon-1/vitals"]] {
        is_not_published(&rig, &device, topics, NOT_AUTHORIZED).await;
    }
    unharmed(&rig).await;
}

/// CWE-639; a shared subscription would take messages away from whom they are for.
#[tokio::test]
async fn nothing_is_heard_through_a_filter_that_is_not_the_devices_own() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let own: &[u8] = b"v1/d/mon-1/vitals"; // its own to publish on
    for filters in [&FOREIGN[..], &[own]] {
        is_not_heard(&rig, &device, filters, NOT_AUTHORIZED).await;
    }
    let shared: [&[u8]; 2] = [b"$share/a/v1/d/mon-1/down", b"$share/a/v1/recipient"];
    is_not_heard(&rig, &device, &shared, SHARED).await;
    unharmed(&rig).await;
}

/// CWE-129: a topic alias is an index, and none was offered; nor is there a QoS 3.
#[tokio::test]
async fn v5_is_held_to_what_it_was_offered() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let name = text(device.vitals());
    for alias in [[0, 0], [0, 1], [0xFF, 0xFF]] {
        for name in [&name[..], &[0, 0]] {
            let publish = packet(0x30, &[name, &[3, 0x23], &alias, b"x"]);
            let told = ends_v5(&rig, &device, &publish, Closing::TopicAlias).await;
            assert_eq!(told, Some(DisconnectReasonCode::TopicAliasInvalid));
        }
    }
    let at_qos_3 = packet(0x36, &[&name, &[0, 1]]);
    ends_v4(&rig, &device, &at_qos_3, Closing::Malformed).await;
    let told = ends_v5(&rig, &device, &at_qos_3, Closing::Malformed).await;
    assert_eq!(told, Some(DisconnectReasonCode::MalformedPacket));
    unharmed(&rig).await;
}
