//! Pings, goodbyes, order, and what ends a connection: 3.12, 3.14, 3.15, 4.2, 4.6, 4.8 (v3.1.1), 4.9, 4.12, 4.13.

use crate::peer::{
    BYE, DOWN, Five, Four, PINGREQ, PINGRESP, VITALS, World, both, packet, puback, publish, refused,
};
use crate::rig::Gate;

refused! {
    mqtt311_3_14_1_1_the_flags_of_disconnect: Four, [0xE1, 0] => 0x81;
    mqtt5_3_14_1_1_the_flags_of_disconnect: Five, [0xE8, 0] => 0x81;
    mqtt5_3_14_2_1_a_reason_of_disconnect: Five, [0xE0, 1, 0x8B] => 0x82;
    mqtt5_3_15_1_1_the_flags_of_auth: Five, [0xF1, 0] => 0x82;
    mqtt5_4_12_0_7_auth_without_a_method: Five, [0xF0, 2, 0x19, 0] => 0x82;
    mqtt5_4_13_2_1_an_error_closes: Five, [0xC0, 1, 0] => 0x81;
}

both! {
    mqtt311_3_12_4_1_a_ping_is_answered, mqtt5_3_12_4_1_a_ping_is_answered: |world, v| async move {
        let mut peer = world.connected(v).await;
        for _ in 0..3 {
            peer.asks(&PINGREQ, &PINGRESP).await;
        }
        peer.asks(&[PINGREQ, PINGREQ].concat(), &PINGRESP).await;
        peer.hears(&PINGRESP).await;
    };

    /// Nothing that comes after it is looked at.
    mqtt311_3_14_4_2_after_goodbye_nothing_is_read, mqtt5_3_14_4_1_after_goodbye_nothing_is_read: |world, v| async move {
        let mut peer = world.connected(v).await;
        let late = publish(v, 0x32, VITALS, Some(1), &world.seal(&world.device, 1));
        peer.send(&[&BYE[..], &late, &PINGREQ].concat()).await;
        assert_eq!(peer.packet().await, None);
        assert_eq!(world.rows().await, 0);
    };

    mqtt311_3_14_4_1_after_goodbye_the_connection_is_closed, mqtt5_3_14_4_2_after_goodbye_the_connection_is_closed: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.send(&BYE).await;
        assert_eq!(peer.packet().await, None, "without a DISCONNECT of ours");
    };

    mqtt311_4_6_0_2_acknowledgements_leave_in_order_of_arrival, mqtt5_4_6_0_2_acknowledgements_leave_in_order_of_arrival: |world, v| async move {
        let mut peer = world.connected(v).await;
        let mut all = Vec::new();
        for id in 1..=20_u16 {
            // Every third is refused early, the others take the whole way.
            let envelope = if id % 3 == 0 { b"x".to_vec() } else { world.seal(&world.device, id.into()) };
            all.extend(publish(v, 0x32, VITALS, Some(id), &envelope));
        }
        peer.send(&all).await;
        for id in 1..=20_u16 {
            assert_eq!(peer.packet().await.unwrap()[2..4], id.to_be_bytes());
        }
    };

    mqtt311_4_6_0_6_a_topic_keeps_its_order, mqtt5_4_6_0_5_a_topic_keeps_its_order: |world, v| async move {
        let (mut peer, _) = world.kept(v).await;
        peer.subscribes(DOWN, 1).await;
        let texts: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
        for text in &texts {
            world.tells(text).await;
        }
        // 32 are on their way at most; then on another connection the same again, and what follows.
        for (id, text) in (1..=32).zip(&texts) {
            peer.hears(&publish(v, 0x32, DOWN, Some(id), text.as_bytes())).await;
        }
        peer.hears_nothing().await;
        let (mut peer, _) = world.kept(v).await;
        for (id, text) in (1..=32).zip(&texts) {
            peer.hears(&publish(v, 0x3A, DOWN, Some(id), text.as_bytes())).await;
        }
        for id in 1..=32 {
            peer.send(&puback(id)).await;
        }
        for (id, text) in (33..).zip(&texts[32..]) {
            peer.hears(&publish(v, 0x32, DOWN, Some(id), text.as_bytes())).await;
        }
    };

    /// Not durable, so not acknowledged; the client comes again.
    mqtt311_4_8_0_2_a_transient_error_closes, mqtt5_4_13_2_1_a_transient_error_closes: |world, v| async move {
        world.audit.gate.send_replace(Gate::Broken);
        let mut peer = world.connected(v).await;
        peer.send(&publish(v, 0x32, VITALS, Some(1), b"no envelope")).await;
        peer.is_told(0x80).await;
        world.audit.gate.send_replace(Gate::Open);
        let mut peer = world.connected(v).await;
        assert_eq!(peer.publishes(0x32, 1, &world.seal(&world.device, 1)).await, puback(1));
    };
}

/// Every packet that only a server may send, and none that exists.
#[tokio::test]
async fn mqtt5_4_13_1_1_a_protocol_error_is_told_and_closes() {
    let world = World::new().await;
    for first in [0x20, 0x90, 0xB0, 0xD0] {
        world.is_refused(Five, &[first, 0], 0x82).await;
    }
    world.is_refused(Five, &[0x00, 0], 0x81).await;
}

/// The last thing that a v5 client hears is why.
#[tokio::test]
async fn mqtt5_3_14_2_2_our_disconnect_says_no_more_than_its_reason() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    world.shutdown.cancel();
    peer.hears(&packet(0xE0, &[&[0x8B, 0]])).await;
    assert_eq!(peer.packet().await, None);
}

/// Packets in one TLS record, and one packet in many.
#[tokio::test]
async fn mqtt5_4_2_0_1_a_stream_of_bytes() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    let envelope = publish(Five, 0x32, VITALS, Some(1), &world.seal(&world.device, 1));
    for bytes in envelope.chunks(7) {
        peer.send(bytes).await;
    }
    peer.hears(&puback(1)).await;
    peer.send(&[&PINGREQ[..], &envelope, &PINGREQ].concat())
        .await;
    peer.hears(&PINGRESP).await;
    let mut rest = [peer.packet().await.unwrap(), peer.packet().await.unwrap()];
    rest.sort_by_key(Vec::len); // a ping overtakes what is not durable yet
    assert_eq!(rest, [PINGRESP.to_vec(), puback(1)]);
}
