//! 3.1 CONNECT and 3.2 CONNACK, but for sessions and wills.

use std::time::{Duration, Instant};

use vitalseal_storage::{Clock, SystemClock};

use crate::peer::{
    BYE, CLEAN, DOWN, Five, Four, ID, KEPT, PINGREQ, Peer, VITALS, WILL, World, both, connect,
    connect_as, cut, packet, properties, publish, suback, subscribe, text, will,
};
use crate::raw::Raw;

const PASSWORD: u8 = 0x40;
const USER: u8 = 0x80;

/// A CONNECT of another protocol name or level.
fn foreign(name: &str, level: u8) -> Vec<u8> {
    packet(0x10, &[&text(name), &[level, 2, 0, 30], &text(ID)])
}

cut! {
    mqtt311_3_1_0_1_the_first_packet_is_connect: PINGREQ;
    mqtt5_3_1_0_1_the_first_packet_is_connect: publish(Five, 0x30, VITALS, None, b"x");
    mqtt311_3_1_2_1_another_protocol_name_is_not_mqtt: foreign("MQTX", 4);
    mqtt5_3_1_2_1_another_protocol_name_is_not_mqtt: foreign("mqtt", 5);
    mqtt311_3_1_2_3_the_reserved_flag_is_zero: connect(Four, 3, &[], &[]);
    mqtt5_3_1_2_3_the_reserved_flag_is_zero: connect(Five, 3, &[], &[]);
    mqtt311_3_1_2_18_no_user_name_without_its_flag: connect(Four, CLEAN, &[], &text("mary"));
    mqtt5_3_1_2_16_no_user_name_without_its_flag: connect(Five, CLEAN, &[], &text("mary"));
    mqtt311_3_1_2_19_a_user_name_with_its_flag: connect(Four, CLEAN | USER, &[], &[]);
    mqtt5_3_1_2_17_a_user_name_with_its_flag: connect(Five, CLEAN | USER, &[], &[]);
    mqtt311_3_1_2_20_no_password_without_its_flag:
        connect(Four, CLEAN | USER, &[], &[text("mary"), text("p")].concat());
    mqtt5_3_1_2_18_no_password_without_its_flag:
        connect(Five, CLEAN | USER, &[], &[text("mary"), text("p")].concat());
    mqtt311_3_1_2_21_a_password_with_its_flag:
        connect(Four, CLEAN | USER | PASSWORD, &[], &text("mary"));
    mqtt5_3_1_2_19_a_password_with_its_flag:
        connect(Five, CLEAN | USER | PASSWORD, &[], &text("mary"));
    mqtt311_3_1_2_22_no_password_without_a_user_name:
        connect(Four, CLEAN | PASSWORD, &[], &text("p"));
    mqtt311_3_1_3_3_a_client_identifier_is_there: connect_as(Four, CLEAN, &[], &[]);
    mqtt5_3_1_3_3_a_client_identifier_is_there: connect_as(Five, CLEAN, &[], &[]);
    mqtt311_3_1_3_4_a_client_identifier_is_utf8: connect_as(Four, CLEAN, &[], &text(b"\xC0\x80"));
    mqtt5_3_1_3_4_a_client_identifier_is_utf8: connect_as(Five, CLEAN, &[], &text(b"\xC0\x80"));
    mqtt311_3_1_3_11_a_user_name_is_utf8: connect(Four, CLEAN | USER, &[], &text(b"\xFF"));
    mqtt5_3_1_3_12_a_user_name_is_utf8: connect(Five, CLEAN | USER, &[], &text(b"\xFF"));
    mqtt311_3_2_2_6_what_has_no_code_gets_no_connack: connect(Four, 3, &[], &[]);
    // Doubled session expiry; receive maximum of 0; authentication data without a method; request problem information 2.
    mqtt5_3_1_4_1_a_property_is_there_once: connect(Five, CLEAN, &[KEPT, KEPT].concat(), &[]);
    mqtt5_3_1_4_1_a_receive_maximum_is_not_zero: connect(Five, CLEAN, &[0x21, 0, 0], &[]);
    mqtt5_3_1_4_1_a_maximum_packet_size_is_not_zero: connect(Five, CLEAN, &[0x27, 0, 0, 0, 0], &[]);
    mqtt5_3_1_4_1_no_authentication_data_without_a_method: connect(Five, CLEAN, &[0x16, 0, 1, 0], &[]);
    mqtt5_3_1_4_1_a_request_is_zero_or_one: connect(Five, CLEAN, &[0x17, 2], &[]);
    mqtt5_3_1_4_1_a_property_of_another_packet: connect(Five, CLEAN, &[0x23, 0, 1], &[]);
    // 8 bytes are too few for a CONNACK.
    mqtt5_3_1_2_24_no_connack_larger_than_the_client_takes: connect(Five, CLEAN, &[0x27, 0, 0, 0, 8], &[]);
    mqtt5_3_14_0_1_no_disconnect_before_connack: connect(Five, CLEAN | 1, &[], &[]);
}

