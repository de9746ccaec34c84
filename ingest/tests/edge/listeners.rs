//! Fan-out to real sessions: everybody hears everything once and in order, at their own pace, and whoever cannot keep up is
//! told so. Nothing that a client says reaches the router.

use std::sync::Arc;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, Disconnect, DisconnectReasonCode, Filter, Packet, PubAck, Publish,
    Subscribe,
};
use tokio::sync::Barrier;
use tokio::time::timeout;
use vitalseal_ingest::edge::Closing;
use vitalseal_ingest::{Alert, Raised};
use vitalseal_storage::{Clock, SystemClock, Ward, Wards};

use crate::raw::{Raw, connect_tls};
use crate::rig::{PATIENCE, Rig, eventually};

fn icu() -> Ward {
    "icu".parse().unwrap()
}

/// A display of the ward, connected and subscribed at QoS 1, that takes so many messages unacknowledged.
async fn display(rig: &Rig, name: &str, receive_maximum: u16) -> Raw {
    let wards = Wards::These([icu()].into());
    let tls = rig.subscriber(name, wards).await;
    let mut raw = Raw::over(connect_tls(rig.addr, &tls).await.unwrap());
    let properties = ConnectProperties {
        receive_maximum: Some(receive_maximum),
        ..ConnectProperties::new()
    };
    let connect = Connect {
        keep_alive: 60,
        client_id: name.to_owned(),
        clean_start: true,
        properties: Some(properties),
    };
    raw.send5(&Packet::Connect(connect, None, None)).await;
    assert!(matches!(raw.read5().await, Some(Packet::ConnAck(_))));
    subscribe(&mut raw, &["v1/alerts/icu"]).await;
    raw
}

async fn subscribe(raw: &mut Raw, filters: &[&str]) {
    let filters = filters
        .iter()
        .map(|filter| Filter::new(*filter, QoS::AtLeastOnce));
    let mut subscribe = Subscribe::new_many(filters, None);
    subscribe.pkid = 1;
    raw.send5(&Packet::Subscribe(subscribe)).await;
    assert!(matches!(raw.read5().await, Some(Packet::SubAck(_))));
}

async fn alert(rig: &Rig) {
    let raised = Raised {
        at: SystemClock.now(),
        alert: Alert::Test,
    };
    rig.announcer.alert(&icu(), &raised).await.unwrap();
}

async fn heard(raw: &mut Raw) -> Publish {
    match raw.read5().await {
        Some(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

async fn acknowledge(raw: &mut Raw, publish: &Publish) {
    raw.send5(&Packet::PubAck(PubAck::new(publish.pkid, None)))
        .await;
}

#[tokio::test]
async fn every_display_hears_every_alert_and_the_one_that_acknowledges_too_late_is_told_that_it_lags()
 {
    const FAST: usize = 40;
    const ALERTS: usize = 1_200; // more than is kept
    const STEP: usize = 100;
    let rig = Rig::start().await;
    let mut slow = display(&rig, "display:slow", 1).await;
    // The fast ones are never further behind than this.
    let together = Arc::new(Barrier::new(FAST + 1));
    let mut listening = Vec::new();
    for number in 0..FAST {
        let mut raw = display(&rig, &format!("display:wall-{number}"), 10).await;
        let together = Arc::clone(&together);
        listening.push(tokio::spawn(async move {
            for number in 1..=ALERTS {
                let publish = heard(&mut raw).await;
                acknowledge(&mut raw, &publish).await;
                if number % STEP == 0 {
                    together.wait().await;
                }
            }
        }));
    }
    for number in 1..=ALERTS {
        alert(&rig).await;
        if number % STEP == 0 {
            let heard = timeout(2 * PATIENCE, together.wait()).await;
            heard.expect("all have heard all so far");
        }
    }
    for listening in listening {
        listening.await.unwrap();
    }
    let first = heard(&mut slow).await;
    acknowledge(&mut slow, &first).await;
    match slow.read5().await {
        Some(Packet::Disconnect(Disconnect { reason_code, .. })) => {
            assert_eq!(reason_code, DisconnectReasonCode::QuotaExceeded);
        }
        other => panic!("{other:?}"),
    }
    eventually("it is counted", || rig.metrics.closed(Closing::Lagged) == 1).await;
}

/// What ended rumqttd's router, one by one, from a client's side: each would reach it if sessions had links of their own.
#[tokio::test]
async fn nothing_that_a_client_says_or_leaves_undone_ends_the_router() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    for topic in [
        "\u{fc}ber",
        "\u{1F9A0}",
        "$share/a/v1/alerts/icu",
        "v1/#",
        "#",
        "",
    ] {
        let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
        raw.send5(&crate::raw::publish5(
            topic,
            QoS::AtMostOnce,
            0,
            b"x".to_vec(),
        ))
        .await;
        while raw.read5().await.is_some() {}
        let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
        let mut subscribe = Subscribe::new(Filter::new(topic, QoS::AtLeastOnce), None);
        subscribe.pkid = 1;
        raw.send5(&Packet::Subscribe(subscribe)).await;
        assert!(
            raw.read5().await.is_some(),
            "an answer, or the reason of the end: {topic}"
        );
    }
    for round in 0..10 {
        let mut raw = display(&rig, &format!("display:gone-{round}"), 10).await;
        alert(&rig).await;
        heard(&mut raw).await;
        drop(raw); // with an unacknowledged QoS 1 message
    }
    let mut alive = display(&rig, "display:alive", 10).await;
    alert(&rig).await;
    let publish = heard(&mut alive).await;
    assert_eq!(&publish.topic[..], b"v1/alerts/icu");
    assert_eq!(rig.metrics.closed(Closing::Internal), 0);
}

#[tokio::test]
async fn a_notice_reaches_every_device_and_is_never_larger_than_they_were_promised() {
    let rig = Rig::start().await;
    let mut devices = Vec::new();
    for number in 1..=3 {
        let name = format!("mon-{number}");
        let device = rig.device(&name).await;
        let (mut raw, _) = Raw::v5(&rig, &device, &name).await;
        subscribe(&mut raw, &["v1/notices"]).await;
        devices.push(raw);
    }
    let largest = Bytes::from(vec![b'n'; 64 * 1024]);
    for refused in [Bytes::new(), Bytes::from(vec![0; 64 * 1024 + 1])] {
        assert!(rig.announcer.notice(refused).await.is_err());
    }
    rig.announcer.notice(largest.clone()).await.unwrap();
    for raw in &mut devices {
        let publish = heard(raw).await;
        assert_eq!(
            (&publish.payload, publish.qos),
            (&largest, QoS::AtLeastOnce)
        );
        assert!(!publish.retain);
    }
}
