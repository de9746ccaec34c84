//! Sessions: takeover, what is kept between connections, subscriptions, keep-alive, stopping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{self, Packet, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::v5::{self, DisconnectReasonCode, Packet as Packet5};
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::edge::Closing;
use vitalseal_storage::{Clock as _, SystemClock};

use crate::raw::{Raw, publish4};
use crate::rig::{Gate, Rig, eventually};

#[tokio::test]
async fn the_second_connection_closes_the_first() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut first, _) = Raw::v5(&rig, &device, "mon-1").await;
    let (mut second, _) = Raw::v4(&rig, &device, true).await;
    match first.read5().await {
        Some(Packet5::Disconnect(bye)) => {
            assert_eq!(bye.reason_code, DisconnectReasonCode::SessionTakenOver);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(first.read5().await, None);
    second.send4(&Packet::PingReq).await;
    assert_eq!(second.read4().await, Some(Packet::PingResp));
    eventually("one session", || rig.metrics.sessions() == 1).await;
}

#[tokio::test]
async fn session_present_is_the_truth_and_exactly_once_survives_a_reconnect() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let message = rig.seal(&device, 1);
    let (mut raw, ack) = Raw::v4(&rig, &device, false).await;
    assert!(!ack.session_present);
    raw.send4(&Packet::Subscribe(subscribe(&["v1/d/mon-1/down"])))
        .await;
    assert!(matches!(raw.read4().await, Some(Packet::SubAck(_))));
    raw.send4(&publish4(&device, QoS::ExactlyOnce, 7, message.clone()))
        .await;
    assert!(matches!(raw.read4().await, Some(Packet::PubRec(_))));
    drop(raw);

    // PUBREC was lost for all the client knows: it repeats, then goes on.
    let (mut raw, ack) = Raw::v4(&rig, &device, false).await;
    assert!(ack.session_present);
    raw.send4(&publish4(&device, QoS::ExactlyOnce, 7, message.clone()))
        .await;
    assert!(matches!(raw.read4().await, Some(Packet::PubRec(_))));
    raw.send4(&Packet::PubRel(v4::PubRel::new(7))).await;
    assert!(matches!(raw.read4().await, Some(Packet::PubComp(_))));
    assert_eq!(
        (rig.rows().await, rig.metrics.duplicates()),
        (1, 1),
        "stored once, and known the second time"
    );
    drop(raw);

    let (raw, ack) = Raw::v4(&rig, &device, true).await;
    assert!(!ack.session_present, "a clean session forgets");
    drop(raw);
    let (_, ack) = Raw::v4(&rig, &device, false).await;
    assert!(!ack.session_present, "and leaves nothing behind");
}

fn subscribe(filters: &[&str]) -> v4::Subscribe {
    let filters = filters
        .iter()
        .map(|f| v4::SubscribeFilter::new((*f).into(), QoS::AtLeastOnce));
    let mut subscribe = v4::Subscribe::new_many(filters);
    subscribe.pkid = 3;
    subscribe
}

#[tokio::test]
async fn only_the_devices_own_filters_are_granted() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let filters = [
        "v1/d/mon-1/down",
        "#",
        "v1/d/mon-2/down",
        "v1/d/+/vitals",
        "$share/g/v1/recipient",
    ];
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send4(&Packet::Subscribe(subscribe(&filters))).await;
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    let refused = SubscribeReasonCode::Failure;
    let codes = vec![granted, refused, refused, refused, refused];
    assert_eq!(
        raw.read4().await,
        Some(Packet::SubAck(v4::SubAck::new(3, codes)))
    );

    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    let filter = v5::Filter::new("v1/d/mon-2/down", rumqttc::v5::mqttbytes::QoS::AtMostOnce);
    let mut subscribe = v5::Subscribe::new(filter, None);
    subscribe.pkid = 4;
    raw.send5(&Packet5::Subscribe(subscribe)).await;
    match raw.read5().await {
        Some(Packet5::SubAck(ack)) => {
            assert_eq!(ack.return_codes, [v5::SubscribeReasonCode::NotAuthorized]);
        }
        other => panic!("{other:?}"),
    }
}

