use proptest::prelude::*;

use super::*;

fn frame(bytes: &[u8]) -> Frame {
    frame::next(&mut BytesMut::from(bytes), 1 << 20)
        .unwrap()
        .unwrap()
}

fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend([level, flags, 0, 30]);
    body.extend(rest);
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

#[test]
fn the_protocol_level_chooses_the_codec() {
    let v311 = hello(frame(&connect(4, 0x02, b"\x00\x05mon-7"))).unwrap();
    assert_eq!(
        (v311.version, v311.client_id.as_str(), v311.clean),
        (Version::V311, "mon-7", true)
    );
    assert_eq!((v311.session_expiry, v311.keep_alive), (0, 30));

    // properties: session expiry 60, maximum packet size 1,024
    let properties = b"\x0a\x11\x00\x00\x00\x3c\x27\x00\x00\x04\x00\x00\x05mon-7";
    let v5 = hello(frame(&connect(5, 0x00, properties))).unwrap();
    assert_eq!(
        (v5.version, v5.clean, v5.session_expiry),
        (Version::V5, false, 60)
    );
    assert_eq!(v5.max_packet, Some(1_024));

    for level in [0, 3, 6, 0x84] {
        let refused = hello(frame(&connect(level, 2, b"\x00\x05mon-7")));
        assert_eq!(refused, Err(HelloError::UnsupportedVersion));
    }
    let v31 = b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x1e\x00\x01a";
    assert_eq!(hello(frame(v31)), Err(HelloError::UnsupportedVersion));
}

#[test]
fn what_the_codecs_let_pass_is_refused_here() {
    let id = b"\x00\x05mon-7";
    assert_eq!(
        hello(frame(&connect(4, 0x03, id))),
        Err(HelloError::Malformed),
        "reserved flag"
    );
    let password = b"\x00\x05mon-7\x00\x01p";
    assert_eq!(
        hello(frame(&connect(4, 0x42, password))),
        Err(HelloError::Malformed)
    );
    assert_eq!(hello(frame(&[0xC0, 0])), Err(HelloError::NotConnect));

    for version in [Version::V311, Version::V5] {
        let empty: &[u8] = match version {
            Version::V311 => &[0x82, 6, 0, 0, 0, 1, b'a', 0],
            Version::V5 => &[0x82, 7, 0, 0, 0, 0, 1, b'a', 0],
        };
        assert_eq!(
            inbound(version, frame(empty)),
            Err(Malformed),
            "identifier 0"
        );
        assert_eq!(
            inbound(version, frame(&[0x62, 2, 0, 0])),
            Err(Malformed),
            "PUBREL 0"
        );
        assert_eq!(
            inbound(version, frame(&[0xC0, 1, 0])),
            Err(Malformed),
            "PINGREQ with a body"
        );
    }
    assert_eq!(
        inbound(Version::V311, frame(&[0xA2, 2, 0, 1])),
        Err(Malformed),
        "no filters"
    );
    assert_eq!(
        inbound(Version::V311, frame(&[0xE0, 1, 0])),
        Err(Malformed),
        "v3.1.1 says no more"
    );

    let goodbye = Inbound::Disconnect {
        session_expiry: None,
    };
    assert_eq!(inbound(Version::V5, frame(&[0xE0, 0])), Ok(goodbye.clone()));
    assert_eq!(inbound(Version::V5, frame(&[0xE0, 1, 0])), Ok(goodbye));
}

#[test]
fn a_v5_disconnect_is_exactly_what_it_says() {
    use super::super::packet::DisconnectCode;
    let mut out = BytesMut::new();
    encode(
        Version::V5,
        &Outbound::Disconnect(DisconnectCode::SessionTakenOver),
        &mut out,
    )
    .unwrap();
    assert_eq!(&out[..], &[0xE0, 2, 0x8E, 0]);
    out.clear();
    encode(
        Version::V311,
        &Outbound::Disconnect(DisconnectCode::SessionTakenOver),
        &mut out,
    )
    .unwrap();
    assert!(out.is_empty());
}

/// Every packet that we can write, and that its own codec must read back to the last byte.
fn every_packet() -> Vec<Outbound> {
    let reasons = [
        AckReason::Success,
        AckReason::ImplementationSpecific,
        AckReason::NotAuthorized,
        AckReason::PayloadFormatInvalid,
    ];
    let answers = [
        ConnectAnswer::Accepted {
            session_present: true,
        },
        ConnectAnswer::UnsupportedVersion,
        ConnectAnswer::IdentifierRejected,
        ConnectAnswer::NotAuthorized,
        ConnectAnswer::ServerUnavailable,
        ConnectAnswer::BadAuthenticationMethod,
    ];
    let offer = Offer {
        receive_maximum: 64,
        max_packet: 300 << 10,
        keep_alive: Some(1_200),
    };
    let mut packets = vec![
        Outbound::SubAck {
            id: 1,
            granted: vec![true, false],
        },
        Outbound::UnsubAck {
            id: 1,
            existed: vec![true, false],
        },
        Outbound::PubComp { id: 1, known: true },
        Outbound::PubComp {
            id: 1,
            known: false,
        },
        Outbound::PingResp,
        Outbound::Publish {
            topic: "v1/recipient".into(),
            retain: true,
            payload: "PEM".into(),
        },
    ];
    packets.extend(reasons.map(|reason| Outbound::PubAck { id: 9, reason }));
    packets.extend(reasons.map(|reason| Outbound::PubRec { id: 9, reason }));
    for offer in [None, Some(offer)] {
        packets.extend(answers.map(|answer| Outbound::ConnAck { answer, offer }));
    }
    packets
}

#[test]
fn what_is_written_is_whole_and_read_by_the_clients_codec() {
    for packet in every_packet() {
        let mut out = BytesMut::new();
        encode(Version::V311, &packet, &mut out).unwrap();
        v4::Packet::read(&mut out, 1 << 20).unwrap();
        assert!(out.is_empty(), "v3.1.1 {packet:?}");

        encode(Version::V5, &packet, &mut out).unwrap();
        v5::Packet::read(&mut out, Some(1 << 20)).unwrap();
        assert!(out.is_empty(), "v5 {packet:?}");
    }
}

fn packet_like() -> impl Strategy<Value = Vec<u8>> {
    // A valid first byte and length, then noise that often looks like lengths and properties.
    let first = prop::sample::select(vec![
        0x10, 0x30, 0x31, 0x32, 0x34, 0x3A, 0x62, 0x82, 0xA2, 0xC0, 0xE0,
    ]);
    let noise = prop_oneof![Just(0_u8), Just(1), 2..48_u8, any::<u8>()];
    (first, prop::collection::vec(noise, 0..100)).prop_map(|(first, body)| {
        let mut packet = vec![first, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        packet
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn hostile_packets_never_panic(packet in packet_like()) {
        for version in [Version::V311, Version::V5] {
            if let Ok(Some(frame)) = frame::next(&mut BytesMut::from(&packet[..]), 1 << 20) {
                let _ = inbound(version, frame);
            }
        }
    }

    #[test]
    fn hostile_connects_never_panic(
        level in prop::sample::select(vec![4_u8, 5]),
        flags: u8,
        rest in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = hello(frame(&connect(level, flags, &rest)));
    }
}
