//! Clean Start, session present, expiry, and what is redelivered: 3.1.2.4, 3.2.2.1, 4.1, 4.4.

use std::time::Duration;

use tokio::time::timeout;

use crate::peer::{
    BYE, CLEAN, DOWN, Five, Four, KEPT, Peer, RECIPIENT, V, World, both, connect_as, puback,
    publish, text,
};
use crate::raw::Raw;
use crate::rig::PATIENCE;

/// A kept session that hears [`DOWN`] at QoS 1, left with a DISCONNECT.
async fn left(world: &World, v: V) {
    let (mut peer, _) = world.kept(v).await;
    peer.subscribes(DOWN, 1).await;
    peer.send(&BYE).await;
    assert_eq!(peer.packet().await, None);
}

both! {
    mqtt311_3_1_2_4_a_session_goes_on, mqtt5_3_1_2_5_a_session_goes_on: |world, v| async move {
        left(&world, v).await;
        let (mut peer, present) = world.kept(v).await;
        assert!(present);
        world.tells("a").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
    };

    mqtt311_3_1_2_5_what_comes_meanwhile_is_kept, mqtt5_4_5_0_1_what_comes_meanwhile_is_kept: |world, v| async move {
        left(&world, v).await;
        world.tells("a").await;
        world.tells("b").await;
        let (mut peer, _) = world.kept(v).await;
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
        peer.hears(&publish(v, 0x32, DOWN, Some(2), b"b")).await;
    };

    mqtt311_3_1_2_6_a_clean_session_forgets_and_is_forgotten, mqtt5_3_1_2_4_a_clean_start_forgets: |world, v| async move {
        left(&world, v).await;
        let mut peer = world.connected(v).await; // asserts that no session is present
        world.tells("a").await;
        peer.hears_nothing().await;
        drop(peer);
        assert!(!world.kept(v).await.1, "and it left none");
    };

    mqtt311_3_2_2_3_without_a_session_none_is_present, mqtt5_3_1_2_6_without_a_session_a_new_one_begins: |world, v| async move {
        assert!(!world.kept(v).await.1);
        assert!(world.kept(v).await.1);
    };

    mqtt311_3_2_2_1_a_clean_session_is_not_present, mqtt5_3_2_2_2_a_clean_start_is_not_present: |world, v| async move {
        left(&world, v).await;
        let (_, connack) = world.connects(v, CLEAN, &[], &[]).await;
        assert_eq!(connack[2], 0);
    };

    mqtt311_3_2_2_2_a_kept_session_is_present, mqtt5_3_2_2_3_a_kept_session_is_present: |world, v| async move {
        left(&world, v).await;
        let (_, connack) = world.connects(v, 0, &KEPT, &[]).await;
        assert_eq!(connack[2], 1);
    };

    mqtt311_3_1_3_2_the_client_identifier_names_the_session, mqtt5_3_1_3_2_the_client_identifier_names_the_session: |world, v| async move {
        left(&world, v).await;
        let other = world.device("mon-2").await;
        let mut peer = Peer::over(Raw::tls(&world, &other).await.unwrap());
        peer.send(&connect_as(v, 0, &KEPT, &text("mon-2"))).await;
        assert_eq!(peer.packet().await.unwrap()[2], 0);
        assert!(world.kept(v).await.1);
    };

    mqtt311_3_3_1_1_dup_on_what_is_sent_again, mqtt5_3_3_1_1_dup_on_what_is_sent_again: |world, v| async move {
        let (mut peer, _) = world.kept(v).await;
        peer.subscribes(DOWN, 1).await;
        world.tells("a").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
        let (mut peer, _) = world.kept(v).await;
        peer.hears(&publish(v, 0x3A, DOWN, Some(1), b"a")).await;
    };

    mqtt311_4_4_0_1_what_is_unacknowledged_comes_again_and_only_then, mqtt5_4_4_0_1_what_is_unacknowledged_comes_again_and_only_then: |world, v| async move {
        let (mut peer, _) = world.kept(v).await;
        peer.subscribes(DOWN, 1).await;
        for (id, text) in [(1, "a"), (2, "b"), (3, "c")] {
            world.tells(text).await;
            peer.hears(&publish(v, 0x32, DOWN, Some(id), text.as_bytes())).await;
        }
        peer.send(&puback(2)).await;
        peer.hears_nothing().await;
        for _ in 0..2 {
            let (mut peer, _) = world.kept(v).await;
            peer.hears(&publish(v, 0x3A, DOWN, Some(1), b"a")).await;
            peer.hears(&publish(v, 0x3A, DOWN, Some(3), b"c")).await;
            peer.hears_nothing().await;
        }
    };

    mqtt311_4_1_0_1_a_session_lasts_through_its_connection, mqtt5_4_1_0_1_a_session_lasts_through_its_connection: |world, v| async move {
        // It ends with the connection, so while that stands it is all there is of it.
        let mut peer = world.connected(v).await;
        peer.subscribes(DOWN, 1).await;
        world.tells("a").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(1), b"a")).await;
        peer.send(&puback(1)).await;
        peer.hears_nothing().await;
        world.tells("b").await;
        peer.hears(&publish(v, 0x32, DOWN, Some(2), b"b")).await;
    };
}

