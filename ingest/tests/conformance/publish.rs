//! 3.3 PUBLISH, both ways.

use vitalseal_ingest::{Alert, EdgeLimits};
use vitalseal_storage::{Clock, SystemClock, Ward, Wards};

use crate::peer::{
    BYE, CLEAN, DOWN, Five, Four, Peer, RECIPIENT, V, VITALS, World, both, connect_as, packet,
    puback, publish, refused, rows, suback, subscribe, text, unsubscribe,
};
use crate::raw::{Raw, connect_tls};
use crate::rig::Gate;

/// A v5 PUBLISH at QoS 0 on [`VITALS`] with these properties.
fn with(properties: &[u8]) -> Vec<u8> {
    let len = [u8::try_from(properties.len()).unwrap()];
    packet(0x30, &[&text(VITALS), &len, properties, b"x"])
}

refused! {
    mqtt311_3_3_1_2_no_dup_at_qos_0: Four, publish(Four, 0x38, VITALS, None, b"x") => 0x81;
    mqtt5_3_3_1_2_no_dup_at_qos_0: Five, publish(Five, 0x38, VITALS, None, b"x") => 0x81;
    mqtt311_3_3_1_4_no_qos_3: Four, publish(Four, 0x36, VITALS, Some(1), b"x") => 0x81;
    mqtt5_3_3_1_4_no_qos_3: Five, publish(Five, 0x36, VITALS, Some(1), b"x") => 0x81;
    mqtt311_3_3_2_1_the_topic_is_there: Four, [0x30, 3, 0, 9, b'a'] => 0x81;
    mqtt5_3_3_2_1_the_topic_is_there: Five, [0x30, 3, 0, 9, b'a'] => 0x81;
    mqtt311_3_3_2_2_no_wildcard_in_a_topic: Four, publish(Four, 0x30, "v1/d/+/vitals", None, b"x") => 0x81;
    mqtt5_3_3_2_2_no_wildcard_in_a_topic: Five, publish(Five, 0x30, "v1/#", None, b"x") => 0x81;
    mqtt5_3_3_2_7_a_topic_alias_names_nothing: Five, [0x30, 6, 0, 0, 3, 0x23, 0, 1] => 0x94;
    mqtt5_3_3_2_8_a_topic_alias_of_zero: Five, with(&[0x23, 0, 0]) => 0x94;
    mqtt5_3_2_2_17_a_topic_alias_is_one_too_many: Five, with(&[0x23, 0, 1]) => 0x94;
    mqtt5_3_3_2_13_a_response_topic_is_utf8: Five, with(&[8, 0, 1, 0xFF]) => 0x81;
    mqtt5_3_3_2_14_no_wildcard_in_a_response_topic: Five, with(&[8, 0, 1, b'#']) => 0x81;
    mqtt5_3_3_2_19_a_content_type_is_utf8: Five, with(&[3, 0, 1, 0xFF]) => 0x81;
    mqtt5_3_3_4_6_no_subscription_identifier_from_a_client: Five, with(&[0x0B, 1]) => 0x81;
    mqtt5_3_2_2_15_no_packet_is_larger_than_offered: Five, [0x32, 0xFF, 0xFF, 0xFF, 0x7F] => 0x95;
}

