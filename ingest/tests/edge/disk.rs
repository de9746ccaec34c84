//! A disk that is full, and one that hangs. Failure: an acknowledgement for what is not durable, a message that its
//! device would not send again, memory without a bound, a peer that suffers for another's message, a restart needed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use futures::FutureExt as _;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode as ConnectReturnCode5, Packet as Packet5};
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, PubAckReason};
use tokio::task::unconstrained;
use vitalseal_ingest::edge::Closing;
use vitalseal_ingest::pipeline::{IN_FLIGHT_BYTES, Order};
use vitalseal_ingest::{Outcome, PipelineError};

use crate::interposer;
use crate::raw::{Raw, publish4, publish5};
use crate::rig::{Rig, eventually};

/// More than anybody has: no room.
const EVERYTHING: u64 = u64::MAX;

#[tokio::test]
async fn a_full_disk_sends_messages_back_to_wait_and_takes_them_when_there_is_room() {
    let rig = Rig::start().await;
    let (first, second) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let (mut five, _) = Raw::v5(&rig, &first, "mon-1").await;
    let (mut four, _) = Raw::v4(&rig, &second, false).await;
    let messages = [rig.seal(&first, 1), rig.seal(&second, 1)];
    rig.store.space.look(EVERYTHING).await;

    // No PUBACK of any reason, which would end the message for its client [MQTT-4.4.0-2].
    let publish = |id| publish5(&first.vitals(), QoS5::AtLeastOnce, id, messages[0].clone());
    five.send5(&publish(1)).await;
    match five.read5().await {
        Some(Packet5::Disconnect(said)) => {
            assert_eq!(said.reason_code, DisconnectReasonCode::QuotaExceeded);
        }
        other => panic!("{other:?}"),
    }
    // v3.1.1 has no words for it: closed.
    let publish_4 = |id| publish4(&second, QoS::ExactlyOnce, id, messages[1].clone());
    four.send4(&publish_4(1)).await;
    assert_eq!(four.read4().await, None);
    let (_, refused) = Raw::v5(&rig, &first, "mon-1").await;
    assert_eq!(refused.code, ConnectReturnCode5::QuotaExceeded);
    let (_, refused) = Raw::v4(&rig, &second, false).await;
    assert_eq!(refused.code, ConnectReturnCode::ServiceUnavailable);
    eventually("counted", || rig.metrics.closed(Closing::Full) == 4).await;
    assert_eq!((rig.metrics.acked(), rig.rows().await), (0, 0));
    assert!(
        rig.audit.refused().is_empty(),
        "the audit log needs the rest of the room"
    );

    rig.store.space.look(0).await;
    let (mut five, _) = Raw::v5(&rig, &first, "mon-1").await;
    five.send5(&publish(2)).await;
    match five.read5().await {
        Some(Packet5::PubAck(ack)) => {
            assert_eq!((ack.pkid, ack.reason), (2, PubAckReason::Success))
        }
        other => panic!("{other:?}"),
    }
    let (mut four, _) = Raw::v4(&rig, &second, false).await;
    four.send4(&publish_4(2)).await;
    assert!(matches!(four.read4().await, Some(Packet::PubRec(_))));
    assert_eq!((rig.metrics.acked(), rig.rows().await), (2, 2));
    assert!(rig.audit.quarantined().is_empty());
}

/// Runs again as a child whose syncs wait while there is a file.
#[test]
fn a_disk_that_hangs_slows_devices_down_and_loses_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(hit) = std::env::var_os("VS_FAULT_HIT") {
        return runtime.block_on(hang(PathBuf::from(hit).with_extension("stall")));
    }
    let ground = tempfile::tempdir().unwrap();
    let stores = ground.path().join("stores");
    fs::create_dir(&stores).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("disk::a_disk_that_hangs_slows_devices_down_and_loses_nothing")
        .env("TMPDIR", &stores)
        .env("LD_PRELOAD", interposer::compile(ground.path()))
        .env("VS_FAULT_DIR", &stores)
        .env("VS_FAULT_MODE", "switches")
        .env("VS_FAULT_AT", "0")
        .env("VS_FAULT_HIT", ground.path().join("hit"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

async fn hang(switch: PathBuf) {
    let rig = Rig::start().await;
    let (sender, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let (mut sending, _) = Raw::v4(&rig, &sender, true).await;
    let (mut pinging, _) = Raw::v4(&rig, &other, true).await;
    let log = rig.directories().0.join("inbox.sqlite-wal");
    let log = || fs::read(&log).unwrap();
    let before = log();
    File::create(&switch).unwrap();

    let message = rig.seal(&sender, 1);
    sending
        .send4(&publish4(&sender, QoS::AtLeastOnce, 1, message))
        .await;
    eventually("written, and not synced", || log() != before).await;

    // Messages come in until the credits are used up. Not an envelope, so that nothing is computed.
    let bytes = 300 * 1024;
    let body = Bytes::from(vec![0; bytes]);
    let mut under_way = Vec::new();
    while let Some(credit) = unconstrained(rig.pipeline.reserve(bytes)).now_or_never() {
        let (device, body) = (other.id.clone(), body.clone());
        let pipeline = rig.pipeline.clone();
        under_way.push(tokio::spawn(async move {
            let mut order = Order::default();
            let submitted = pipeline.submit_reserved(credit?, &mut order, device, body);
            submitted.await
        }));
        assert!(under_way.len() * bytes <= IN_FLIGHT_BYTES, "no bound");
    }
    assert_eq!(under_way.len(), (IN_FLIGHT_BYTES - 1024) / bytes);
    assert!(under_way.iter().all(|work| !work.is_finished()));

    // Nobody else is held up, nor is the sender's own keep-alive; and its message has no answer, not even one that the
    // first ping overtook.
    for connection in [&mut pinging, &mut sending] {
        for _ in 0..2 {
            connection.send4(&Packet::PingReq).await;
            assert_eq!(connection.read4().await, Some(Packet::PingResp));
        }
    }
    assert_eq!(rig.metrics.acked(), 0);

    fs::remove_file(&switch).unwrap();
    assert!(matches!(sending.read4().await, Some(Packet::PubAck(ack)) if ack.pkid == 1));
    for work in under_way {
        let outcome: Result<Outcome, PipelineError> = work.await.unwrap();
        assert!(
            matches!(outcome, Ok(Outcome::Quarantined(_))),
            "{outcome:?}"
        );
    }
    assert!(rig.is_stored(&sender, 1).await);
    assert_eq!(rig.rows().await, 1);
}
