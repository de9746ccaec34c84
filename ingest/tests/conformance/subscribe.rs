//! Subscriptions: 3.8 to 3.11, 4.7, 4.8.

use crate::peer::{
    DOWN, Five, Four, RECIPIENT, V, VITALS, World, both, packet, properties, puback, publish,
    refused, suback, subscribe, text, unsubscribe,
};

/// "No", in the words of the version.
fn no(v: V, five: u8) -> u8 {
    if v == Five { five } else { 0x80 }
}

fn unsuback(v: V, id: u16, codes: &[u8]) -> Vec<u8> {
    let codes = if v == Five { codes } else { &[] };
    packet(0xB0, &[&id.to_be_bytes(), &properties(v, &[]), codes])
}

/// SUBSCRIBE or UNSUBSCRIBE with this payload.
fn raw(v: V, first: u8, payload: &[u8]) -> Vec<u8> {
    packet(first, &[&[0, 1], &properties(v, &[]), payload])
}

/// Asks for each filter by itself at QoS 1, and for all of them together.
async fn answers(world: &World, v: V, filters: &[(&str, u8)]) {
    let mut peer = world.connected(v).await;
    for (filter, code) in filters {
        let answer = suback(v, 1, &[*code]);
        peer.asks(&subscribe(v, 1, &[(filter, 1)]), &answer).await;
    }
    let all: Vec<_> = filters.iter().map(|(filter, _)| (*filter, 1)).collect();
    let codes: Vec<_> = filters.iter().map(|(_, code)| *code).collect();
    peer.asks(&subscribe(v, 2, &all), &suback(v, 2, &codes))
        .await;
}

refused! {
    mqtt311_3_8_1_1_the_flags_of_subscribe: Four, [0x80, 0] => 0x81;
    mqtt5_3_8_1_1_the_flags_of_subscribe: Five, [0x83, 0] => 0x81;
    mqtt311_3_8_3_1_a_filter_is_utf8: Four, raw(Four, 0x82, &[0, 1, 0xFF, 0]) => 0x81;
    mqtt5_3_8_3_1_a_filter_is_utf8: Five, raw(Five, 0x82, &[0, 1, 0xFF, 0]) => 0x81;
    mqtt311_3_8_3_3_at_least_one_filter: Four, raw(Four, 0x82, &[]) => 0x82;
    mqtt5_3_8_3_2_at_least_one_filter: Five, raw(Five, 0x82, &[]) => 0x82;
    mqtt311_3_8_3_4_no_qos_3: Four, subscribe(Four, 1, &[(DOWN, 3)]) => 0x81;
    mqtt311_3_8_3_4_reserved_bits: Four, subscribe(Four, 1, &[(DOWN, 4)]) => 0x81;
    mqtt5_3_8_3_5_reserved_bits: Five, subscribe(Five, 1, &[(DOWN, 0x40)]) => 0x81;
    mqtt5_3_8_3_4_no_local_is_not_for_shared: Five, subscribe(Five, 1, &[("$share/g/v1/recipient", 4)]) => 0x82;
    mqtt311_3_10_1_1_the_flags_of_unsubscribe: Four, [0xA0, 0] => 0x81;
    mqtt5_3_10_1_1_the_flags_of_unsubscribe: Five, [0xA6, 0] => 0x81;
    mqtt311_3_10_3_1_a_filter_to_unsubscribe_is_utf8: Four, raw(Four, 0xA2, &[0, 1, 0xFF]) => 0x81;
    mqtt5_3_10_3_1_a_filter_to_unsubscribe_is_utf8: Five, raw(Five, 0xA2, &[0, 1, 0xFF]) => 0x81;
    mqtt311_3_10_3_2_at_least_one_filter_to_unsubscribe: Four, raw(Four, 0xA2, &[]) => 0x82;
    mqtt5_3_10_3_2_at_least_one_filter_to_unsubscribe: Five, raw(Five, 0xA2, &[]) => 0x82;
    mqtt311_4_7_1_1_a_name_has_no_wildcard: Four, publish(Four, 0x30, "v1/+", None, b"x") => 0x81;
    mqtt5_4_7_0_1_a_name_has_no_wildcard: Five, publish(Five, 0x30, "v1/+", None, b"x") => 0x81;
    mqtt311_4_7_3_2_a_filter_has_no_null_character: Four, subscribe(Four, 1, &[("v1/\0", 0)]) => 0x81;
    mqtt5_4_7_3_2_a_filter_has_no_null_character: Five, subscribe(Five, 1, &[("v1/\0", 0)]) => 0x81;
}

