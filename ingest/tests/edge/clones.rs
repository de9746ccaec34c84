//! One key in two hands: found by what it signs and by where it connects, answered once, and not mistaken for a device
//! that lost its path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet as Packet5};
use vitalseal_ingest::edge::Closing;
use vitalseal_ingest::{CloneSignal, Clones, EdgeLimits, OnClone, Outcome};
use vitalseal_storage::{
    AuditError, AuditEvent, AuditRecord, AuditSink, Clock as _, DeviceState, QuarantineReason,
    SystemClock,
};

use crate::past::{Past, ago, device_since};
use crate::raw::{Raw, publish4};
use crate::rig::{Device, Rig, TestAudit, eventually};

const STORED: Outcome = Outcome::Stored {
    readings: 1,
    gap: false,
};
const FORK: Outcome = Outcome::Quarantined(QuarantineReason::Fork);
const HELD: Outcome = Outcome::Quarantined(QuarantineReason::DeviceNotActive);

async fn suspending() -> Rig {
    Rig::with(EdgeLimits::default(), OnClone::Suspend).await
}

async fn state(rig: &Rig, device: &Device) -> DeviceState {
    let record = rig.store.registry.device(&device.id).await.unwrap();
    record.unwrap().state
}

async fn reinstate(rig: &Rig, device: &Device) {
    let (registry, now) = (&rig.store.registry, SystemClock.now());
    let done = registry.reinstate_device(&device.id, "was a test", now);
    done.await.unwrap();
}

/// The holders connect in turn, each in place of the one before, which sees it and closes. The last one.
async fn ping_pong(rig: &Rig, device: &Device, takeovers: u64) -> Raw {
    let before = rig.metrics.closed(Closing::TakenOver);
    let (mut live, _) = Raw::v5(rig, device, device.id.as_str()).await;
    for taken in 1..=takeovers {
        let (next, _) = Raw::v5(rig, device, device.id.as_str()).await;
        while live.read5().await.is_some() {}
        drop(live);
        live = next;
        eventually("the old connection ended", || {
            rig.metrics.closed(Closing::TakenOver) == before + taken
        })
        .await;
    }
    live
}

#[tokio::test]
async fn two_who_take_a_session_from_each_other_are_both_put_out_until_an_operator_decides() {
    let rig = suspending().await;
    let device = rig.device("mon-1").await;
    let mut alerts = rig.alerts.subscribe();
    for round in 1..=2 {
        let mut live = ping_pong(&rig, &device, 3).await;
        match live.read5().await {
            Some(Packet5::Disconnect(bye)) => {
                assert_eq!(bye.reason_code, DisconnectReasonCode::AdministrativeAction);
            }
            other => panic!("{other:?}"),
        }
        let (_, ack) = Raw::v4(&rig, &device, true).await;
        assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
        assert_eq!(
            alerts.recv().await.unwrap().alert.as_str(),
            "clone_suspected"
        );
        let expected = ["mon-1 takeovers", "mon-1 suspended"].repeat(round);
        assert_eq!(rig.audit.of_clones(), expected);
        reinstate(&rig, &device).await;
    }
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send4(&publish4(
        &device,
        QoS::AtLeastOnce,
        1,
        rig.seal(&device, 1),
    ))
    .await;
    assert!(matches!(raw.read4().await, Some(Packet::PubAck(_))));
}

#[tokio::test]
async fn a_device_whose_old_path_is_dead_comes_back_as_often_as_it_must() {
    let rig = suspending().await;
    let device = rig.device("mon-1").await;
    // Held open and never read: as far as the server can see, nobody is there.
    let mut dead = Vec::new();
    for _ in 0..6 {
        dead.push(Raw::v4(&rig, &device, true).await.0);
    }
    eventually("all but the last were given up", || {
        rig.metrics.closed(Closing::TakenOver) == 5
    })
    .await;
    let mut live = dead.pop().unwrap();
    live.send4(&Packet::PingReq).await;
    assert_eq!(live.read4().await, Some(Packet::PingResp));
    assert_eq!(rig.audit.of_clones(), [""; 0]);
}