/// A peer that reads nothing holds up what is written to it, and that must not hold up its end.
#[tokio::test]
async fn whoever_is_suspended_is_closed_and_told_nothing_more_even_while_it_reads_nothing() {
    const NOTICES: usize = 200; // 13 MB, more than sockets hold
    let limits = EdgeLimits {
        write_deadline: Duration::from_secs(3_600),
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let (stuck, fast) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let tcp = socket.connect(rig.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = TlsConnector::from(Arc::clone(&stuck.tls));
    let mut silent = Raw::over(tls.connect(name, tcp).await.unwrap());
    silent.connect5("mon-1", None).await;
    let (mut reader, _) = Raw::v5(&rig, &fast, "mon-2").await;
    for raw in [&mut silent, &mut reader] {
        let filter = v5::Filter::new("v1/notices", rumqttc::v5::mqttbytes::QoS::AtMostOnce);
        let mut subscribe = v5::Subscribe::new(filter, None);
        subscribe.pkid = 4;
        raw.send5(&Packet5::Subscribe(subscribe)).await;
        assert!(matches!(raw.read5().await, Some(Packet5::SubAck(_))));
    }
    for _ in 0..NOTICES {
        rig.announcer
            .notice(vec![b'n'; 64 << 10].into())
            .await
            .unwrap();
        assert!(matches!(reader.read5().await, Some(Packet5::Publish(_))));
    }
    let registry = &rig.store.registry;
    let suspended = registry.suspend_device(&stuck.id, "lost", SystemClock.now());
    assert!(suspended.await.unwrap());
    eventually("it is closed as what it is", || {
        rig.metrics.closed(Closing::Revoked) == 1
    })
    .await;
    let mut told = 0;
    while let Some(packet) = silent.read5().await {
        assert!(matches!(packet, Packet5::Publish(_)), "{packet:?}");
        told += 1;
    }
    assert!(told < NOTICES, "the sockets held all of it");
}

#[tokio::test]
async fn silence_beyond_one_and_a_half_keep_alives_ends_it() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let mut raw = Raw::tls(&rig, &device).await.unwrap();
    let mut connect = v4::Connect::new("mon-1");
    connect.keep_alive = 1;
    raw.send4(&Packet::Connect(connect)).await;
    assert!(matches!(raw.read4().await, Some(Packet::ConnAck(_))));
    // Measured from before the last word on, so that a slow machine only makes it longer.
    let last_word = Instant::now();
    raw.send4(&Packet::PingReq).await;
    assert_eq!(raw.read4().await, Some(Packet::PingResp));
    assert_eq!(raw.read4().await, None);
    let silent = last_word.elapsed();
    assert!(silent >= Duration::from_millis(1_500), "{silent:?}");
    eventually("counted", || rig.metrics.closed(Closing::KeepAlive) == 1).await;
}

#[tokio::test]
async fn stopping_acknowledges_what_is_under_way_and_says_goodbye() {
    let rig = Rig::start().await;
    let (device, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    let (mut v5, _) = Raw::v5(&rig, &other, "mon-2").await;
    rig.audit.gate.send_replace(Gate::Held);
    raw.send4(&publish4(&device, QoS::AtLeastOnce, 1, vec![0; 40]))
        .await;
    raw.send4(&Packet::PingReq).await;
    assert_eq!(
        raw.read4().await,
        Some(Packet::PingResp),
        "the PUBLISH was read"
    );

    rig.shutdown.cancel();
    match v5.read5().await {
        Some(Packet5::Disconnect(bye)) => {
            assert_eq!(bye.reason_code, DisconnectReasonCode::ServerShuttingDown);
        }
        other => panic!("{other:?}"),
    }
    assert!(
        tokio::net::TcpStream::connect(rig.addr).await.is_err(),
        "no more connections"
    );
    rig.audit.gate.send_replace(Gate::Open);
    assert!(matches!(raw.read4().await, Some(Packet::PubAck(_))));
    assert_eq!(raw.read4().await, None);
    rig.serving.await.unwrap();
}

#[tokio::test]
async fn a_message_held_up_holds_up_its_own_connection_only() {
    let limits = EdgeLimits {
        in_flight: 2,
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let (device, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    rig.audit.gate.send_replace(Gate::Held);
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    for id in 1..=5 {
        raw.send4(&publish4(&device, QoS::AtLeastOnce, id, vec![0; 40]))
            .await;
    }
    let (mut bystander, _) = Raw::v4(&rig, &other, true).await;
    bystander
        .send4(&publish4(&other, QoS::AtLeastOnce, 1, rig.seal(&other, 1)))
        .await;
    assert!(matches!(bystander.read4().await, Some(Packet::PubAck(_))));

    rig.audit.gate.send_replace(Gate::Open);
    for id in 1..=5 {
        assert_eq!(raw.read4().await, Some(Packet::PubAck(v4::PubAck::new(id))));
    }
    eventually("all counted", || rig.metrics.quarantined() == 5).await;
}