both! {
    mqtt311_3_8_4_1_subscribe_is_answered, mqtt5_3_8_4_1_subscribe_is_answered: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.asks(&subscribe(v, 1, &[(DOWN, 0)]), &suback(v, 1, &[0])).await;
    };

    mqtt311_3_8_4_2_suback_has_the_identifier, mqtt5_3_8_4_2_suback_has_the_identifier: |world, v| async move {
        let mut peer = world.connected(v).await;
        for id in [1, 0x1234, 0xFFFF, 1] {
            peer.asks(&subscribe(v, id, &[(DOWN, 0)]), &suback(v, id, &[0])).await;
        }
    };

    mqtt311_3_8_4_3_the_same_filter_replaces_the_subscription, mqtt5_3_8_4_3_the_same_filter_replaces_the_subscription: |world, v| async move {
        let mut peer = world.connected(v).await;
        for (options, text) in [(1, "a"), (0, "b"), (1, "c")] {
            peer.subscribes(DOWN, options).await;
            world.tells(text).await;
            let packet = peer.packet().await.unwrap();
            assert_eq!(packet[0], 0x30 | options << 1, "{text}");
            peer.hears_nothing().await; // once
        }
    };

    /// The retained message is sent again, and nothing that comes is missed.
    mqtt311_3_8_4_4_many_filters_are_as_many_subscribes, mqtt5_3_8_4_5_many_filters_are_as_many_subscribes: |world, v| async move {
        let mut peer = world.connected(v).await;
        let filters = [(RECIPIENT, 0), (DOWN, 0), (DOWN, 1)];
        peer.asks(&subscribe(v, 1, &filters), &suback(v, 1, &[0, 0, 1])).await;
        assert_eq!(peer.packet().await.unwrap()[0], 0x31);
        world.tells("a").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
    };

    mqtt311_3_8_4_5_suback_has_a_code_for_each_filter, mqtt5_3_8_4_6_suback_has_a_code_for_each_filter: |world, v| async move {
        let mut peer = world.connected(v).await;
        let filters = [(DOWN, 0), (DOWN, 1), (DOWN, 2), (VITALS, 0), ("v1/d/mon-2/down", 0)];
        let codes = [0, 1, 1, no(v, 0x87), no(v, 0x87)];
        peer.asks(&subscribe(v, 1, &filters), &suback(v, 1, &codes)).await;
    };

    /// All of ours are published at QoS 1.
    mqtt311_3_8_4_6_at_most_at_the_qos_that_was_granted, mqtt5_3_8_4_8_at_most_at_the_qos_that_was_granted: |world, v| async move {
        for (options, first) in [(0, 0x30), (1, 0x32), (2, 0x32)] {
            let mut peer = world.connected(v).await;
            peer.subscribes(DOWN, options).await;
            world.tells("a").await;
            let packet = peer.packet().await.unwrap();
            assert_eq!(packet[0], first);
            if options > 0 {
                peer.send(&puback(1)).await;
            }
            peer.hears_nothing().await;
        }
    };

    mqtt311_3_9_3_1_codes_are_in_the_order_of_filters, mqtt5_3_9_3_1_codes_are_in_the_order_of_filters: |world, v| async move {
        let refused = no(v, 0x87);
        let filters = [("#", refused), (DOWN, 1), ("v1/d/+/down", refused), (VITALS, refused), ("v1/notices", 1)];
        answers(&world, v, &filters).await;
    };

    mqtt311_3_9_3_2_codes_are_those_of_the_standard, mqtt5_3_9_3_2_codes_are_those_of_the_standard: |world, v| async move {
        let filters = [
            (DOWN, 1),
            ("v1/alerts/icu", no(v, 0x87)),
            ("$SYS/#", no(v, 0x87)),
            ("", no(v, 0x8F)),
            ("$share/g/v1/recipient", no(v, 0x9E)),
        ];
        answers(&world, v, &filters).await;
    };

    mqtt311_3_10_4_1_the_subscription_is_deleted, mqtt5_3_10_4_1_the_subscription_is_deleted: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.subscribes(DOWN, 0).await;
        // Compared character by character: these are others.
        let others = ["v1/d/mon-1/dow", "v1/d/MON-1/down", "v1/d/+/down", "/v1/d/mon-1/down"];
        peer.asks(&unsubscribe(v, 1, &others), &unsuback(v, 1, &[0x11; 4])).await;
        world.tells("a").await;
        peer.hears(&publish(v, 0x30, DOWN, None, b"a")).await;
        peer.asks(&unsubscribe(v, 2, &[DOWN]), &unsuback(v, 2, &[0])).await;
        peer.asks(&unsubscribe(v, 3, &[DOWN]), &unsuback(v, 3, &[0x11])).await;
    };

    mqtt311_3_10_4_2_nothing_new_comes_after_unsubscribe, mqtt5_3_10_4_2_nothing_new_comes_after_unsubscribe: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.subscribes(DOWN, 1).await;
        peer.asks(&unsubscribe(v, 1, &[DOWN]), &unsuback(v, 1, &[0])).await;
        world.tells("a").await;
        peer.hears_nothing().await;
    };

    /// It went out before, so it comes again until it is acknowledged.
    mqtt311_3_10_4_3_what_was_begun_is_completed, mqtt5_3_10_4_3_what_was_begun_is_completed: |world, v| async move {
        let (mut peer, _) = world.kept(v).await;
        peer.subscribes(DOWN, 1).await;
        world.tells("a").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
        peer.asks(&unsubscribe(v, 1, &[DOWN]), &unsuback(v, 1, &[0])).await;
        let (mut peer, _) = world.kept(v).await;
        peer.hears(&publish(v, 0x3A, DOWN, Some(1), b"a")).await;
        peer.send(&puback(1)).await;
        peer.hears_nothing().await;
        let (mut peer, _) = world.kept(v).await;
        peer.hears_nothing().await;
    };

    mqtt311_3_10_4_4_unsubscribe_is_answered, mqtt5_3_10_4_4_unsubscribe_is_answered: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.subscribes(DOWN, 1).await;
        peer.asks(&unsubscribe(v, 0x1234, &[DOWN]), &unsuback(v, 0x1234, &[0])).await;
    };

    mqtt311_3_10_4_5_also_when_there_was_none, mqtt5_3_10_4_5_also_when_there_was_none: |world, v| async move {
        let mut peer = world.connected(v).await;
        let none = unsuback(v, 7, &[0x11, 0x11]);
        peer.asks(&unsubscribe(v, 7, &[DOWN, "anything/#"]), &none).await;
    };

    mqtt311_3_10_4_6_many_filters_one_unsuback, mqtt5_3_10_4_6_many_filters_one_unsuback: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.subscribes(DOWN, 1).await;
        peer.subscribes("v1/notices", 1).await;
        let filters = ["v1/notices", RECIPIENT, DOWN, DOWN];
        peer.asks(&unsubscribe(v, 7, &filters), &unsuback(v, 7, &[0, 0x11, 0, 0x11])).await;
        peer.hears_nothing().await;
    };

    mqtt311_3_8_3_2_wildcards_are_refused, mqtt5_4_8_2_1_shared_subscriptions_are_refused: |world, v| async move {
        let (wildcard, shared) = (no(v, 0x87), no(v, 0x9E));
        let filters = [("#", wildcard), ("v1/#", wildcard), ("+/recipient", wildcard), ("$share/g/v1/notices", shared)];
        answers(&world, v, &filters).await;
    };

    mqtt311_4_7_1_2_the_multi_level_wildcard_stands_last_and_alone, mqtt5_4_7_1_1_the_multi_level_wildcard_stands_last_and_alone: |world, v| async move {
        let invalid = no(v, 0x8F);
        let filters = [("v1#", invalid), ("v1/#/down", invalid), ("#/", invalid), ("v1/##", invalid)];
        answers(&world, v, &filters).await;
    };

    mqtt311_4_7_1_3_the_single_level_wildcard_stands_alone, mqtt5_4_7_1_2_the_single_level_wildcard_stands_alone: |world, v| async move {
        let invalid = no(v, 0x8F);
        let filters = [("v1+", invalid), ("v1/d+/down", invalid), ("v1/++", invalid), ("+v1/#", invalid)];
        answers(&world, v, &filters).await;
    };

    mqtt311_4_7_3_1_a_filter_has_a_character, mqtt5_4_7_3_1_a_filter_has_a_character: |world, v| async move {
        answers(&world, v, &[("", no(v, 0x8F))]).await;
        world.is_refused(v, &publish(v, 0x30, "", None, b"x"), 0x82).await;
    };

    mqtt311_4_7_3_4_nothing_is_normalized, mqtt5_4_7_3_4_nothing_is_normalized: |world, v| async move {
        let other = no(v, 0x87);
        let filters = [
            ("V1/recipient", other),
            ("v1/recipient/", other),
            ("/v1/recipient", other),
            ("v1//recipient", other),
            ("v1/recipient ", other),
            ("v1/\u{212B}", other),
        ];
        answers(&world, v, &filters).await;
    };
}

