//! The codec against the standard's own bytes, against noise, and against another codec that was written without it.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes as v4bytes;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes as v5bytes;
use rumqttc::v5::mqttbytes::v5;

use super::*;
use crate::edge::frame::{self, Frame};
use crate::edge::packet::{
    AckReason, ConnectAnswer, DisconnectCode, Filter, Inbound, Offer, Outbound, Publish, Qos,
    RetainedOnSubscribe, SubscribeCode, Telling, Version,
};

fn frame(bytes: &[u8]) -> Frame {
    frame::next(&mut BytesMut::from(bytes), 1 << 20)
        .unwrap()
        .unwrap()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend([level, flags, 0, 30]);
    body.extend(rest);
    packet(0x10, &body)
}

#[test]
fn the_protocol_level_chooses_what_follows() {
    let v311 = hello(frame(&connect(4, 0x02, b"\x00\x05mon-7"))).unwrap();
    assert_eq!(
        (v311.version, v311.client_id.as_str(), v311.clean),
        (Version::V311, "mon-7", true)
    );
    assert_eq!((v311.session_expiry, v311.keep_alive), (0, 30));
    assert_eq!(v311.receive_maximum, u16::MAX);

    // properties: session expiry 60, maximum packet size 1,024, receive maximum 7
    let properties = b"\x0d\x11\x00\x00\x00\x3c\x27\x00\x00\x04\x00\x21\x00\x07\x00\x05mon-7";
    let v5 = hello(frame(&connect(5, 0x00, properties))).unwrap();
    assert_eq!(
        (v5.version, v5.clean, v5.session_expiry),
        (Version::V5, false, 60)
    );
    assert_eq!((v5.max_packet, v5.receive_maximum), (Some(1_024), 7));

    for level in [0, 3, 6, 0x84] {
        let refused = hello(frame(&connect(level, 2, b"\x00\x05mon-7")));
        assert_eq!(refused, Err(HelloError::UnsupportedVersion));
    }
    let v31 = b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x1e\x00\x01a";
    assert_eq!(hello(frame(v31)), Err(HelloError::UnsupportedVersion));
    assert_eq!(hello(frame(&[0xC0, 0])), Err(HelloError::NotConnect));
}

#[test]
fn a_will_and_a_login_are_read_and_never_printed() {
    let rest = b"\x00\x01a\x05\x18\x00\x00\x00\x09\x00\x01t\x00\x06secret\x00\x04mary\x00\x05token";
    let mut properties = vec![0];
    properties.extend(rest);
    let hello = hello(frame(&connect(5, 0b1110_1110, &properties))).unwrap();
    let will = hello.will.clone().unwrap();
    assert_eq!(
        (&will.topic[..], &will.payload[..]),
        (&b"t"[..], &b"secret"[..])
    );
    assert!(will.retain && will.delay == 9);
    let login = hello.login.clone().unwrap();
    assert_eq!(
        (login.user.as_str(), login.password.as_str()),
        ("mary", "token")
    );
    let printed = format!("{hello:?}");
    assert!(
        !["secret", "mary", "token"]
            .iter()
            .any(|word| printed.contains(word)),
        "{printed}"
    );
}

/// The will is kept while the connection stands, so it must not hold on to the packet that it came in.
#[test]
fn a_will_keeps_nothing_of_the_password_that_came_with_it() {
    let rest = b"\x00\x01a\x00\x01t\x00\x01w\x00\x04mary\x00\x05token";
    let frame = frame(&connect(4, 0b1100_0110, rest));
    let packet = frame.bytes.as_ptr_range();
    let will = hello(frame).unwrap().will.unwrap();
    for kept in [will.topic.as_ptr(), will.payload.as_ptr()] {
        assert!(!packet.contains(&kept));
    }
}

/// 75,000 of them would fit into the largest packet.
#[test]
fn a_packet_names_as_many_filters_as_one_may_subscribe_to_and_no_more() {
    for version in [Version::V311, Version::V5] {
        let properties: &[u8] = match version {
            Version::V311 => &[],
            Version::V5 => &[0],
        };
        for (first, filter) in [(0x82, &b"\x00\x01a\x00"[..]), (0xA2, &b"\x00\x01a"[..])] {
            let read = |count: usize| {
                let body = [b"\x00\x07", properties, &filter.repeat(count)].concat();
                let remaining = u16::try_from(body.len()).unwrap();
                let [low, high] =
                    [remaining % 128, remaining / 128].map(|n| u8::try_from(n).unwrap());
                inbound(
                    version,
                    frame(&[&[first, low | 0x80, high][..], &body].concat()),
                )
            };
            match read(256).unwrap() {
                Inbound::Subscribe { filters, .. } => assert_eq!(filters.len(), 256),
                Inbound::Unsubscribe { filters, .. } => assert_eq!(filters.len(), 256),
                other => panic!("{other:?}"),
            }
            assert_eq!(read(257), Err(Unreadable::TooLarge));
        }
    }
}

