//! Wills: 3.1.2.5 to 3.1.2.7, 3.1.3.2 to 3.1.3.4. A will is an envelope like any other, so it is found in the inbox.

use crate::peer::{
    BYE, CLEAN, Five, Four, KEPT, Peer, V, VITALS, WILL, World, both, connect, cut, rows, text,
    will,
};

const QOS_1: u8 = 0x08;
const QOS_3: u8 = 0x18;
const RETAIN: u8 = 0x20;

/// v5: a will delay.
const AN_HOUR: [u8; 5] = [0x18, 0, 0, 0x0E, 0x10];

/// Connected, and leaves an envelope of this sequence as a will.
async fn willed(world: &World, v: V, flags: u8, delay: &[u8], sequence: u64) -> Peer {
    let envelope = world.seal(&world.device, sequence);
    let rest = will(v, delay, VITALS, &envelope);
    let (peer, connack) = world.connects(v, flags | WILL, &KEPT, &rest).await;
    assert_eq!(connack[3], 0, "accepted");
    peer
}

both! {
    mqtt311_3_1_2_8_a_will_is_published_when_the_connection_is_lost, mqtt5_3_1_2_8_a_will_is_published_when_the_connection_is_lost: |world, v| async move {
        for (sequence, qos) in [(1, 0), (2, QOS_1), (3, 0x10)] {
            drop(willed(&world, v, CLEAN | qos, &[], sequence).await);
            rows(&world, sequence).await;
        }
        assert_eq!(world.metrics.wills(), 3);
    };

    /// However it ends: a protocol error, silence, a takeover, the server's own end.
    mqtt311_4_8_0_1_a_will_is_published_after_a_protocol_violation, mqtt5_3_1_2_7_a_will_is_kept_for_every_end_without_goodbye: |world, v| async move {
        let mut peer = willed(&world, v, CLEAN, &[], 1).await;
        peer.send(&[0x80, 0]).await;
        peer.is_told(0x81).await;
        rows(&world, 1).await;

        let mut silent = willed(&world, v, CLEAN, &[], 2).await;
        let taken_over = willed(&world, v, CLEAN, &[], 3).await;
        silent.is_told(0x8E).await;
        rows(&world, 2).await;

        world.shutdown.cancel();
        rows(&world, 3).await;
        drop(taken_over);
    };

    mqtt311_3_1_2_10_a_will_is_published_once, mqtt5_3_1_2_10_a_will_is_published_once: |mut world, v| async move {
        drop(willed(&world, v, 0, &[], 1).await);
        rows(&world, 1).await;
        let (mut peer, present) = world.kept(v).await;
        assert!(present);
        peer.send(&[0x80, 0]).await;
        peer.is_told(0x81).await;
        world.connected(v).await;
        world.stop().await;
        assert_eq!((world.rows().await, world.metrics.wills(), world.metrics.duplicates()), (1, 1, 0));
    };

    mqtt311_3_14_4_3_goodbye_discards_the_will, mqtt5_3_14_4_3_goodbye_discards_the_will: |mut world, v| async move {
        let mut peer = willed(&world, v, CLEAN, &[], 1).await;
        peer.send(&BYE).await;
        assert_eq!(peer.packet().await, None);
        world.stop().await;
        assert_eq!((world.rows().await, world.metrics.wills()), (0, 0));
    };

    mqtt311_3_1_2_12_no_will_none_published, mqtt5_3_1_2_9_a_will_is_that_of_this_connection: |mut world, v| async move {
        let mut peer = willed(&world, v, 0, &[], 1).await;
        peer.send(&BYE).await;
        assert_eq!(peer.packet().await, None);
        let (peer, _) = world.kept(v).await;
        drop(peer);
        world.connected(v).await;
        world.stop().await;
        assert_eq!((world.rows().await, world.metrics.wills()), (0, 0));
    };

    /// Accepted when a PUBLISH of it would be, and refused as that one would be.
    mqtt311_3_1_2_17_a_will_that_may_not_be_published_is_refused, mqtt5_3_1_2_15_a_will_that_may_not_be_published_is_refused: |world, v| async move {
        let refused = if v == Five { 0x87 } else { 5 };
        for (flags, topic) in [(RETAIN, VITALS), (0, "v1/d/mon-2/vitals"), (0, "v1/recipient"), (RETAIN, "v1/recipient")] {
            let rest = will(v, &[], topic, b"x");
            let (mut peer, connack) = world.connects(v, CLEAN | WILL | flags, &[], &rest).await;
            assert_eq!(connack[2..4], [0, refused], "{topic}");
            assert_eq!(peer.packet().await, None);
        }
        assert_eq!(world.metrics.wills(), 0);
    };

    /// Nothing else than an envelope gets further than the quarantine, not even as a last word.
    mqtt311_3_1_2_16_a_will_goes_where_a_publish_goes, mqtt5_3_1_2_14_a_will_goes_where_a_publish_goes: |world, v| async move {
        let rest = will(v, &[], VITALS, b"no envelope");
        drop(world.connects(v, CLEAN | WILL, &[], &rest).await);
        drop(willed(&world, v, CLEAN, &[], 1).await);
        rows(&world, 1).await;
        assert_eq!(world.audit.quarantined().len(), 1);
    };
}

