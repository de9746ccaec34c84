//! Topics and filters that no device has.

use rumqttc::mqttbytes::v4::{Packet, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet as Packet5, PubAckReason};
use vitalseal_ingest::edge::Closing;

use super::{ends_v4, ends_v5, farewell, packet, string, unharmed};
use crate::raw::Raw;
use crate::rig::Rig;

/// Zero length (CVE-2021-34432), not UTF-8 (CVE-2017-7653), beginning outside ASCII, NUL, surrogates, wildcards, reserved
/// ones, another device's. CWE-20.
const TOPICS: [&[u8]; 14] = [
    b"",
    b"\xFF\xFE/vitals",
    b"\xC3",
    b"\xED\xA0\x80",
    "\u{fc}/vitals".as_bytes(),
    "\u{1F9A0}".as_bytes(),
    b"\0",
    b"v1/d/mon-1/vitals\0",
    b"#",
    b"v1/d/+/vitals",
    b"v1/d/mon-1/#",
    b"$SYS/broker",
    b"$share/a/v1/d/mon-1/vitals",
    b"v1/d/mon-2/vitals",
];

#[tokio::test]
async fn nothing_is_published_on_a_topic_that_is_not_the_devices_own() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let sealed = rig.seal(&device, 1);
    for topic in TOPICS {
        for (first, id) in [(0x30, &[][..]), (0x32, &[0, 1]), (0x34, &[0, 2])] {
            let v4 = packet(first, &[&string(topic), id, &sealed].concat());
            let v5 = packet(first, &[&string(topic), id, &[0], &sealed].concat());
            let (mut raw, _) = Raw::v4(&rig, &device, true).await;
            raw.send(&v4).await;
            assert_eq!(raw.read4().await, None, "{topic:02x?}");

            let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
            raw.send(&v5).await;
            // A word for "no", where the protocol has one and the packet could be read.
            match raw.read5().await {
                Some(Packet5::PubAck(ack)) => assert_eq!(ack.reason, PubAckReason::NotAuthorized),
                Some(Packet5::PubRec(_)) => assert_eq!(first, 0x34),
                Some(Packet5::Disconnect(bye)) => assert!(matches!(
                    bye.reason_code,
                    DisconnectReasonCode::NotAuthorized
                        | DisconnectReasonCode::MalformedPacket
                        | DisconnectReasonCode::TopicNameInvalid
                        | DisconnectReasonCode::ProtocolError
                )),
                other => panic!("{topic:02x?}: {other:?}"),
            }
        }
    }
    let metrics = &rig.metrics;
    assert_eq!(
        (metrics.acked(), rig.rows().await),
        (0, 0),
        "nothing came through"
    );
    unharmed(&rig).await;
}

/// CWE-284; CVE-2026-49186: whoever subscribed with a wildcard heard everybody.
#[tokio::test]
async fn nothing_is_heard_through_a_filter_that_is_not_the_devices_own() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let slashes = vec![b'/'; 65_000]; // a level each, for whoever walks a tree by recursion (CWE-674)
    let filters = [b"v1/#", b"v1/+", &slashes[..]];
    for filter in TOPICS.into_iter().chain(filters) {
        let subscribe = packet(0x82, &[&[0, 1], &string(filter)[..], &[0]].concat());
        let (mut raw, _) = Raw::v4(&rig, &device, true).await;
        raw.send(&subscribe).await;
        match raw.read4().await {
            Some(Packet::SubAck(ack)) => {
                assert_eq!(
                    ack.return_codes,
                    [SubscribeReasonCode::Failure],
                    "{filter:02x?}"
                );
            }
            None => {}
            other => panic!("{other:?}"),
        }
        let unsubscribe = packet(0xA2, &[&[0, 1], &[0][..], &string(filter)[..]].concat());
        let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
        raw.send(&unsubscribe).await;
        if let Some(packet) = raw.read5().await {
            assert!(matches!(
                packet,
                Packet5::UnsubAck(_) | Packet5::Disconnect(_)
            ));
        }
    }
    unharmed(&rig).await;
}

#[tokio::test]
async fn v5_is_held_to_what_it_was_offered() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    // A topic alias (property 0x23) although none were offered.
    let alias = [0x30, 7, 0, 1, b'x', 3, 0x23, 0, 1];
    let told = ends_v5(&rig, &device, &alias, Closing::TopicAlias).await;
    assert_eq!(told, Some(DisconnectReasonCode::TopicAliasInvalid));
    // A foreign topic at QoS 0, for which there is no other word.
    let foreign = packet(0x30, &[&string(b"v1/recipient")[..], &[0, 1]].concat());
    let told = ends_v5(&rig, &device, &foreign, Closing::NotAuthorized).await;
    assert_eq!(told, Some(DisconnectReasonCode::NotAuthorized));
    ends_v4(
        &rig,
        &device,
        &[0x30, 4, 0, 1, b'x', b'y'],
        Closing::NotAuthorized,
    )
    .await;

    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    raw.send(&[0x36, 4, 0, 0, 0, 1]).await; // QoS 3
    assert_eq!(
        farewell(&mut raw).await,
        Some(DisconnectReasonCode::MalformedPacket)
    );
    drop(raw);
    unharmed(&rig).await;
}