/// Whatever is logged with `{:?}` one day.
#[test]
fn what_holds_a_message_or_a_packet_prints_sizes_only() {
    let telling = Telling {
        topic: "v1/notices".to_owned(),
        id: None,
        dup: false,
        retain: false,
        payload: "secret".into(),
    };
    let publish = frame(b"\x30\x09\x00\x01tsecret");
    let printed = format!(
        "{telling:?} {publish:?} {:?}",
        Outbound::Publish(telling.clone())
    );
    assert!(!printed.contains("secret"), "{printed}");
    // Bytes as numbers, too.
    assert!(!format!("{publish:?}").contains("115"), "{publish:?}");
}

#[test]
fn a_v5_disconnect_is_exactly_what_it_says() {
    let mut out = BytesMut::new();
    let bye = Outbound::Disconnect(DisconnectCode::SessionTakenOver);
    encode(Version::V5, &bye, &mut out).unwrap();
    assert_eq!(&out[..], &[0xE0, 2, 0x8E, 0]);
    out.clear();
    encode(Version::V311, &bye, &mut out).unwrap();
    assert!(out.is_empty());
}

/// Every packet that we can write, and that another codec must read to the last byte.
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
        session_expiry: Some(604_800),
        keep_alive: Some(1_200),
    };
    let codes = vec![
        SubscribeCode::GrantedQos0,
        SubscribeCode::GrantedQos1,
        SubscribeCode::NotAuthorized,
        SubscribeCode::TopicFilterInvalid,
        SubscribeCode::QuotaExceeded,
        SubscribeCode::SharedNotSupported,
        SubscribeCode::IdentifiersNotSupported,
    ];
    let mut packets = vec![
        Outbound::SubAck { id: 1, codes },
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
    ];
    for (id, dup) in [(None, false), (Some(5), false), (Some(u16::MAX), true)] {
        packets.push(Outbound::Publish(Telling {
            topic: "v1/recipient".into(),
            id,
            dup,
            retain: !dup,
            payload: "PEM".repeat(100).into(),
        }));
    }
    packets.extend(reasons.map(|reason| Outbound::PubAck { id: 9, reason }));
    packets.extend(reasons.map(|reason| Outbound::PubRec { id: 9, reason }));
    for offer in [None, Some(offer)] {
        packets.extend(answers.map(|answer| Outbound::ConnAck { answer, offer }));
    }
    packets
}

#[test]
fn what_is_written_is_whole_and_read_by_another_codec() {
    for packet in every_packet() {
        let mut out = BytesMut::new();
        encode(Version::V311, &packet, &mut out).unwrap();
        v4::Packet::read(&mut out, 1 << 20).unwrap();
        assert!(out.is_empty(), "v3.1.1 {packet:?}");

        encode(Version::V5, &packet, &mut out).unwrap();
        let read = v5::Packet::read(&mut out, Some(1 << 20)).unwrap();
        assert!(out.is_empty(), "v5 {packet:?}");
        if let (Outbound::Publish(ours), v5::Packet::Publish(theirs)) = (&packet, read) {
            assert_eq!(theirs.pkid, ours.id.unwrap_or(0));
            assert_eq!((theirs.dup, theirs.retain), (ours.dup, ours.retain));
            assert_eq!(
                (theirs.topic, theirs.payload),
                (ours.topic.clone().into(), ours.payload.clone())
            );
        }
    }
}

/// Why there is a codec here: what that other one reads, written for clients, and a server must refuse.
#[test]
fn what_another_codec_lets_pass_is_refused_here() {
    let connects = [
        ("reserved flag", connect(4, 0x03, b"\x00\x05mon-7")),
        (
            "password without a user name",
            connect(4, 0x42, b"\x00\x05mon-7\x00\x01p"),
        ),
        (
            "bytes after the end",
            connect(4, 0x02, b"\x00\x05mon-7\x00"),
        ),
        ("NUL in a string", connect(4, 0x02, b"\x00\x05mon\x007")),
        (
            "a property twice",
            connect(5, 0x02, b"\x06\x21\x00\x01\x21\x00\x02\x00\x05mon-7"),
        ),
        (
            "a receive maximum of 0",
            connect(5, 0x02, b"\x03\x21\x00\x00\x00\x05mon-7"),
        ),
        (
            "a property longer than it says",
            connect(5, 0x02, b"\x02\x21\x00\x01\x00\x05mon-7"),
        ),
    ];
    for (what, bytes) in connects {
        let mut theirs = BytesMut::from(&bytes[..]);
        let read = match bytes[8] {
            4 => v4::Packet::read(&mut theirs, 1 << 20).is_ok(),
            _ => v5::Packet::read(&mut theirs, Some(1 << 20)).is_ok(),
        };
        assert!(read, "{what}");
        assert_eq!(hello(frame(&bytes)), Err(HelloError::Malformed), "{what}");
    }
    let packets = [
        ("identifier 0", packet(0x82, b"\x00\x00\x00\x00\x01a\x00")),
        ("PUBREL 0", packet(0x62, b"\x00\x00")),
        (
            "reserved subscription options",
            packet(0x82, b"\x00\x01\x00\x00\x01a\xC0"),
        ),
        ("a wildcard in a topic", packet(0x30, b"\x00\x01#\x00x")),
        (
            "an alias twice",
            packet(0x30, b"\x00\x01a\x06\x23\x00\x01\x23\x00\x02x"),
        ),
    ];
    for (what, bytes) in packets {
        let mut theirs = BytesMut::from(&bytes[..]);
        assert!(
            v5::Packet::read(&mut theirs, Some(1 << 20)).is_ok(),
            "{what}"
        );
        assert!(inbound(Version::V5, frame(&bytes)).is_err(), "{what}");
    }
}

