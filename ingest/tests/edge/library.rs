//! rumqttc, the client library that devices use, in both protocol versions.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::Packet as Packet5;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use tokio::time::timeout;

use crate::rig::{Device, PATIENCE, Rig};

fn options4(rig: &Rig, device: &Device) -> MqttOptions {
    let mut options = MqttOptions::new(device.id.as_str(), "localhost", rig.addr.port());
    let tls = TlsConfiguration::Rustls(Arc::clone(&device.tls));
    options.set_transport(Transport::tls_with_config(tls));
    options
        .set_max_packet_size(300 << 10, 300 << 10)
        .set_keep_alive(Duration::from_secs(5));
    options
}

fn options5(rig: &Rig, device: &Device) -> rumqttc::v5::MqttOptions {
    let id = device.id.as_str();
    let mut options = rumqttc::v5::MqttOptions::new(id, "localhost", rig.addr.port());
    let tls = TlsConfiguration::Rustls(Arc::clone(&device.tls));
    options.set_transport(Transport::tls_with_config(tls));
    options.set_keep_alive(Duration::from_secs(5));
    options
}

#[tokio::test]
async fn v311_at_every_qos_is_stored_once() {
    let rig = Rig::start().await;
    let device = rig.device("mon-4").await;
    let (client, mut events) = AsyncClient::new(options4(&rig, &device), 10);
    for (sequence, qos) in [
        (1, QoS::AtMostOnce),
        (2, QoS::AtLeastOnce),
        (3, QoS::ExactlyOnce),
    ] {
        client
            .publish(device.vitals(), qos, false, rig.seal(&device, sequence))
            .await
            .unwrap();
    }
    let (mut acked, mut completed) = (false, false);
    timeout(PATIENCE, async {
        while !(acked && completed) {
            match events.poll().await.unwrap() {
                // At the moment of the acknowledgement the message is in the inbox, by its own id.
                Event::Incoming(Packet::PubAck(_)) => {
                    assert!(rig.is_stored(&device, 2).await);
                    acked = true;
                }
                Event::Incoming(Packet::PubRec(_)) => assert!(rig.is_stored(&device, 3).await),
                Event::Incoming(Packet::PubComp(_)) => completed = true,
                _ => {}
            }
        }
    })
    .await
    .unwrap();
    assert!(
        rig.is_stored(&device, 1).await,
        "acknowledgements follow in order, so QoS 0 is done"
    );
    assert_eq!(rig.rows().await, 3);
    assert_eq!((rig.metrics.acked(), rig.metrics.quarantined()), (3, 0));
}

#[tokio::test]
async fn v5_at_every_qos_is_stored_once() {
    let rig = Rig::start().await;
    let device = rig.device("mon-5").await;
    let (client, mut events) = rumqttc::v5::AsyncClient::new(options5(&rig, &device), 10);
    for (sequence, qos) in [
        (1, QoS5::AtMostOnce),
        (2, QoS5::AtLeastOnce),
        (3, QoS5::ExactlyOnce),
    ] {
        let payload = rig.seal(&device, sequence);
        client
            .publish(device.vitals(), qos, false, payload)
            .await
            .unwrap();
    }
    let mut completed = false;
    timeout(PATIENCE, async {
        while !completed {
            if let rumqttc::v5::Event::Incoming(packet) = events.poll().await.unwrap() {
                match packet {
                    Packet5::PubAck(_) => assert!(rig.is_stored(&device, 2).await),
                    Packet5::PubRec(_) => assert!(rig.is_stored(&device, 3).await),
                    Packet5::PubComp(_) => completed = true,
                    _ => {}
                }
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(rig.rows().await, 3);
}

#[tokio::test]
async fn the_envelope_certificate_is_retained_and_renewed() {
    let rig = Rig::start().await;
    let device = rig.device("mon-6").await;
    let (client, mut events) = AsyncClient::new(options4(&rig, &device), 10);
    client
        .subscribe("v1/recipient", QoS::AtMostOnce)
        .await
        .unwrap();
    let mut seen = Vec::new();
    timeout(PATIENCE, async {
        while seen.len() < 2 {
            if let Event::Incoming(Packet::Publish(notice)) = events.poll().await.unwrap() {
                seen.push((notice.retain, notice.payload));
                rig.recipient_pem.send_replace("next epoch".into());
            }
        }
    })
    .await
    .unwrap();
    let first = rig.recipient.to_pem();
    assert_eq!(seen[0], (true, first.into()));
    assert_eq!(seen[1], (false, "next epoch".into()));
}
