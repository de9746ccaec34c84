//! A wall clock that jumps. Failure: an acknowledged message that is not stored once or not told in the quarantine, a
//! session or a limit that takes the jump for time that passed.

use std::time::Duration;

use futures::future::join_all;
use jiff::SignedDuration;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{Packet as Packet5, PubAckReason};
use vitalseal_crypto::Agreement;
use vitalseal_ingest::{Order, Outcome};
use vitalseal_storage::QuarantineReason;

use crate::raw::{Raw, publish4, publish5};
use crate::rig::{Rig, eventually};

/// The jumps follow from it.
const SEED: u64 = 0x7617_a15e_c10c_0001;

const DAY: SignedDuration = SignedDuration::from_hours(25);

#[tokio::test]
async fn each_jump_is_told_with_its_reason_and_the_clock_may_come_back() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    let mut previous = None;
    let mut random = SEED;
    let (mut stored, mut not_yet) = (0, 0);
    for sequence in 1..=30_u64 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let step = i32::try_from(random % 3).unwrap() - 1;
        rig.clock.set_ahead_by(DAY * step);
        let message = rig.seal_link(&device, sequence, previous, Agreement::Ephemeral);
        previous = Some(message.signed_hash);
        let id = u16::try_from(sequence).unwrap();
        let publish = publish5(&device.vitals(), QoS5::AtLeastOnce, id, message.bytes);
        raw.send5(&publish).await;
        let Some(Packet5::PubAck(ack)) = raw.read5().await else {
            panic!("message {sequence} with the clock at {step} days")
        };
        // Behind the device's clock a message waits for a review; ahead of it the chain proves that it is merely late.
        let taken = step >= 0;
        assert_eq!(ack.reason == PubAckReason::Success, taken, "{sequence}");
        assert_eq!(rig.is_stored(&device, sequence).await, taken, "{sequence}");
        (stored, not_yet) = (stored + u64::from(taken), not_yet + usize::from(!taken));
    }
    assert!(
        stored > 5 && not_yet > 5,
        "{stored} stored, {not_yet} not yet"
    );
    assert_eq!(rig.rows().await, stored);
    assert_eq!(
        rig.audit.quarantined(),
        vec![QuarantineReason::NotYet; not_yet]
    );
    let kept = rig.store.inbox.quarantined(100).await.unwrap();
    assert_eq!(kept.len(), not_yet);
    assert!(
        kept.iter()
            .all(|row| row.reason == QuarantineReason::NotYet)
    );
}

#[tokio::test]
async fn a_jump_inside_a_batch_leaves_each_message_stored_once_or_told() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    // Not chained, so that each is judged alone; twice each, as after a lost acknowledgement.
    let messages: Vec<_> = (1..=60).map(|n| (n, rig.seal(&device, n))).collect();
    let mut order = Order::default();
    let mut under_way = Vec::new();
    // Seven steps over sixty messages: the repetition of a message meets another step than the message did.
    let steps = [1, -1, 0, -1, 1, 0, 0].into_iter().cycle();
    for (step, (n, bytes)) in steps.zip(messages.iter().chain(&messages)) {
        rig.clock.set_ahead_by(DAY * step);
        let credit = rig.pipeline.reserve(bytes.len()).await.unwrap();
        let (id, bytes) = (device.id.clone(), bytes.clone().into());
        let outcome = rig.pipeline.submit_reserved(credit, &mut order, id, bytes);
        under_way.push(async move { (*n, outcome.await.unwrap()) });
    }
    let outcomes = join_all(under_way).await;
    let mut stored = 0;
    for (n, outcome) in &outcomes {
        match outcome {
            Outcome::Stored { .. } => {
                stored += 1;
                assert!(rig.is_stored(&device, *n).await, "{n}");
            }
            Outcome::Duplicate => assert!(rig.is_stored(&device, *n).await, "{n}"),
            Outcome::Quarantined(QuarantineReason::NotYet | QuarantineReason::Stale) => {}
            Outcome::Quarantined(other) => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(rig.rows().await, stored, "{outcomes:?}");
    let told = outcomes
        .iter()
        .filter(|(_, o)| matches!(o, Outcome::Quarantined(_)));
    let told = told.count();
    assert_eq!(rig.audit.quarantined().len(), told);
    assert!(
        stored > 0 && told > 0,
        "no jump met the batch: {outcomes:?}"
    );
}

#[tokio::test]
async fn sessions_and_limits_do_not_see_the_clock_jump() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    let mut id = 0;
    for step in [0, 1, -1, 1, 0] {
        rig.clock.set_ahead_by(DAY * step);
        // The session's timers get their turn.
        tokio::time::sleep(Duration::from_millis(20)).await;
        raw.send4(&Packet::PingReq).await;
        assert_eq!(raw.read4().await, Some(Packet::PingResp), "{step} days");
        for _ in 0..5 {
            id += 1;
            let message = rig.seal(&device, u64::from(id));
            raw.send4(&publish4(&device, QoS::AtLeastOnce, id, message))
                .await;
            let acked = raw.read4().await;
            assert!(
                matches!(acked, Some(Packet::PubAck(ack)) if ack.pkid == id),
                "{step} days"
            );
        }
    }
    assert_eq!(rig.metrics.sessions(), 1);
    drop(raw);
    eventually("ended", || rig.metrics.sessions() == 0).await;
    assert_eq!(rig.metrics.refused(), 0);
}