/// The retained message is sent again, and what comes meanwhile is not lost.
#[tokio::test]
async fn mqtt5_3_8_4_4_replacing_loses_nothing() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    peer.subscribes(RECIPIENT, 0).await;
    assert_eq!(peer.packet().await.unwrap()[0], 0x31);
    world.recipient_pem.send_replace("next".into());
    peer.hears(&publish(Five, 0x30, RECIPIENT, None, b"next"))
        .await;
    peer.subscribes(RECIPIENT, 0).await;
    peer.hears(&publish(Five, 0x31, RECIPIENT, None, b"next"))
        .await;
    peer.subscribes(DOWN, 1).await;
    for (id, text) in [(1, "a"), (2, "b")] {
        peer.subscribes(DOWN, 1).await;
        world.tells(text).await;
        peer.hears(&publish(Five, 0x32, DOWN, Some(id), text.as_bytes()))
            .await;
    }
}

#[tokio::test]
async fn mqtt5_3_8_4_7_a_code_grants_or_refuses() {
    let world = World::new().await;
    for (options, code) in [(0, 0), (1, 1), (2, 1)] {
        let mut peer = world.connected(Five).await;
        let answer = suback(Five, 1, &[code, 0x87]);
        peer.asks(
            &subscribe(Five, 1, &[(DOWN, options), ("#", options)]),
            &answer,
        )
        .await;
    }
}

/// They are not offered (3.2.2.3.12); whoever asks is told so for each filter.
#[tokio::test]
async fn mqtt5_3_3_4_3_subscription_identifiers_are_refused() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    let filter = [text(DOWN), vec![1], text(RECIPIENT), vec![0]].concat();
    let asked = packet(0x82, &[&[0, 1, 2, 0x0B, 5], &filter]);
    peer.asks(&asked, &suback(Five, 1, &[0xA1, 0xA1])).await;
    world.tells("a").await;
    peer.hears_nothing().await;
}

#[tokio::test]
async fn mqtt5_3_11_3_1_codes_of_unsuback_are_in_the_order_of_filters() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    peer.subscribes(DOWN, 0).await;
    let filters = ["a", DOWN, "b"];
    peer.asks(
        &unsubscribe(Five, 1, &filters),
        &unsuback(Five, 1, &[0x11, 0, 0x11]),
    )
    .await;
}

#[tokio::test]
async fn mqtt5_3_11_3_2_codes_of_unsuback_are_those_of_the_standard() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    let filters = ["", "#", "a#", "$share/g/a"];
    peer.asks(
        &unsubscribe(Five, 1, &filters),
        &unsuback(Five, 1, &[0x11; 4]),
    )
    .await;
}