cut! {
    mqtt311_3_1_2_9_a_will_has_its_fields: connect(Four, CLEAN | WILL, &[], &[]);
    mqtt311_3_1_2_9_a_will_has_a_message: connect(Four, CLEAN | WILL, &[], &text(VITALS));
    mqtt5_3_1_2_9_a_will_has_its_fields: connect(Five, CLEAN | WILL, &[], &[0]);
    mqtt311_3_1_2_11_no_will_no_fields: connect(Four, CLEAN, &[], &will(Four, &[], VITALS, b"x"));
    mqtt311_3_1_2_13_no_will_no_qos: connect(Four, CLEAN | QOS_1, &[], &[]);
    mqtt5_3_1_2_11_no_will_no_qos: connect(Five, CLEAN | QOS_1, &[], &[]);
    mqtt311_3_1_2_14_no_will_at_qos_3: connect(Four, CLEAN | WILL | QOS_3, &[], &will(Four, &[], VITALS, b"x"));
    mqtt5_3_1_2_12_no_will_at_qos_3: connect(Five, CLEAN | WILL | QOS_3, &[], &will(Five, &[], VITALS, b"x"));
    mqtt311_3_1_2_15_no_will_no_retain: connect(Four, CLEAN | RETAIN, &[], &[]);
    mqtt5_3_1_2_13_no_will_no_retain: connect(Five, CLEAN | RETAIN, &[], &[]);
    mqtt311_3_1_3_10_a_will_topic_is_utf8:
        connect(Four, CLEAN | WILL, &[], &[text(b"\xFF"), text("x")].concat());
    mqtt5_3_1_3_11_a_will_topic_is_utf8:
        connect(Five, CLEAN | WILL, &[], &[vec![0], text(b"\xFF"), text("x")].concat());
}

/// 0x04 is a goodbye after which the will is published.
#[tokio::test]
async fn mqtt5_3_14_2_1_disconnect_with_will_message() {
    let world = World::new().await;
    let mut peer = willed(&world, Five, CLEAN, &[], 1).await;
    peer.send(&[0xE0, 1, 4]).await;
    assert_eq!(peer.packet().await, None);
    rows(&world, 1).await;
}

/// Back in time, in the same session: it is forgotten, so that not even the end of that session brings it back.
#[tokio::test]
async fn mqtt5_3_1_3_9_whoever_is_back_in_time_has_no_will() {
    let world = World::new().await;
    drop(willed(&world, Five, CLEAN, &AN_HOUR, 1).await);
    let (peer, present) = world.kept(Five).await;
    assert!(present);
    drop(peer);
    drop(willed(&world, Five, CLEAN, &[], 2).await);
    rows(&world, 1).await;
    assert!(world.is_stored(&world.device, 2).await);
    assert_eq!(world.metrics.wills(), 1);
}

/// Not a statement with a number (3.1.3.2.2): at the delay, or when the session ends, whichever is first. An hour is not
/// waited for here, so a session's end is what publishes it: its own expiry, and a Clean Start.
#[tokio::test]
async fn a_will_waits_for_its_delay_or_for_the_end_of_its_session() {
    let world = World::new().await;
    let a_second = [0x18, 0, 0, 0, 1];
    drop(willed(&world, Five, CLEAN, &a_second, 1).await);
    rows(&world, 1).await;

    drop(willed(&world, Five, CLEAN, &AN_HOUR, 2).await);
    world.connected(Five).await;
    rows(&world, 2).await;

    let rest = will(Five, &AN_HOUR, VITALS, &world.seal(&world.device, 3));
    drop(world.connects(Five, CLEAN | WILL, &[], &rest).await); // a session of no length
    rows(&world, 3).await;
}

/// Revoked while it waits, and revoked while connected.
#[tokio::test]
async fn whoever_is_revoked_has_no_last_word() {
    use vitalseal_storage::{Clock, SystemClock};
    let mut world = World::new().await;
    let mut peer = willed(&world, Five, CLEAN, &[], 1).await;
    let registry = &world.store.registry;
    let now = SystemClock.now();
    registry
        .revoke_device(&world.device.id, "lost", now)
        .await
        .unwrap();
    peer.is_told(0x98).await;
    world.stop().await;
    assert_eq!((world.rows().await, world.metrics.wills()), (0, 0));
}