fn v5_qos(qos: Qos) -> v5bytes::QoS {
    match qos {
        Qos::AtMostOnce => v5bytes::QoS::AtMostOnce,
        Qos::AtLeastOnce => v5bytes::QoS::AtLeastOnce,
        Qos::ExactlyOnce => v5bytes::QoS::ExactlyOnce,
    }
}

fn any_qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

fn packet_like() -> impl Strategy<Value = Vec<u8>> {
    // A valid first byte and length, then noise that often looks like lengths and properties.
    let first = prop::sample::select(vec![
        0x10, 0x30, 0x31, 0x32, 0x34, 0x3A, 0x40, 0x62, 0x82, 0xA2, 0xC0, 0xE0,
    ]);
    let noise = prop_oneof![Just(0_u8), Just(1), 2..48_u8, any::<u8>()];
    (first, prop::collection::vec(noise, 0..100)).prop_map(|(first, body)| packet(first, &body))
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

    #[test]
    fn what_another_codec_writes_is_read_as_it_was_meant(
        topic in "[a-zé/]{1,20}",
        filters in prop::collection::vec(("[a-z+#$/]{1,12}", any_qos(), any::<bool>(), 0..3_u8), 1..4),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        qos in any_qos(),
        id in 1..=u16::MAX,
        retain: bool,
        alias in prop::option::of(1..9_u16),
        user in "[a-z]{0,5}",
    ) {
        let mut out = BytesMut::new();
        let read = |version, packet: BytesMut| inbound(version, frame(&packet));
        let id_of = |qos| if qos == Qos::AtMostOnce { 0 } else { id };
        let meant = |has_alias| Inbound::Publish(Publish {
            topic: topic.clone().into(),
            qos,
            id: id_of(qos),
            retain,
            has_alias,
            payload: payload.clone().into(),
        });

        let mut publish = v5::Publish::new(topic.clone(), v5_qos(qos), payload.clone(), Some(v5::PublishProperties {
            topic_alias: alias,
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(5),
            content_type: Some("x".into()),
            user_properties: vec![(user.clone(), user.clone()), (user.clone(), String::new())],
            ..v5::PublishProperties::default()
        }));
        (publish.pkid, publish.retain) = (id_of(qos), retain);
        publish.write(&mut out).unwrap();
        prop_assert_eq!(read(Version::V5, out.split()), Ok(meant(alias.is_some())));

        let qos4 = [v4bytes::QoS::AtMostOnce, v4bytes::QoS::AtLeastOnce, v4bytes::QoS::ExactlyOnce][qos as usize];
        let mut publish = v4::Publish::new(topic.clone(), qos4, payload.clone());
        (publish.pkid, publish.retain) = (id_of(qos), retain);
        publish.write(&mut out).unwrap();
        prop_assert_eq!(read(Version::V311, out.split()), Ok(meant(false)));

        let filters: Vec<_> = filters.into_iter().filter(|(path, ..)| !path.starts_with("$share/")).collect();
        prop_assume!(!filters.is_empty());
        let mut subscribe = v5::Subscribe::new_many(filters.iter().map(|(path, qos, published, handling)| v5::Filter {
            path: path.clone(),
            qos: v5_qos(*qos),
            nolocal: !published,
            preserve_retain: *published,
            retain_forward_rule: match handling {
                0 => v5::RetainForwardRule::OnEverySubscribe,
                1 => v5::RetainForwardRule::OnNewSubscribe,
                _ => v5::RetainForwardRule::Never,
            },
        }), None);
        subscribe.pkid = id;
        subscribe.write(&mut out).unwrap();
        let meant = filters.iter().map(|(path, qos, published, handling)| Filter {
            path: path.clone(),
            qos: *qos,
            retain_as_published: *published,
            retained: match handling {
                0 => RetainedOnSubscribe::Always,
                1 => RetainedOnSubscribe::IfNew,
                _ => RetainedOnSubscribe::Never,
            },
        });
        let meant = Inbound::Subscribe { id, filters: meant.collect(), has_identifier: false };
        prop_assert_eq!(read(Version::V5, out.split()), Ok(meant));
    }
}