both! {
    /// Refused, which leaves every topic with the retained message that it had.
    mqtt311_3_3_1_5_a_client_retains_nothing, mqtt5_3_3_1_5_a_client_retains_nothing: |world, v| async move {
        for (topic, payload) in [(VITALS, &b"x"[..]), (RECIPIENT, b"x"), (RECIPIENT, b"")] {
            let mut peer = world.connected(v).await;
            peer.send(&publish(v, 0x33, topic, Some(1), payload)).await;
            match v {
                Five => peer.hears(&[0x40, 3, 0, 1, 0x87]).await,
                Four => peer.is_told(0x87).await,
            }
            world.is_refused(v, &publish(v, 0x31, topic, None, payload), 0x87).await;
        }
        let mut peer = world.connected(v).await;
        peer.subscribes(RECIPIENT, 0).await;
        let pem = world.recipient.to_pem();
        peer.hears(&publish(v, 0x31, RECIPIENT, None, pem.as_bytes())).await;
    };

    mqtt311_3_3_1_12_what_is_not_retained_changes_nothing, mqtt5_3_3_1_8_what_is_not_retained_changes_nothing: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.publishes(0x32, 1, &world.seal(&world.device, 1)).await;
        peer.asks(&subscribe(v, 2, &[(VITALS, 0)]), &suback(v, 2, &[if v == Five { 0x87 } else { 0x80 }])).await;
        peer.subscribes(RECIPIENT, 0).await;
        assert_eq!(peer.packet().await.unwrap()[0], 0x31);
        peer.hears_nothing().await;
    };

    mqtt311_3_3_1_6_a_subscription_brings_the_retained_message, mqtt5_3_3_1_9_a_subscription_brings_the_retained_message: |world, v| async move {
        let mut peer = world.connected(v).await;
        for _ in 0..2 {
            peer.subscribes(RECIPIENT, 0).await;
            assert_eq!(peer.packet().await.unwrap()[0], 0x31);
        }
    };

    mqtt311_3_3_1_8_retain_on_what_answers_a_subscription, mqtt5_3_3_1_12_retain_as_published_0: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.subscribes(RECIPIENT, 1).await;
        let first = peer.packet().await.unwrap();
        assert_eq!(first[0], 0x33);
        peer.send(&puback(1)).await;
        world.recipient_pem.send_replace("next".into());
        peer.hears(&publish(v, 0x32, RECIPIENT, Some(2), b"next")).await;
    };

    mqtt311_3_3_2_3_the_topic_is_one_that_was_subscribed_to, mqtt5_3_3_2_3_the_topic_is_one_that_was_subscribed_to: |world, v| async move {
        let mut peer = world.connected(v).await;
        world.tells("a").await; // on a topic that is not subscribed to
        peer.subscribes(RECIPIENT, 0).await;
        let packet = peer.packet().await.unwrap();
        let at = packet.windows(RECIPIENT.len()).position(|window| window == RECIPIENT.as_bytes());
        assert!(at.is_some_and(|at| at < 8), "{packet:02x?}");
        peer.hears_nothing().await;
    };

    mqtt311_3_3_4_1_each_qos_has_its_answer, mqtt5_3_3_4_1_each_qos_has_its_answer: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.send(&publish(v, 0x30, VITALS, None, &world.seal(&world.device, 1))).await;
        assert_eq!(peer.publishes(0x32, 1, &world.seal(&world.device, 2)).await[0], 0x40);
        assert_eq!(peer.publishes(0x34, 2, &world.seal(&world.device, 3)).await[0], 0x50);
        rows(&world, 3).await;
        peer.hears_nothing().await;
    };

    mqtt311_3_3_5_2_what_is_not_authorized_ends_it_or_is_told, mqtt5_3_4_2_1_what_is_not_authorized_is_told: |world, v| async move {
        let mut peer = world.connected(v).await;
        peer.send(&publish(v, 0x32, "v1/d/mon-2/vitals", Some(1), b"x")).await;
        match v {
            Five => peer.hears(&[0x40, 3, 0, 1, 0x87]).await,
            Four => peer.is_told(0x87).await,
        }
        // At QoS 0 neither version has a word for it.
        world.is_refused(v, &publish(v, 0x30, "v1/d/mon-2/vitals", None, b"x"), 0x87).await;
    };
}

#[tokio::test]
async fn mqtt311_3_3_1_9_no_retain_on_what_comes_later() {
    let world = World::new().await;
    let mut peer = world.connected(Four).await;
    peer.subscribes(RECIPIENT, 0).await;
    assert_eq!(peer.packet().await.unwrap()[0], 0x31);
    world.recipient_pem.send_replace("next".into());
    peer.hears(&publish(Four, 0x30, RECIPIENT, None, b"next"))
        .await;
}

#[tokio::test]
async fn mqtt5_3_3_1_10_retain_handling_1_only_for_a_new_subscription() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    peer.subscribes(RECIPIENT, 0x10).await;
    assert_eq!(peer.packet().await.unwrap()[0], 0x31);
    peer.subscribes(RECIPIENT, 0x10).await;
    peer.hears_nothing().await;
    peer.send(&unsubscribe(Five, 3, &[RECIPIENT])).await;
    peer.packet().await.unwrap();
    peer.subscribes(RECIPIENT, 0x10).await;
    assert_eq!(peer.packet().await.unwrap()[0], 0x31);
}

#[tokio::test]
async fn mqtt5_3_3_1_11_retain_handling_2_never() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    peer.subscribes(RECIPIENT, 0x20).await;
    peer.hears_nothing().await;
}

