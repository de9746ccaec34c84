//! What is ordinary, and what ends in the middle.

use std::time::Duration;

use vitalseal_crypto::Agreement;
use vitalseal_ingest::Alert;
use vitalseal_storage::QuarantineReason;

use crate::rig::{Gate, eventually};
use crate::site::Site;

#[tokio::test]
async fn what_devices_publish_is_stored_once_and_leaves_the_cluster() {
    let site = Site::start().await;
    let consuming = site.consume().await;
    let mut messages = Vec::new();
    let mut devices = Vec::new();
    for name in ["mon-1", "mon-2", "mon-3"] {
        let device = site.rig.device(name).await;
        let mut previous = None;
        for sequence in 1..=100 {
            let link = site
                .rig
                .seal_link(&device, sequence, previous, Agreement::Ephemeral);
            previous = Some(link.signed_hash);
            // Retained or not, and sent twice or not, is all the same.
            for _ in 0..=sequence % 2 {
                messages.push((device.vitals(), link.bytes.clone(), sequence % 3 == 0));
            }
        }
        devices.push(device);
    }
    let published = u64::try_from(messages.len()).unwrap();
    site.publish(messages).await;
    consuming.acked(published).await;
    let metrics = &consuming.metrics;
    assert_eq!((metrics.received(), metrics.redelivered()), (450, 0));
    assert_eq!((metrics.duplicates(), metrics.quarantined()), (150, 0));
    assert_eq!(site.rig.rows().await, 300);
    for device in &devices {
        assert!(site.rig.is_stored(device, 100).await);
    }
    consuming.stop().await;
    // It left the cluster: the next ones are sent nothing.
    let again = site.consume().await;
    site.publish(vec![(
        devices[0].vitals(),
        site.rig.seal(&devices[0], 101),
        false,
    )])
    .await;
    again.acked(1).await;
    assert_eq!(again.metrics.received(), 1);
}

#[tokio::test]
async fn what_comes_in_order_is_admitted_in_order() {
    let site = Site::start().await;
    let device = site.rig.device("mon-1").await;
    let consuming = site.consume_with(|settings| settings.consumers = 1);
    eventually("it is connected", || consuming.metrics.connected() == 1).await;
    let mut previous = None;
    let mut chain = Vec::new();
    for sequence in 1..=200 {
        let link = site
            .rig
            .seal_link(&device, sequence, previous, Agreement::Ephemeral);
        previous = Some(link.signed_hash);
        chain.push((device.vitals(), link.bytes, false));
    }
    site.publish(chain).await;
    consuming.acked(200).await;
    assert_eq!(consuming.metrics.chain_gaps(), 0);
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable_and_after_a_crash_it_comes_again() {
    let site = Site::start().await;
    let device = site.rig.device("mon-1").await;
    let consuming = site.consume().await;
    site.rig.audit.gate.send_replace(Gate::Held);
    let other = site.rig.device("mon-2").await;
    let good = (other.vitals(), site.rig.seal(&other, 1), false);
    let bad = (device.vitals(), b"no envelope".to_vec(), false);
    site.publish(vec![bad.clone(), good, bad]).await;
    eventually("all three have come", || consuming.metrics.received() == 3).await;
    site.stored(&other, 1).await;
    // What is refused is durable when its record is: until then the cluster keeps it.
    assert_eq!(consuming.metrics.quarantined(), 0);
    consuming.crash();
    site.rig.audit.gate.send_replace(Gate::Open);

    let again = site.consume().await;
    eventually("what was not acknowledged", || again.metrics.acked() >= 2).await;
    assert!(again.metrics.redelivered() >= 2);
    assert_eq!(site.rig.rows().await, 1);
}

#[tokio::test]
async fn a_store_that_fails_costs_the_connection_and_no_message() {
    let site = Site::start().await;
    let device = site.rig.device("mon-1").await;
    let consuming = site.consume().await;
    site.rig.audit.gate.send_replace(Gate::Broken);
    let bad = (device.vitals(), b"no envelope".to_vec(), false);
    site.publish(vec![bad]).await;
    eventually("the connection was given up", || {
        consuming.metrics.connections_lost() >= 2
    })
    .await;
    assert_eq!(consuming.metrics.acked(), 0);
    site.rig.audit.gate.send_replace(Gate::Open);
    consuming.acked(1).await;
    assert_eq!(site.rig.audit.quarantined(), [QuarantineReason::Shape]);
    assert!(consuming.metrics.redelivered() >= 1);
}

#[tokio::test]
async fn the_cluster_always_has_the_newest_envelope_certificate() {
    let mut site = Site::start().await;
    let consuming = site.consume().await;
    let retained = site.retained_recipient().await;
    assert_eq!(retained, site.rig.recipient.to_pem().into_bytes());

    site.rig.recipient_pem.send_replace("next epoch".into());
    let mut tries = 0;
    while site.retained_recipient().await != b"next epoch" {
        tries += 1;
        assert!(tries < 1_000, "the next epoch was not published");
    }

    // A broker that forgot everything is told again.
    site.broker.kill();
    eventually("the loss is noticed", || consuming.metrics.connected() == 0).await;
    site.broker.restart();
    eventually("both are back", || consuming.metrics.connected() == 2).await;
    assert_eq!(site.retained_recipient().await, b"next epoch");
}

#[tokio::test]
async fn a_cluster_out_of_reach_raises_an_alert_and_its_return_another() {
    let mut site = Site::start().await;
    site.broker.kill();
    let mut alerts = site.alerts.subscribe();
    let _consuming = site.consume_with(|settings| settings.alert_after = Duration::from_millis(50));
    assert_eq!(
        alerts.recv().await.unwrap().alert,
        Alert::ClusterUnreachable
    );
    site.broker.restart();
    assert_eq!(alerts.recv().await.unwrap().alert, Alert::ClusterReachable);
    site.broker.kill();
    assert_eq!(
        alerts.recv().await.unwrap().alert,
        Alert::ClusterUnreachable
    );
    assert_eq!(site.alerts.raised(), 3);
}
