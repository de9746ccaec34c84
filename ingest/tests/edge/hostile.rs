//! Clients that do what no client should. The edge closes, counts, and serves the next one.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet as Packet5};
use vitalseal_ingest::edge::Closing;

use crate::raw::{Raw, publish4, publish5};
use crate::rig::{Rig, eventually};

#[tokio::test]
async fn an_oversized_packet_is_not_read() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    // 16 MiB announced, nothing sent.
    raw.send(&[0x32, 0x80, 0x80, 0x80, 0x08]).await;
    match raw.read5().await {
        Some(Packet5::Disconnect(bye)) => {
            assert_eq!(bye.reason_code, DisconnectReasonCode::PacketTooLarge);
        }
        other => panic!("{other:?}"),
    }
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send4(&publish4(&device, QoS::AtLeastOnce, 1, vec![0; 301 << 10]))
        .await;
    assert_eq!(raw.read4().await, None);
    eventually("counted", || rig.metrics.closed(Closing::TooLarge) == 2).await;

    // Larger than an envelope, within the packet limit: kept aside and acknowledged.
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send4(&publish4(&device, QoS::AtLeastOnce, 1, vec![0; 280 << 10]))
        .await;
    assert!(matches!(raw.read4().await, Some(Packet::PubAck(_))));
}

#[tokio::test]
async fn what_must_not_be_sent_closes_with_its_reason() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let cases: [(&[u8], Closing); 7] = [
        (
            &[
                0x10, 0x11, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 30, 0, 5, b'm', b'o', b'n',
                b'-', b'1',
            ],
            Closing::Protocol,
        ),
        (&[0x20, 2, 0, 0], Closing::Protocol), // CONNACK from a client
        (&[0xF0, 0], Closing::Protocol),       // AUTH that nobody asked for
        (&[0x80, 0], Closing::Malformed),      // SUBSCRIBE with wrong flags
        (&[0x36, 4, 0, 0, 0, 1], Closing::Malformed), // QoS 3
        (&[0x30, 4, 0, 1, b'x', b'y'], Closing::NotAuthorized), // a topic that is not its own
        (&[0x32, 3, 0, 40, 0], Closing::Malformed), // a topic longer than the packet
    ];
    for (bytes, reason) in cases {
        let before = rig.metrics.closed(reason);
        let (mut raw, _) = Raw::v4(&rig, &device, true).await;
        raw.send(bytes).await;
        assert_eq!(raw.read4().await, None, "{reason}");
        eventually(reason.as_str(), || rig.metrics.closed(reason) == before + 1).await;
    }
    // Not even a CONNECT; a CONNECT that never ends; a protocol of the past, which is told.
    for (bytes, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], None),
        (&[0x10, 0xFF, 0x7F][..], None),
        (
            b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x1e\x00\x03abc",
            Some(()),
        ),
    ] {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        raw.send(bytes).await;
        match answer {
            None => assert_eq!(raw.read4().await, None),
            Some(()) => assert!(matches!(raw.read4().await, Some(Packet::ConnAck(_)))),
        }
    }
}

#[tokio::test]
async fn v5_is_held_to_what_it_was_offered() {
    use rumqttc::v5::mqttbytes::QoS as QoS5;
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    // A topic alias (property 0x23) although none were offered.
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    raw.send(&[0x30, 7, 0, 1, b'x', 3, 0x23, 0, 1]).await;
    let bye = |packet| match packet {
        Some(Packet5::Disconnect(bye)) => bye.reason_code,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        bye(raw.read5().await),
        DisconnectReasonCode::TopicAliasInvalid
    );

    // A foreign topic at QoS 0, for which there is no other word.
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    raw.send5(&publish5("v1/recipient", QoS5::AtMostOnce, 0, vec![1]))
        .await;
    assert_eq!(bye(raw.read5().await), DisconnectReasonCode::NotAuthorized);
}

#[tokio::test]
async fn noise_never_takes_the_edge_down() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let mut runner = TestRunner::deterministic();
    let first = proptest::sample::select(vec![
        0x10_u8, 0x30, 0x32, 0x34, 0x62, 0x82, 0xA2, 0xC0, 0xE0,
    ]);
    let body = proptest::collection::vec(proptest::num::u8::ANY, 0..60);
    let packets = proptest::collection::vec((first, body), 1..8);
    for round in 0..60 {
        let mut stream = Vec::new();
        for (first, body) in packets.new_tree(&mut runner).unwrap().current() {
            stream.extend([first, u8::try_from(body.len()).unwrap()]);
            stream.extend(body);
        }
        let mut raw = match round % 3 {
            0 => Raw::tls(&rig, &device).await.unwrap(),
            1 => Raw::v4(&rig, &device, false).await.0,
            _ => Raw::v5(&rig, &device, "mon-1").await.0,
        };
        raw.send(&stream).await;
    }
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send4(&publish4(
        &device,
        QoS::AtLeastOnce,
        1,
        rig.seal(&device, 1),
    ))
    .await;
    assert!(matches!(raw.read4().await, Some(Packet::PubAck(_))));
    assert_eq!(rig.metrics.closed(Closing::Internal), 0);
    assert!(!rig.serving.is_finished());
}
