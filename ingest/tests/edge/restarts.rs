//! What of a session outlives the process, and whether `session present` says so truthfully. A power cut is a copy of the
//! data, made while the server runs, and a server over that copy.

use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{self, Packet, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::v5;
use tempfile::TempDir;
use vitalseal_ingest::edge::Closing;
use vitalseal_storage::{Clock as _, SystemClock};

use crate::files::copy_tree;
use crate::raw::{Raw, publish4};
use crate::rig::{Device, Rig, eventually};

const DOWN: &str = "v1/d/mon-1/down";

async fn subscribe(raw: &mut Raw, filters: &[&str]) {
    let filters = filters
        .iter()
        .map(|filter| v4::SubscribeFilter::new((*filter).into(), QoS::AtLeastOnce));
    let mut subscribe = v4::Subscribe::new_many(filters);
    subscribe.pkid = 3;
    raw.send4(&Packet::Subscribe(subscribe)).await;
    let Some(Packet::SubAck(ack)) = raw.read4().await else {
        panic!("no SUBACK");
    };
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    assert!(ack.return_codes.iter().all(|code| *code == granted));
}

async fn tell(rig: &Rig, device: &Device, body: &[u8]) {
    let now = SystemClock.now();
    let end = now + SignedDuration::from_hours(1);
    rig.store
        .inbox
        .tell(&device.id, body, now, end)
        .await
        .unwrap();
}

/// Reads the next message and acknowledges it.
async fn told(raw: &mut Raw) -> (String, Vec<u8>) {
    let Some(Packet::Publish(publish)) = raw.read4().await else {
        panic!("nothing was told");
    };
    raw.send4(&Packet::PubAck(v4::PubAck::new(publish.pkid)))
        .await;
    (publish.topic, publish.payload.to_vec())
}

/// Connects with v5 in a session that is kept for so many seconds.
async fn kept_for(rig: &Rig, device: &Device, seconds: u32) -> (Raw, v5::ConnAck) {
    let mut raw = Raw::tls(rig, device).await.unwrap();
    let connect = v5::Connect {
        keep_alive: 30,
        client_id: device.id.to_string(),
        clean_start: false,
        properties: Some(v5::ConnectProperties {
            session_expiry_interval: Some(seconds),
            ..v5::ConnectProperties::new()
        }),
    };
    raw.send5(&v5::Packet::Connect(connect, None, None)).await;
    match raw.read5().await {
        Some(v5::Packet::ConnAck(ack)) => (raw, ack),
        other => panic!("{other:?}"),
    }
}

/// What a power cut now would leave.
fn power_cut(rig: &Rig) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    copy_tree(&rig.directories().0, &data);
    (directory, data)
}

async fn kept(rig: &Rig) -> usize {
    rig.store.inbox.sessions().await.unwrap().len()
}

#[tokio::test]
async fn a_session_goes_on_after_a_restart_with_its_subscriptions_and_what_it_was_not_told_yet() {
    let mut rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let message = rig.seal(&device, 1);
    let (mut raw, ack) = Raw::v4(&rig, &device, false).await;
    assert!(!ack.session_present);
    subscribe(&mut raw, &[DOWN, "v1/notices"]).await;
    tell(&rig, &device, b"one").await;
    assert_eq!(told(&mut raw).await, (DOWN.to_owned(), b"one".to_vec()));
    raw.send4(&publish4(&device, QoS::ExactlyOnce, 7, message.clone()))
        .await;
    assert!(matches!(raw.read4().await, Some(Packet::PubRec(_))));
    drop(raw);
    tell(&rig, &device, b"two").await;

    for round in 0..2 {
        rig.restart().await;
        let (mut raw, ack) = Raw::v4(&rig, &device, false).await;
        assert!(ack.session_present, "{round}");
        // Not subscribed to again, and the first one was acknowledged.
        let next: &[u8] = if round == 0 { b"two" } else { b"three" };
        assert_eq!(told(&mut raw).await, (DOWN.to_owned(), next.to_vec()));
        // The exchange of QoS 2 began in another process: this one does not know it and says so kindly.
        raw.send4(&publish4(&device, QoS::ExactlyOnce, 7, message.clone()))
            .await;
        assert!(matches!(raw.read4().await, Some(Packet::PubRec(_))));
        for _ in 0..2 {
            raw.send4(&Packet::PubRel(v4::PubRel::new(7))).await;
            assert!(matches!(raw.read4().await, Some(Packet::PubComp(_))));
        }
        assert_eq!((rig.rows().await, rig.metrics.duplicates()), (1, 1));
        drop(raw);
        tell(&rig, &device, b"three").await;
    }
}