#[tokio::test]
async fn a_fork_holds_the_device_its_session_and_what_it_sends() {
    let rig = suspending().await;
    let (device, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    let (mut bystander, _) = Raw::v4(&rig, &other, true).await;
    let first = rig.seal_value(&device, 1, 61.0);
    assert_eq!(rig.submit(&device, first.clone()).await, STORED);
    let second = rig.seal_value(&device, 1, 62.0);
    assert_eq!(rig.submit(&device, second).await, FORK);

    assert!(matches!(raw.read5().await, Some(Packet5::Disconnect(_))));
    assert_eq!(raw.read5().await, None);
    assert_eq!(state(&rig, &device).await, DeviceState::Suspended);
    let held = rig.seal(&device, 2);
    assert_eq!(rig.submit(&device, held.clone()).await, HELD);
    let row = rig.store.inbox.quarantined(1).await.unwrap().remove(0);
    assert_eq!(row.detail, "device is suspended");
    bystander.send4(&Packet::PingReq).await;
    assert_eq!(bystander.read4().await, Some(Packet::PingResp));
    assert_eq!(rig.audit.of_clones(), ["mon-1 fork", "mon-1 suspended"]);

    reinstate(&rig, &device).await;
    assert_eq!(rig.submit(&device, held).await, STORED);
    assert_eq!(rig.submit(&device, first).await, Outcome::Duplicate);
}

#[tokio::test]
async fn a_boot_that_goes_on_beside_a_later_one_holds_the_device() {
    let rig = suspending().await;
    let device = device_since(&rig, "mon-1", ago(SignedDuration::from_hours(2))).await;
    let sent = |boot, sequence, minutes| {
        let past = Past {
            boot,
            sequence,
            ..Past::new(&rig, SignedDuration::from_mins(minutes))
        };
        rig.submit(&device, past.seal(&rig, &device).bytes)
    };
    for (boot, minutes) in [(7, 60), (8, 30)] {
        assert_eq!(sent(boot, 0, minutes).await, STORED);
    }
    let overlap = Outcome::Quarantined(QuarantineReason::BootsOverlap);
    assert_eq!(sent(7, 1, 5).await, overlap);
    assert_eq!(sent(8, 1, 4).await, HELD);
    let recorded = ["mon-1 boots_overlap", "mon-1 suspended"];
    assert_eq!(rig.audit.of_clones(), recorded);
}

#[tokio::test]
async fn where_clones_are_only_told_of_they_are_told_of_once() {
    let rig = Rig::start().await;
    let (device, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    for device in [&device, &other] {
        for (value, expected) in [(61.0, STORED), (62.0, FORK), (63.0, FORK)] {
            let message = Bytes::from(rig.seal_value(device, 1, value));
            assert_eq!(
                rig.pipeline.submit(&device.id, message).await.unwrap(),
                expected
            );
        }
        assert_eq!(state(&rig, device).await, DeviceState::Active);
    }
    assert_eq!(rig.audit.of_clones(), ["mon-1 fork", "mon-2 fork"]);
    assert_eq!(rig.alerts.raised(), 2);
}

/// Fails at the first suspension.
#[derive(Debug)]
struct Failing {
    audit: Arc<TestAudit>,
    has_failed: AtomicBool,
}

#[async_trait]
impl AuditSink for Failing {
    async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
        let is_suspension = matches!(record.event, AuditEvent::DeviceSuspended { .. });
        if is_suspension && !self.has_failed.swap(true, Relaxed) {
            return Err(AuditError::new("disk full"));
        }
        self.audit.record(record).await
    }
}

#[tokio::test]
async fn a_suspension_whose_record_fails_is_told_at_once_and_recorded_when_it_can_be() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let sink = Failing {
        audit: Arc::clone(&rig.audit),
        has_failed: AtomicBool::new(false),
    };
    let clones = Clones::new(
        rig.store.registry.clone(),
        Arc::new(sink),
        Arc::clone(&rig.clock) as _,
        rig.alerts.clone(),
        OnClone::Suspend,
    );
    clones.suspect(&device.id, CloneSignal::Fork).await.unwrap();
    assert_eq!(state(&rig, &device).await, DeviceState::Suspended);
    assert_eq!(rig.alerts.raised(), 1);
    assert_eq!(rig.audit.of_clones(), ["mon-1 fork"]);
    let both = ["mon-1 fork", "mon-1 suspended"];
    eventually("the record", || rig.audit.of_clones() == both).await;
}