both! {
    mqtt311_3_1_0_2_a_second_connect_ends_it, mqtt5_3_1_0_2_a_second_connect_ends_it: |world, v| async move {
        world.is_refused(v, &connect(v, CLEAN, &[], &[]), 0x82).await;
    };

    /// Read as "MQTT" of an unknown level, the answer is that of v3.1.1, which every client knows.
    mqtt311_3_1_2_2_an_unknown_level_is_told, mqtt5_3_1_2_2_an_unknown_level_is_told: |world, v| async move {
        for level in [3, v as u8 + 2, 0x84] {
            let mut peer = world.dial().await;
            peer.asks(&foreign("MQTT", level), &[0x20, 2, 0, 1]).await;
            assert_eq!(peer.packet().await, None);
        }
    };

    /// The client says nothing for one and a half keep-alives of 1 s. Measured from before its last word, so that a slow
    /// machine only makes it longer.
    mqtt311_3_1_2_24_silence_ends_the_connection, mqtt5_3_1_2_22_silence_ends_the_connection: |world, v| async move {
        let mut hello = connect(v, CLEAN, &[], &[]);
        hello[11] = 1;
        let mut peer = world.dial().await;
        peer.v = v;
        peer.send(&hello).await;
        peer.packet().await.unwrap();
        let last_word = Instant::now();
        peer.hears_nothing().await;
        peer.is_told(0x8D).await;
        assert!(last_word.elapsed() >= Duration::from_millis(1_500));
    };

    mqtt311_3_1_3_1_fields_come_in_their_order, mqtt5_3_1_3_1_fields_come_in_their_order: |world, v| async move {
        let rest = [will(v, &[], VITALS, b"x"), text("mary"), text("secret")].concat();
        let (_, connack) = world.connects(v, CLEAN | WILL | USER | PASSWORD, &[], &rest).await;
        assert_eq!(connack[3], 0);
    };

    /// A device's identifier is its own; these are the characters and the length that every server must take.
    mqtt311_3_1_3_5_identifiers_of_23_letters_and_digits, mqtt5_3_1_3_5_identifiers_of_23_letters_and_digits: |world, v| async move {
        for name in ["0", "aZ3456789abcdefghijkLMN"] {
            let device = world.device(name).await;
            let mut peer = Peer::over(Raw::tls(&world, &device).await.unwrap());
            peer.send(&connect_as(v, CLEAN, &[], &text(name))).await;
            assert_eq!(peer.packet().await.unwrap()[3], 0, "{name}");
        }
    };

    mqtt311_3_1_3_9_a_foreign_identifier_is_rejected, mqtt5_3_1_3_8_a_foreign_identifier_is_rejected: |world, v| async move {
        for name in ["mon-2", "MON-1", "mon-1 ", ""] {
            let mut peer = world.dial().await;
            peer.send(&connect_as(v, CLEAN, &[], &text(name))).await;
            let connack = peer.packet().await.unwrap();
            assert_eq!(connack[2..4], [0, if v == Five { 0x85 } else { 2 }], "{name}");
            assert_eq!(peer.packet().await, None);
        }
    };

    mqtt311_3_1_4_2_another_connection_of_the_client_ends_this_one, mqtt5_3_1_4_3_another_connection_of_the_client_ends_this_one: |world, v| async move {
        let mut old = world.connected(v).await;
        let mut new = world.connected(v).await;
        old.is_told(0x8E).await;
        new.hears_nothing().await;
    };

    mqtt311_3_1_4_4_an_accepted_connect_is_acknowledged, mqtt5_3_1_4_5_an_accepted_connect_is_acknowledged: |world, v| async move {
        let (_, connack) = world.connects(v, CLEAN, &[], &[]).await;
        // v5: receive maximum 64, maximum packet size 300 KiB, no subscription identifiers, no shared subscriptions.
        let offered: &[u8] = &[0x21, 0, 64, 0x27, 0, 4, 0xB0, 0, 0x29, 0, 0x2A, 0];
        assert_eq!(connack, packet(0x20, &[&[0, 0], &properties(v, offered)]));
    };

    mqtt311_3_1_4_5_what_follows_a_rejected_connect_is_not_read, mqtt5_3_1_4_6_what_follows_a_rejected_connect_is_not_read: |world, v| async move {
        let mut peer = world.dial().await;
        let envelope = world.seal(&world.device, 1);
        let late = publish(v, 0x32, VITALS, Some(1), &envelope);
        peer.send(&[connect_as(v, CLEAN, &[], &text("mon-2")), late].concat()).await;
        assert_ne!(peer.packet().await.unwrap()[3], 0);
        assert_eq!(peer.packet().await, None);
        assert_eq!(world.rows().await, 0);
    };

    /// A message waits for the session; CONNACK is first all the same.
    mqtt311_3_2_0_1_connack_is_the_first_packet, mqtt5_3_2_0_1_connack_is_the_first_packet: |world, v| async move {
        let (mut peer, _) = world.kept(v).await;
        peer.subscribes(DOWN, 1).await;
        peer.send(&BYE).await;
        assert_eq!(peer.packet().await, None);
        world.tells("a").await;
        let (mut peer, present) = world.kept(v).await; // asserts what it reads to be a CONNACK
        assert!(present);
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
    };

    /// A session is there, and a will that the client may not leave.
    mqtt311_3_2_2_4_a_refusal_says_no_session, mqtt5_3_2_2_6_a_refusal_says_no_session: |world, v| async move {
        world.kept(v).await;
        let rest = will(v, &[], "v1/recipient", b"x");
        let (_, connack) = world.connects(v, WILL, &KEPT, &rest).await;
        assert_eq!(connack[2..4], [0, if v == Five { 0x87 } else { 5 }]);
        assert!(world.kept(v).await.1, "it is there still");
    };

    mqtt311_3_2_2_5_a_refusal_closes, mqtt5_3_2_2_7_a_refusal_closes: |world, v| async move {
        let (registry, now) = (&world.store.registry, SystemClock.now());
        registry.revoke_device(&world.device.id, "lost", now).await.unwrap();
        let (mut peer, connack) = world.connects(v, CLEAN, &[], &[]).await;
        assert_eq!(connack[3], if v == Five { 0x87 } else { 5 });
        assert_eq!(peer.packet().await, None);
    };

    /// The first packet that cannot be parsed gets neither CONNACK nor DISCONNECT.
    mqtt311_3_1_4_1_a_connect_that_does_not_conform_gets_no_answer, mqtt5_4_13_1_1_a_connect_that_does_not_conform_gets_no_answer: |world, v| async move {
        let good = connect(v, CLEAN, &[], &[]);
        for len in [3, 8, 12, good.len() - 1] {
            let mut cut = good[..len].to_vec();
            cut[1] = u8::try_from(len - 2).unwrap();
            world.is_cut(&cut).await;
        }
    };
}