/// Most devices: what they would lose with their session is the knowledge that the server has not forgotten them.
#[tokio::test]
async fn a_session_without_subscriptions_survives_a_power_cut_from_its_connack_on() {
    let mut rig = Rig::start().await;
    let (four, five) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let (_one, ack) = Raw::v4(&rig, &four, false).await;
    assert!(!ack.session_present);
    let (_two, ack) = kept_for(&rig, &five, 60).await;
    assert!(!ack.session_present);
    let (_copy, data) = power_cut(&rig);

    rig.restart_over(&data).await;
    let (raw, ack) = Raw::v4(&rig, &four, false).await;
    assert!(ack.session_present);
    let (_, ack) = kept_for(&rig, &five, 60).await;
    assert!(ack.session_present);
    drop(raw);
    // One that it did not ask to be kept is not.
    Raw::v4(&rig, &four, true).await;
    rig.restart_over(&data).await;
    let (_, ack) = Raw::v4(&rig, &four, false).await;
    assert!(!ack.session_present);
}

#[tokio::test]
async fn a_subscription_that_was_acknowledged_survives_a_power_cut() {
    let mut rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, false).await;
    subscribe(&mut raw, &[DOWN]).await;
    let (_first, data) = power_cut(&rig);
    let mut unsubscribe = v4::Unsubscribe::new(DOWN);
    unsubscribe.pkid = 4;
    raw.send4(&Packet::Unsubscribe(unsubscribe)).await;
    assert!(matches!(raw.read4().await, Some(Packet::UnsubAck(_))));
    let (_second, without) = power_cut(&rig);

    rig.restart_over(&data).await;
    tell(&rig, &device, b"restart at noon").await;
    let (mut raw, ack) = Raw::v4(&rig, &device, false).await;
    assert!(ack.session_present);
    assert_eq!(told(&mut raw).await.1, b"restart at noon");

    rig.restart_over(&without).await;
    tell(&rig, &device, b"nobody listens").await;
    let (mut raw, ack) = Raw::v4(&rig, &device, false).await;
    assert!(ack.session_present);
    raw.send4(&Packet::PingReq).await;
    assert_eq!(raw.read4().await, Some(Packet::PingResp));
}

/// Told of a session that ended, a device would believe that the server remembers what it was sent.
#[tokio::test]
async fn a_session_that_ended_stays_ended_after_a_power_cut() {
    let mut rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, false).await;
    subscribe(&mut raw, &[DOWN]).await;
    drop(raw);
    let (raw, ack) = Raw::v4(&rig, &device, true).await;
    assert!(!ack.session_present, "a clean session forgets");
    let (_copy, data) = power_cut(&rig);
    drop(raw);
    rig.restart_over(&data).await;
    assert_eq!(kept(&rig).await, 0);
    let (_, ack) = Raw::v4(&rig, &device, false).await;
    assert!(!ack.session_present);
}

#[tokio::test]
async fn an_expired_session_is_gone_from_the_disk_without_being_asked_for() {
    let mut rig = Rig::start().await;
    let (gone, back) = (rig.device("mon-1").await, rig.device("mon-2").await);
    for (device, down) in [(&gone, DOWN), (&back, "v1/d/mon-2/down")] {
        let (mut raw, _) = Raw::v4(&rig, device, false).await;
        subscribe(&mut raw, &[down]).await;
    }
    eventually("both left", || rig.metrics.sessions() == 0).await;
    rig.restart().await;
    // Seven days are the longest; the clock goes on while one of them is here.
    let (raw, ack) = Raw::v4(&rig, &back, false).await;
    assert!(ack.session_present);
    rig.clock.set_ahead_by(SignedDuration::from_hours(8 * 24));
    drop(raw);
    eventually("left", || rig.metrics.sessions() == 0).await;
    rig.restart().await;
    let sessions = rig.store.inbox.sessions().await.unwrap();
    let clients: Vec<_> = sessions.iter().map(|kept| kept.client.as_str()).collect();
    assert_eq!(clients, ["mon-2"]);
    let (_, ack) = Raw::v4(&rig, &gone, false).await;
    assert!(!ack.session_present);
}

#[tokio::test]
async fn ten_thousand_that_come_back_as_they_were_cost_no_sync() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let silent = rig.device("mon-2").await;
    let come = async || {
        let (mut raw, ack) = Raw::v4(&rig, &device, false).await;
        subscribe(&mut raw, &[DOWN, "v1/notices"]).await;
        let (_, other) = Raw::v4(&rig, &silent, false).await;
        assert_eq!(other.session_present, ack.session_present);
        ack.session_present
    };
    assert!(!come().await);
    let log = rig.directories().0.join("inbox.sqlite-wal");
    let written = |log: &Path| std::fs::read(log).unwrap();
    let before = written(&log);
    for _ in 0..5 {
        assert!(come().await);
    }
    assert!(written(&log) == before, "nothing was written");
}

#[tokio::test]
async fn a_device_that_is_shut_out_loses_its_session() {
    let mut rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, false).await;
    subscribe(&mut raw, &[DOWN]).await;
    let registry = &rig.store.registry;
    registry
        .suspend_device(&device.id, "lost", SystemClock.now())
        .await
        .unwrap();
    assert_eq!(raw.read4().await, None);
    eventually("closed", || rig.metrics.closed(Closing::Revoked) == 1).await;
    rig.restart().await;
    assert_eq!(kept(&rig).await, 0);
}