/// What this server publishes there is retained, and says so if it was asked to.
#[tokio::test]
async fn mqtt5_3_3_1_13_retain_as_published_1() {
    let world = World::new().await;
    let mut peer = world.connected(Five).await;
    peer.subscribes(RECIPIENT, 0x28).await;
    world.recipient_pem.send_replace("next".into());
    peer.hears(&publish(Five, 0x31, RECIPIENT, None, b"next"))
        .await;
}

/// A service hears one ward at QoS 0 and every ward at QoS 1.
async fn overlapping(v: V) {
    let world = World::new().await;
    let tls = world.subscriber("service:nurse-call", Wards::All).await;
    let mut peer = Peer::over(Raw::over(connect_tls(world.addr, &tls).await.unwrap()));
    peer.v = v;
    peer.send(&connect_as(v, CLEAN, &[], &text("service:nurse-call")))
        .await;
    assert_eq!(peer.packet().await.unwrap()[3], 0);
    let system = format!("v1/alerts/{}", Ward::system());
    peer.subscribes(&system, 0).await;
    peer.subscribes("v1/alerts/+", 1).await;
    world.alerts.raise(Alert::Test, SystemClock.now());
    let alert = peer.packet().await.unwrap();
    assert_eq!(alert[0], 0x32, "QoS 1");
    peer.hears_nothing().await; // and one copy
}

#[tokio::test]
async fn mqtt311_3_3_5_1_overlapping_subscriptions_get_the_highest_qos() {
    overlapping(Four).await;
}

#[tokio::test]
async fn mqtt5_3_3_4_2_overlapping_subscriptions_get_the_highest_qos() {
    overlapping(Five).await;
}

/// Two that are not durable yet are all that was offered.
#[tokio::test]
async fn mqtt5_3_3_4_7_the_clients_are_held_to_the_receive_maximum() {
    let limits = EdgeLimits {
        receive_maximum: 2,
        ..EdgeLimits::default()
    };
    let world = World::with_limits(limits).await;
    world.audit.gate.send_replace(Gate::Held);
    let (mut peer, _) = world.connects(Five, CLEAN, &[], &[]).await;
    peer.v = Five;
    for (id, first) in [(1, 0x32), (2, 0x34), (3, 0x32)] {
        peer.send(&publish(Five, first, VITALS, Some(id), b"no envelope"))
            .await;
    }
    peer.is_told(0x93).await;
}

#[tokio::test]
async fn mqtt5_3_3_4_9_no_more_is_sent_than_the_client_takes() {
    let world = World::new().await;
    let (mut peer, _) = world.connects(Five, CLEAN, &[0x21, 0, 2], &[]).await;
    peer.v = Five;
    peer.subscribes(DOWN, 1).await;
    for text in ["a", "b", "c", "d"] {
        world.tells(text).await;
    }
    peer.hears(&publish(Five, 0x32, DOWN, Some(1), b"a")).await;
    peer.hears(&publish(Five, 0x32, DOWN, Some(2), b"b")).await;
    peer.hears_nothing().await;
    peer.send(&puback(2)).await;
    peer.hears(&publish(Five, 0x32, DOWN, Some(3), b"c")).await;
    // A refusal by the client counts as well (4.9).
    peer.send(&[0x40, 3, 0, 1, 0x80]).await;
    peer.hears(&publish(Five, 0x32, DOWN, Some(4), b"d")).await;
}

/// Its window is full, and everything but a PUBLISH is answered.
#[tokio::test]
async fn mqtt5_3_3_4_10_a_full_window_holds_up_nothing_else() {
    let world = World::new().await;
    let (mut peer, _) = world.connects(Five, CLEAN, &[0x21, 0, 1], &[]).await;
    peer.v = Five;
    peer.subscribes(DOWN, 1).await;
    world.tells("a").await;
    world.tells("b").await;
    peer.hears(&publish(Five, 0x32, DOWN, Some(1), b"a")).await;
    peer.hears_nothing().await;
    peer.subscribes("v1/notices", 1).await;
    let pubrec = peer.publishes(0x34, 9, &world.seal(&world.device, 1)).await;
    assert_eq!(pubrec, [0x50, 2, 0, 9]);
    peer.asks(&[0x62, 2, 0, 9], &[0x70, 2, 0, 9]).await;
    peer.send(&BYE).await;
    assert_eq!(peer.packet().await, None);
}