#[tokio::test]
async fn mqtt311_3_1_3_8_no_identifier_and_no_clean_session_is_rejected() {
    let mut peer = World::new().await.dial().await;
    peer.asks(&connect_as(Four, 0, &[], &text("")), &[0x20, 2, 0, 2])
        .await;
    assert_eq!(peer.packet().await, None);
}

/// The certificate is good, and the registry has never heard of it.
#[tokio::test]
async fn mqtt5_3_1_4_2_whoever_is_not_enrolled_is_not_authorized() {
    let world = World::new().await;
    let stranger = world.stranger("mon-9", &world.authority);
    let mut peer = Peer::over(Raw::tls(&world, &stranger).await.unwrap());
    let hello = connect_as(Five, CLEAN, &[], &text("mon-9"));
    peer.asks(&hello, &[0x20, 3, 0, 0x87, 0]).await;
    assert_eq!(peer.packet().await, None);
}

#[tokio::test]
async fn mqtt5_3_1_2_24_no_packet_is_larger_than_the_client_takes() {
    let world = World::new().await;
    let (mut peer, _) = world.connects(Five, CLEAN, &[0x27, 0, 0, 0, 40], &[]).await;
    let answer = suback(Five, 1, &[0]);
    peer.asks(&subscribe(Five, 1, &[("v1/recipient", 0)]), &answer)
        .await;
    peer.hears_nothing().await; // a certificate has more than 40 bytes
}

