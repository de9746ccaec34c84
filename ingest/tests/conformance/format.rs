//! Chapters 1 and 2: data types, flags, packet identifiers.

use crate::peer::{
    DOWN, Five, Four, V, VITALS, both, connect, packet, puback, publish, refused, suback,
    subscribe, text, unsubscribe,
};

const MALFORMED: u8 = 0x81;

/// A PUBLISH at QoS 0 on a topic of these bytes.
fn on_topic(v: V, topic: &[u8]) -> Vec<u8> {
    let none: &[u8] = if v == Five { &[0] } else { &[] };
    packet(0x30, &[&text(topic), none, b"x"])
}

refused! {
    mqtt311_1_5_3_1_a_surrogate_is_not_utf8: Four, on_topic(Four, b"a\xED\xA0\x80") => MALFORMED;
    mqtt5_1_5_4_1_a_surrogate_is_not_utf8: Five, on_topic(Five, b"a\xED\xA0\x80") => MALFORMED;
    mqtt311_1_5_3_2_no_null_character_in_a_string: Four, on_topic(Four, b"a\0b") => MALFORMED;
    mqtt5_1_5_4_2_no_null_character_in_a_string: Five, on_topic(Five, b"a\0b") => MALFORMED;
    // PINGREQ with a length of 0 in two bytes; a PUBLISH with a property length of 0 in two.
    mqtt5_1_5_5_1_a_remaining_length_is_as_short_as_can_be: Five, [0xC0, 0x80, 0] => MALFORMED;
    mqtt5_1_5_5_1_a_property_length_is_as_short_as_can_be: Five, [0x30, 5, 0, 1, b'a', 0x80, 0] => MALFORMED;
    mqtt5_1_5_7_1_both_strings_of_a_pair_are_utf8:
        Five, [0x30, 10, 0, 1, b'a', 6, 0x26, 0, 1, 0xFF, 0, 0] => MALFORMED;
    mqtt5_2_2_2_1_a_property_length_is_there: Five, packet(0x82, &[&[0, 1]]) => MALFORMED;
}

both! {
    /// U+FEFF in front makes it another topic, which nobody may hear.
    mqtt311_1_5_3_3_a_byte_order_mark_is_a_character, mqtt5_1_5_4_3_a_byte_order_mark_is_a_character: |world, v| async move {
        let mut peer = world.connected(v).await;
        let refused = suback(v, 5, &[if v == Five { 0x87 } else { 0x80 }]);
        peer.asks(&subscribe(v, 5, &[("\u{feff}v1/recipient", 0)]), &refused).await;
    };

    mqtt311_2_2_2_1_reserved_flags_have_their_value, mqtt5_2_1_3_1_reserved_flags_have_their_value: |world, v| async move {
        for first in [0x11, 0x41, 0x60, 0x80, 0xA0, 0xC1, 0xE1] {
            world.is_refused(v, &[first, 0], MALFORMED).await;
        }
    };

    mqtt311_2_2_2_2_invalid_flags_close_the_connection, mqtt5_3_1_4_1_invalid_flags_of_connect_close_the_connection: |world, v| async move {
        let mut hello = connect(v, 2, &[], &[]);
        hello[0] |= 1;
        world.is_cut(&hello).await;
    };

    mqtt311_2_3_1_1_an_identifier_is_not_zero, mqtt5_2_2_1_3_an_identifier_is_not_zero: |world, v| async move {
        for packet in [
            subscribe(v, 0, &[(DOWN, 0)]),
            unsubscribe(v, 0, &[DOWN]),
            publish(v, 0x32, VITALS, Some(0), b"x"),
            publish(v, 0x34, VITALS, Some(0), b"x"),
            vec![0x62, 2, 0, 0],
            puback(0),
        ] {
            world.is_refused(v, &packet, 0x82).await;
        }
    };

    mqtt311_2_3_1_4_our_identifiers_are_unused_and_not_zero, mqtt5_2_2_1_4_our_identifiers_are_unused_and_not_zero: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.subscribes(DOWN, 1).await;
        for text in ["a", "b", "c"] {
            world.tells(text).await;
        }
        for (id, text) in (1..).zip([b"a", b"b", b"c"]) {
            peer.hears(&publish(v, 0x32, DOWN, Some(id), text)).await;
        }
        // 2 is free again; what comes next is not one that is still in use.
        peer.send(&puback(2)).await;
        world.tells("d").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(4), b"d")).await;
    };

    mqtt311_2_3_1_5_no_identifier_at_qos_0, mqtt5_2_2_1_2_no_identifier_at_qos_0: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.subscribes(DOWN, 0).await;
        world.tells("a").await;
        peer.hears(&publish(v, 0x30, DOWN, None, b"a")).await;
    };

    mqtt311_2_3_1_6_acknowledgements_name_what_they_acknowledge, mqtt5_2_2_1_5_acknowledgements_name_what_they_acknowledge: |world, v| async move {
        let mut peer = world.connected(v).await;
        assert_eq!(peer.publishes(0x32, 0x0102, &world.seal(&world.device, 1)).await, puback(0x0102));
        let pubrec = peer.publishes(0x34, 0x0304, &world.seal(&world.device, 2)).await;
        assert_eq!(pubrec, [0x50, 2, 3, 4]);
        peer.asks(&[0x62, 2, 3, 4], &[0x70, 2, 3, 4]).await;
    };

    mqtt311_2_3_1_7_suback_and_unsuback_name_what_they_answer, mqtt5_2_2_1_6_suback_and_unsuback_name_what_they_answer: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.asks(&subscribe(v, 0xABCD, &[(DOWN, 0)]), &suback(v, 0xABCD, &[0])).await;
        peer.send(&unsubscribe(v, 0xDCBA, &[DOWN])).await;
        assert_eq!(peer.packet().await.unwrap()[2..4], [0xDC, 0xBA]);
    };
}
