//! Delivery and its acknowledgements: 3.4 to 3.7, 4.3.

use crate::peer::{DOWN, Five, Four, VITALS, World, both, packet, puback, publish, refused};

/// PUBREL, whose flags are 0010.
fn pubrel(id: u8) -> [u8; 4] {
    [0x62, 2, 0, id]
}

fn pubrec(id: u8) -> [u8; 4] {
    [0x50, 2, 0, id]
}

fn pubcomp(id: u8) -> [u8; 4] {
    [0x70, 2, 0, id]
}

refused! {
    mqtt311_3_6_1_1_the_flags_of_pubrel: Four, [0x60, 2, 0, 1] => 0x81;
    mqtt5_3_6_1_1_the_flags_of_pubrel: Five, [0x60, 2, 0, 1] => 0x81;
    mqtt5_3_6_2_1_a_reason_of_pubrel: Five, [0x62, 3, 0, 1, 0x80] => 0x82;
    mqtt5_3_4_2_1_a_reason_of_puback: Five, [0x40, 3, 0, 1, 1] => 0x82;
    // Of a QoS that this server never sends at.
    mqtt5_3_5_2_1_a_pubrec_answers_nothing: Five, pubrec(1) => 0x82;
    mqtt5_3_7_2_1_a_pubcomp_answers_nothing: Five, pubcomp(1) => 0x82;
}

both! {
    mqtt311_4_3_1_1_qos_0_is_sent_once_without_dup, mqtt5_4_3_1_1_qos_0_is_sent_once_without_dup: |world, v| async move {
        let (mut peer, _) = world.kept(v).await;
        peer.subscribes(DOWN, 0).await;
        world.tells("a").await;
        peer.hears(&publish(v, 0x30, DOWN, None, b"a")).await;
        peer.hears_nothing().await; // what was written before is done
        let (mut peer, _) = world.kept(v).await;
        peer.hears_nothing().await;
    };

    mqtt311_4_3_2_1_qos_1_is_sent_until_acknowledged, mqtt5_4_3_2_3_qos_1_is_sent_until_acknowledged: |world, v| async move {
        let (mut peer, _) = world.kept(v).await;
        peer.subscribes(DOWN, 1).await;
        world.tells("a").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
        for _ in 0..3 {
            (peer, _) = world.kept(v).await;
            peer.hears(&publish(v, 0x3A, DOWN, Some(1), b"a")).await;
        }
        peer.send(&puback(1)).await;
        peer.hears_nothing().await;
        (peer, _) = world.kept(v).await;
        peer.hears_nothing().await;
    };

    /// The same identifier again is a new publication: the same envelope is a duplicate, and another one is stored.
    mqtt311_4_3_2_2_after_puback_the_identifier_is_free, mqtt5_4_3_2_5_after_puback_the_identifier_is_free: |world, v| async move {
        let mut peer = world.connected(v).await;
        let [first, second] = [1, 2].map(|sequence| world.seal(&world.device, sequence));
        for envelope in [&first, &first, &second] {
            for first in [0x32, 0x3A] {
                assert_eq!(peer.publishes(first, 7, envelope).await, puback(7));
            }
        }
        assert_eq!((world.rows().await, world.metrics.duplicates()), (2, 4));
    };

    mqtt311_4_3_3_2_qos_2_is_taken_once, mqtt5_4_3_3_10_qos_2_is_taken_once: |world, v| async move {
        let mut peer = world.connected(v).await;
        let envelope = world.seal(&world.device, 1);
        for first in [0x34, 0x3C, 0x3C] {
            assert_eq!(peer.publishes(first, 7, &envelope).await, pubrec(7));
        }
        assert_eq!((world.rows().await, world.metrics.duplicates()), (1, 2));
        peer.asks(&pubrel(7), &pubcomp(7)).await;
        // Now it is free.
        assert_eq!(peer.publishes(0x34, 7, &world.seal(&world.device, 2)).await, pubrec(7));
        assert_eq!(world.rows().await, 2);
    };
}

