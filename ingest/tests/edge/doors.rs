//! Who gets in, who does not, and who is put out.

use std::time::Duration;

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode as ConnectReturnCode5, DisconnectReasonCode, Packet as Packet5,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::edge::Closing;
use vitalseal_storage::{Clock, SystemClock};

use crate::raw::{Raw, publish4};
use crate::rig::{Rig, eventually, new_authority};

#[tokio::test]
async fn another_authoritys_certificate_ends_in_the_handshake() {
    let rig = Rig::start().await;
    let stranger = rig.stranger("mon-1", &new_authority());
    // In TLS 1.3 a client learns of it with its first read.
    if let Ok(mut raw) = Raw::tls(&rig, &stranger).await {
        raw.send(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05mon-1")
            .await;
        assert_eq!(raw.read4().await, None);
    }
    eventually("the refusal is counted", || {
        rig.metrics.closed(Closing::Handshake) == 1
    })
    .await;
    assert!(
        rig.audit.refused().is_empty(),
        "strangers do not fill the audit log"
    );
}

#[tokio::test]
async fn plain_text_and_silence_hold_nobody_up() {
    // Whoever waits for a silent peer waits longer than any test does.
    let limits = EdgeLimits {
        handshake_deadline: Duration::from_secs(3_600),
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let device = rig.device("mon-1").await;
    let _silent = silent_peers(&rig).await;
    let mut plain = TcpStream::connect(rig.addr).await.unwrap();
    plain
        .write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05mon-1")
        .await
        .unwrap();
    let (_raw, ack) = Raw::v4(&rig, &device, true).await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    eventually(
        "the plain one is put out, the silent ones are still there",
        || rig.metrics.closed(Closing::Handshake) == 1 && rig.metrics.connections() == 51,
    )
    .await;
}

#[tokio::test]
async fn whoever_is_silent_at_the_deadline_is_put_out() {
    let limits = EdgeLimits {
        handshake_deadline: Duration::from_millis(50),
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let mut silent = silent_peers(&rig).await;
    for peer in &mut silent {
        let told = peer.read(&mut [0]).await;
        assert!(matches!(told, Ok(0) | Err(_)), "{told:?}");
    }
    eventually("all are counted", || {
        rig.metrics.closed(Closing::Handshake) == 50
    })
    .await;
}

async fn silent_peers(rig: &Rig) -> Vec<TcpStream> {
    let peers = (0..50).map(|_| TcpStream::connect(rig.addr));
    futures::future::try_join_all(peers).await.unwrap()
}

#[tokio::test]
async fn connections_are_counted_per_address() {
    let limits = EdgeLimits {
        connections_per_address: 2,
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let device = rig.device("mon-1").await;
    let held = [rig.addr; 2].map(TcpStream::connect);
    let held = futures::future::try_join_all(held).await.unwrap();
    eventually("both are there", || rig.metrics.connections() == 2).await;
    assert!(Raw::tls(&rig, &device).await.is_err());
    drop(held);
    eventually("both are gone", || rig.metrics.connections() == 0).await;
    Raw::v4(&rig, &device, true).await;
}

#[tokio::test]
async fn only_an_enrolled_active_device_under_its_own_name_gets_a_session() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let never_enrolled = rig.stranger("mon-2", &rig.authority);
    // The authority issued both, the registry knows the first.
    let second_certificate = rig.stranger("mon-1", &rig.authority);
    for stranger in [&never_enrolled, &second_certificate] {
        let (mut raw, ack) = Raw::v4(&rig, stranger, true).await;
        assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
        assert_eq!(raw.read4().await, None);
        let (_, ack) = Raw::v5(&rig, stranger, stranger.id.as_str()).await;
        assert_eq!(ack.code, ConnectReturnCode5::NotAuthorized);
    }
    for client_id in ["", "mon-2", "MON-1"] {
        let (mut raw, ack) = Raw::v5(&rig, &device, client_id).await;
        assert_eq!(ack.code, ConnectReturnCode5::ClientIdentifierNotValid);
        assert_eq!(raw.read5().await, None);
    }
    eventually("audited", || rig.audit.refused().len() == 3).await; // once a device and reason
    assert_eq!(rig.metrics.sessions(), 0);
}

#[tokio::test]
async fn whoever_is_revoked_is_put_out_without_a_word_of_his_own() {
    let rig = Rig::start().await;
    let (device, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    let (mut bystander, _) = Raw::v4(&rig, &other, true).await;
    rig.store
        .registry
        .revoke_device(&device.id, "lost", SystemClock.now())
        .await
        .unwrap();
    match raw.read5().await {
        Some(Packet5::Disconnect(bye)) => {
            assert_eq!(bye.reason_code, DisconnectReasonCode::AdministrativeAction);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(raw.read5().await, None);

    let (_, ack) = Raw::v4(&rig, &device, true).await;
    assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
    bystander
        .send4(&publish4(&other, QoS::AtLeastOnce, 1, rig.seal(&other, 1)))
        .await;
    assert!(matches!(bystander.read4().await, Some(Packet::PubAck(_))));
}

#[tokio::test]
async fn of_many_sessions_just_those_end_whose_devices_are_shut_out_at_once() {
    let rig = Rig::start().await;
    let mut sessions = Vec::new();
    for n in 0..40 {
        let device = rig.device(&format!("mon-{n}")).await;
        let (raw, _) = Raw::v4(&rig, &device, true).await;
        sessions.push((n, device, raw));
    }
    let (registry, now) = (&rig.store.registry, SystemClock.now());
    let shut_out = |n: i32| n % 4 != 0;
    let changes = sessions.iter().filter(|(n, ..)| shut_out(*n));
    let changes = changes.map(|(n, device, _)| async move {
        match n % 4 {
            1 => registry.revoke_device(&device.id, "lost", now).await,
            _ => registry
                .suspend_device(&device.id, "lost", now)
                .await
                .map(drop),
        }
    });
    for changed in futures::future::join_all(changes).await {
        changed.unwrap();
    }
    for (n, _, raw) in &mut sessions {
        match shut_out(*n) {
            true => assert_eq!(raw.read4().await, None, "mon-{n}"),
            false => {
                raw.send4(&Packet::PingReq).await;
                assert_eq!(raw.read4().await, Some(Packet::PingResp), "mon-{n}");
            }
        }
    }
    eventually("the others stay", || rig.metrics.sessions() == 10).await;
}