/// Nothing of a session is the retained certificate.
#[tokio::test]
async fn mqtt311_3_1_2_7_retained_messages_outlive_sessions() {
    let world = World::new().await;
    let mut first = world.connected(Four).await;
    first.subscribes(RECIPIENT, 0).await;
    let certificate = first.packet().await.unwrap();
    first.send(&BYE).await;
    assert_eq!(first.packet().await, None);
    let mut second = world.connected(Four).await;
    second.subscribes(RECIPIENT, 0).await;
    second.hears(&certificate).await;
}

#[tokio::test]
async fn mqtt5_3_1_2_23_a_session_is_kept_if_its_expiry_is_not_zero() {
    let world = World::new().await;
    world.connects(Five, 0, &[], &[]).await;
    assert!(!world.kept(Five).await.1, "absent is 0");
    assert!(world.kept(Five).await.1);
}

/// An expiry of 1 s; without a DISCONNECT, with one, and with one that shortens it.
#[tokio::test]
async fn mqtt5_4_1_0_2_a_session_is_gone_when_it_has_expired() {
    let world = World::new().await;
    let second = [0x11, 0, 0, 0, 1];
    for (expiry, goodbye) in [
        (&second, &[][..]),
        (&second, &BYE),
        (&KEPT, &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1]),
    ] {
        let (mut peer, _) = world.connects(Five, CLEAN, expiry, &[]).await;
        peer.send(goodbye).await;
        drop(peer);
        // A slow machine may notice the end late, and then finds the session: it is left again.
        let is_gone = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                let (_, connack) = world.connects(Five, 0, &second, &[]).await;
                if connack[2] == 0 {
                    break;
                }
            }
        };
        let waited = timeout(PATIENCE, is_gone).await;
        assert!(waited.is_ok(), "{goodbye:02x?}");
    }
}

/// Not a statement with a number (3.2.2.3.2): "never" is a week here, and the client is told.
#[tokio::test]
async fn a_session_is_kept_for_a_week_at_most() {
    let world = World::new().await;
    let never = [0x11, 0xFF, 0xFF, 0xFF, 0xFF];
    let (_, connack) = world.connects(Five, CLEAN, &never, &[]).await;
    assert_eq!(connack[5..10], [0x11, 0, 9, 0x3A, 0x80]);
}

/// A session that ends with its connection cannot be prolonged when it ends (3.14.2.2.2).
#[tokio::test]
async fn mqtt5_3_14_2_2_an_expiry_of_zero_stays_zero() {
    let goodbye = [0xE0, 7, 0, 5, 0x11, 0, 0, 0, 60];
    World::new().await.is_refused(Five, &goodbye, 0x82).await;
}