#[tokio::test]
async fn mqtt5_4_3_2_1_an_identifier_for_each_message() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    peer.subscribes(DOWN, 1).await;
    for (id, text) in [(1, "a"), (2, "b")] {
        world.tells(text).await;
        peer.hears(&publish(Five, 0x32, DOWN, Some(id), text.as_bytes()))
            .await;
        peer.send(&puback(id)).await;
    }
}

#[tokio::test]
async fn mqtt5_4_3_2_2_the_first_time_without_dup() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    world.tells("a").await; // it waited, and was not sent
    peer.subscribes(DOWN, 2).await;
    peer.hears(&publish(Five, 0x32, DOWN, Some(1), b"a")).await;
}

#[tokio::test]
async fn mqtt5_4_3_2_4_qos_1_is_answered_when_it_is_durable() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    assert_eq!(
        peer.publishes(0x32, 7, &world.seal(&world.device, 1)).await,
        puback(7)
    );
    assert!(world.is_stored(&world.device, 1).await);
}

#[tokio::test]
async fn mqtt5_4_3_3_8_qos_2_is_answered_when_it_is_durable() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    assert_eq!(
        peer.publishes(0x34, 7, &world.seal(&world.device, 1)).await,
        pubrec(7)
    );
    assert!(world.is_stored(&world.device, 1).await);
}

/// Refused, with a code: the identifier is free at once.
#[tokio::test]
async fn mqtt5_4_3_3_9_after_a_refusal_the_identifier_is_free() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    assert_eq!(
        peer.publishes(0x34, 7, b"no envelope").await,
        [0x50, 3, 0, 7, 0x99]
    );
    assert_eq!(
        peer.publishes(0x34, 7, &world.seal(&world.device, 1)).await,
        pubrec(7)
    );
    assert_eq!(world.rows().await, 1);
}

#[tokio::test]
async fn mqtt5_4_3_3_11_pubrel_is_answered_also_when_it_is_not_known() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    peer.asks(&pubrel(9), &[0x70, 3, 0, 9, 0x92]).await;
    peer.asks(&[0x62, 4, 0, 9, 0x92, 0], &[0x70, 3, 0, 9, 0x92])
        .await;
}

#[tokio::test]
async fn mqtt5_4_3_3_12_after_pubcomp_the_identifier_is_free() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    for sequence in [1, 2] {
        let envelope = world.seal(&world.device, sequence);
        assert_eq!(peer.publishes(0x34, 7, &envelope).await, pubrec(7));
        peer.asks(&pubrel(7), &pubcomp(7)).await;
    }
    assert_eq!(world.rows().await, 2);
}

/// The client has had enough of it: it does not come again.
#[tokio::test]
async fn mqtt5_4_4_0_2_a_refusal_counts_as_an_acknowledgement() {
    let world = World::new().await;
    let (mut peer, _) = world.kept(Five).await;
    peer.subscribes(DOWN, 1).await;
    world.tells("a").await;
    peer.hears(&publish(Five, 0x32, DOWN, Some(1), b"a")).await;
    peer.send(&[0x40, 4, 0, 1, 0x83, 0]).await;
    peer.hears_nothing().await;
    let (mut peer, _) = world.kept(Five).await;
    peer.hears_nothing().await;
}

/// Not a statement with a number: whoever acknowledges what was not sent is not listened to, and stays.
#[tokio::test]
async fn an_acknowledgement_of_nothing_is_passed_over() {
    for v in [Four, Five] {
        let world = World::new().await;
        let mut peer = world.connected(v).await;
        peer.send(&puback(99)).await;
        peer.hears_nothing().await;
        let release = packet(0x62, &[&[0, 5]]);
        peer.send(&publish(
            v,
            0x34,
            VITALS,
            Some(5),
            &world.seal(&world.device, 1),
        ))
        .await;
        peer.hears(&pubrec(5)).await;
        peer.asks(&release, &pubcomp(5)).await;
    }
}