/// Taken for delivered, it does not come again; the next message does not wait for it.
#[tokio::test]
async fn mqtt5_3_1_2_25_what_is_too_large_counts_as_sent() {
    let world = World::new().await;
    let properties = [&KEPT[..], &[0x27, 0, 0, 0, 40]].concat();
    let (mut peer, _) = world.connects(Five, 0, &properties, &[]).await;
    peer.v = Five;
    peer.subscribes(DOWN, 1).await;
    world.tells(&"too large ".repeat(10)).await;
    world.tells("a").await;
    peer.hears(&publish(Five, 0x32, DOWN, Some(2), b"a")).await;
    let (mut peer, present) = world.kept(Five).await;
    assert!(present);
    peer.hears(&publish(Five, 0x3A, DOWN, Some(2), b"a")).await;
    peer.hears_nothing().await;
}

/// Neither the client nor this server has anything of it to say.
#[tokio::test]
async fn mqtt5_3_1_2_28_no_response_information() {
    let world = World::new().await;
    for asked in [0, 1] {
        let (_, connack) = world.connects(Five, CLEAN, &[0x19, asked], &[]).await;
        assert!(!connack.contains(&0x1A), "{connack:02x?}");
    }
}

/// Refused in one byte, with it and without it.
#[tokio::test]
async fn mqtt5_3_1_2_29_no_reason_strings() {
    let world = World::new().await;
    for asked in [0, 1] {
        let (mut peer, _) = world.connects(Five, CLEAN, &[0x17, asked], &[]).await;
        peer.v = Five;
        assert_eq!(peer.publishes(0x32, 9, b"x").await, [0x40, 3, 0, 9, 0x99]);
        peer.asks(&subscribe(Five, 9, &[("#", 0)]), &suback(Five, 9, &[0x87]))
            .await;
    }
}

#[tokio::test]
async fn mqtt5_3_2_2_1_the_flags_but_one_are_zero() {
    let world = World::new().await;
    world.kept(Five).await;
    let (_, connack) = world.connects(Five, 0, &KEPT, &[]).await;
    assert_eq!(connack[2], 1);
}

#[tokio::test]
async fn mqtt5_3_2_2_22_the_keep_alive_of_the_server_is_told() {
    let world = World::new().await;
    let mut hello = connect(Five, CLEAN, &[], &[]);
    for (asked, told) in [([0, 0], true), ([0x4E, 0x20], true), ([0, 30], false)] {
        hello[10..12].copy_from_slice(&asked);
        let mut peer = world.dial().await;
        peer.send(&hello).await;
        let connack = peer.packet().await.unwrap();
        assert_eq!(connack[5] == 0x13, told, "{asked:?}: {connack:02x?}");
    }
}

#[tokio::test]
async fn mqtt5_4_12_0_1_enhanced_authentication_is_not_supported() {
    let world = World::new().await;
    let method = [&[0x15][..], &text("SCRAM-SHA-1")].concat();
    let (mut peer, connack) = world.connects(Five, CLEAN, &method, &[]).await;
    assert_eq!(connack, [0x20, 3, 0, 0x8C, 0]);
    assert_eq!(peer.packet().await, None);
}
