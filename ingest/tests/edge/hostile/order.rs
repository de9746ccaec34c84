//! Packets that are readable and must not come now, or never from a client (CWE-841).

use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet as Packet5, PubCompReason};
use vitalseal_ingest::edge::Closing;

use super::{closed_for, ends_v4, ends_v5, unharmed};
use crate::raw::{Raw, packet, text};
use crate::rig::{Rig, eventually};

const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05mon-1";

/// CWE-476: an acknowledgement before CONNECT ended a broker that looked for its session.
#[tokio::test]
async fn nothing_comes_before_connect() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let publish = packet(
        0x30,
        &[&text(b"v1/d/mon-1/vitals"), &rig.seal(&device, 1)[..]],
    );
    let first: [&[u8]; 8] = [
        &publish,
        &[0x40, 2, 0, 1],
        &[0x62, 2, 0, 1],
        &[0x82, 6, 0, 1, 0, 1, b'x', 0],
        &[0xC0, 0],
        &[0xE0, 0],
        &[0xF0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for (times, bytes) in (1..).zip(first) {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        raw.send(bytes).await;
        assert_eq!(raw.read4().await, None, "{bytes:02x?}");
        closed_for(&rig, Closing::NoConnect, times).await;
    }
    assert_eq!(rig.rows().await, 0);
    unharmed(&rig).await;
}

#[tokio::test]
async fn a_protocol_of_the_past_is_told_so() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    for connect in [
        &b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x1e\x00\x03abc"[..],
        b"\x10\x11\x00\x04MQTT\x06\x02\x00\x1e\x00\x05mon-1",
    ] {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        raw.send(connect).await;
        match raw.read4().await {
            Some(Packet::ConnAck(ack)) => {
                assert_eq!(ack.code, ConnectReturnCode::RefusedProtocolVersion);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(raw.read4().await, None);
    }
    unharmed(&rig).await;
}

/// CVE-2021-28166: a CONNACK from a client ended a broker.
#[tokio::test]
async fn a_client_that_acts_as_a_server_is_put_out() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let packets: [&[u8]; 6] = [
        CONNECT,             // a second one
        &[0x20, 2, 0, 0],    // CONNACK
        &[0x90, 3, 0, 1, 0], // SUBACK
        &[0xB0, 2, 0, 1],    // UNSUBACK
        &[0xD0, 0],          // PINGRESP
        &[0xF0, 0],          // AUTH that nobody asked for
    ];
    for bytes in packets {
        ends_v4(&rig, &device, bytes, Closing::Protocol).await;
        let told = ends_v5(&rig, &device, bytes, Closing::Protocol).await;
        assert_eq!(
            told,
            Some(DisconnectReasonCode::ProtocolError),
            "{bytes:02x?}"
        );
    }
    // Flags that are reserved.
    ends_v4(&rig, &device, &[0x80, 0], Closing::Malformed).await;
    ends_v4(&rig, &device, &[0xC1, 0], Closing::Malformed).await;
    unharmed(&rig).await;
}

/// CWE-476, after CONNECT: nobody waits for them.
#[tokio::test]
async fn acknowledgements_for_nothing_do_nothing_to_anybody() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    // PUBACK: a client may well acknowledge what a restarted server forgot.
    let (mut five, _) = Raw::v5(&rig, &device, "mon-1").await;
    five.send(&[0x40, 2, 0, 1, 0xC0, 0]).await;
    assert_eq!(five.packet().await.unwrap(), [0xD0, 0]);
    let (mut four, _) = Raw::v4(&rig, &device, true).await;
    four.send(&[0x40, 2, 0, 1, 0xC0, 0]).await;
    assert_eq!(four.packet().await.unwrap(), [0xD0, 0]);
    // PUBREC and PUBCOMP: of a QoS that this server never sends at.
    for bytes in [[0x50, 2, 0, 1], [0x70, 2, 0, 1]] {
        ends_v4(&rig, &device, &bytes, Closing::Protocol).await;
        let told = ends_v5(&rig, &device, &bytes, Closing::Protocol).await;
        assert_eq!(told, Some(DisconnectReasonCode::ProtocolError));
    }
    // PUBREL for what never came has an answer, every time [MQTT-4.3.3-2].
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    for _ in 0..100 {
        raw.send(&[0x62, 2, 0, 9]).await;
        match raw.read5().await {
            Some(Packet5::PubComp(done)) => {
                assert_eq!(done.reason, PubCompReason::PacketIdentifierNotFound);
            }
            other => panic!("{other:?}"),
        }
    }
    drop(raw);
    unharmed(&rig).await;
}

/// CWE-401; CVE-2023-28366: messages with one identifier, never completed, were kept for ever.
#[tokio::test]
async fn a_qos_2_identifier_that_is_never_released_is_kept_once() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    let publish = |id: u8, sealed: &[u8]| {
        let head = [&text(b"v1/d/mon-1/vitals")[..], &[0, id, 0]].concat();
        packet(0x34, &[&head, sealed])
    };
    let mut sealed = Vec::new();
    for sequence in 1..=200 {
        sealed = rig.seal(&device, sequence);
        raw.send(&publish(7, &sealed)).await;
        assert!(
            matches!(raw.read5().await, Some(Packet5::PubRec(_))),
            "{sequence}"
        );
    }
    // It counts as one of the 64 that a client was told that it may leave open.
    for id in 100..163 {
        raw.send(&publish(id, &sealed)).await;
        assert!(
            matches!(raw.read5().await, Some(Packet5::PubRec(_))),
            "{id}"
        );
    }
    raw.send(&publish(163, &sealed)).await;
    assert_eq!(
        super::farewell(&mut raw).await,
        Some(DisconnectReasonCode::ReceiveMaximumExceeded)
    );
    drop(raw);
    assert_eq!(rig.rows().await, 200);
    unharmed(&rig).await;
}

/// CWE-416: a will that was to wait for longer than its session was looked for when that was gone.
#[tokio::test]
async fn a_will_with_an_endless_delay_does_not_outlast_its_session() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let connect = |expiry: u32, sequence| {
        let properties = [&[5, 0x11][..], &expiry.to_be_bytes()].concat();
        let delay = [5, 0x18, 0xFF, 0xFF, 0xFF, 0xFF];
        let will = [
            &delay[..],
            &text(b"v1/d/mon-1/vitals"),
            &text(rig.seal(&device, sequence)),
        ];
        let head = [
            b"\0\x04MQTT\x05\x06\0\x1e",
            &properties[..],
            &text(b"mon-1"),
        ]
        .concat();
        packet(0x10, &[&head, &will.concat()])
    };
    let leaving = async |expiry, sequence| {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        raw.send(&connect(expiry, sequence)).await;
        assert!(matches!(raw.read5().await, Some(Packet5::ConnAck(_))));
    };
    // A session of one second, and sessions without an end, each of which the next one ends.
    leaving(1, 1).await;
    eventually("published", || rig.metrics.wills() == 1).await;
    for sequence in 2..12 {
        leaving(u32::MAX, sequence).await;
    }
    eventually("all but the last", || rig.metrics.wills() == 10).await;
    assert!(rig.is_stored(&device, 10).await);
    assert!(!rig.is_stored(&device, 11).await);
    unharmed(&rig).await;
}
