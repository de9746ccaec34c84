//! Acknowledged means durable, verified, exactly once.

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{Packet as Packet5, PubAckReason, PubRecReason};
use vitalseal_ingest::Outcome;
use vitalseal_ingest::edge::Closing;
use vitalseal_storage::{Clock, QuarantineReason, SystemClock};

use crate::raw::{Raw, publish4, publish5};
use crate::rig::{Gate, Rig, eventually};

fn acked(packet: Option<Packet>) -> u16 {
    match packet {
        Some(Packet::PubAck(ack)) => ack.pkid,
        other => panic!("expected PUBACK, got {other:?}"),
    }
}

#[tokio::test]
async fn a_replay_is_acknowledged_and_stored_once() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let message = rig.seal(&device, 1);
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    for id in 1..=3 {
        raw.send4(&publish4(&device, QoS::AtLeastOnce, id, message.clone()))
            .await;
        assert_eq!(acked(raw.read4().await), id);
    }
    assert_eq!((rig.rows().await, rig.metrics.duplicates()), (1, 2));
    assert!(rig.audit.quarantined().is_empty());
}

#[tokio::test]
async fn acknowledgements_leave_in_order_of_arrival() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    for id in 1..=50_u16 {
        // Every third is refused at once, the others take the whole way.
        let payload = if id % 3 == 0 {
            vec![0; 40]
        } else {
            rig.seal(&device, u64::from(id))
        };
        raw.send4(&publish4(&device, QoS::AtLeastOnce, id, payload))
            .await;
    }
    for id in 1..=50 {
        assert_eq!(acked(raw.read4().await), id);
    }
    assert_eq!((rig.rows().await, rig.audit.quarantined().len()), (34, 16));
}

#[tokio::test]
async fn one_flipped_bit_is_quarantined_and_acknowledged() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let mut message = rig.seal(&device, 1);
    let last = message.len() - 10; // inside the recipient: the signature does not cover it
    message[last] ^= 1;
    let mut other = rig.seal(&device, 2);
    let middle = other.len() / 2;
    other[middle] ^= 1;
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    for (id, message) in [(1, message), (2, other)] {
        raw.send4(&publish4(&device, QoS::AtLeastOnce, id, message))
            .await;
        assert_eq!(acked(raw.read4().await), id);
    }
    assert_eq!(rig.rows().await, 0);
    assert_eq!(rig.audit.quarantined().len(), 2);
    assert_eq!(rig.store.inbox.quarantined(10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn no_acknowledgement_before_the_refusal_is_durable() {
    let rig = Rig::start().await;
    let (first, second) = (rig.device("mon-1").await, rig.device("mon-2").await);
    for (device, qos, answer) in [
        (&first, QoS::AtLeastOnce, [0x40, 2, 0, 1]),
        (&second, QoS::ExactlyOnce, [0x50, 2, 0, 1]),
    ] {
        rig.audit.gate.send_replace(Gate::Held);
        let (mut raw, _) = Raw::v4(&rig, device, true).await;
        raw.send4(&publish4(device, qos, 1, vec![0; 40])).await;
        eventually("the record is being written", || {
            rig.audit.gate.receiver_count() == 1
        })
        .await;
        // Two, because the first answer may overtake what is said at the same time.
        for _ in 0..2 {
            raw.send4(&Packet::PingReq).await;
            assert_eq!(raw.packet().await.unwrap(), [0xD0, 0]);
        }
        rig.audit.gate.send_replace(Gate::Open);
        assert_eq!(raw.packet().await.unwrap(), answer);
    }
}

#[tokio::test]
async fn what_cannot_be_made_durable_closes_without_acknowledgement() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    rig.audit.gate.send_replace(Gate::Broken);
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send4(&publish4(&device, QoS::AtLeastOnce, 1, vec![0; 40]))
        .await;
    assert_eq!(raw.read4().await, None);

    // The same with a good message and a store that is gone.
    rig.audit.gate.send_replace(Gate::Open);
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    let message = rig.seal(&device, 1);
    rig.store.clone().close().await;
    raw.send4(&publish4(&device, QoS::AtLeastOnce, 1, message))
        .await;
    assert_eq!(raw.read4().await, None);
    eventually("counted", || rig.metrics.closed(Closing::Storage) == 2).await;
    assert_eq!(rig.metrics.acked(), 0);
}

#[tokio::test]
async fn v5_is_told_why() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let unassigned = {
        let device = rig.stranger("mon-2", &rig.authority);
        rig.store
            .registry
            .enroll_device(&device.certificate, SystemClock.now())
            .await
            .unwrap();
        device
    };
    let (mut raw, ack) = Raw::v5(&rig, &device, "mon-1").await;
    let offered = ack.properties.unwrap();
    assert_eq!(offered.receive_max, Some(64));
    assert_eq!(offered.max_packet_size, Some(300 << 10));

    let topic = device.vitals();
    let mut flipped = rig.seal(&device, 7);
    let last = flipped.len() - 10;
    flipped[last] ^= 1;
    let cases = [
        (rig.seal(&device, 1), PubAckReason::Success),
        (
            rig.seal(&device, 1),
            PubAckReason::ImplementationSpecificError,
        ), // same counters, sealed anew: a fork
        (vec![0; 40], PubAckReason::PayloadFormatInvalid),
        (
            rig.seal_value(&device, 3, 9_000.0),
            PubAckReason::PayloadFormatInvalid,
        ),
        (
            rig.seal_payload(&device, &rig.patient, 4, b"no senml"),
            PubAckReason::PayloadFormatInvalid,
        ),
        (flipped, PubAckReason::ImplementationSpecificError),
    ];
    for (id, (payload, reason)) in (1..).zip(cases) {
        raw.send5(&publish5(&topic, QoS5::AtLeastOnce, id, payload))
            .await;
        match raw.read5().await {
            Some(Packet5::PubAck(ack)) => assert_eq!((ack.pkid, ack.reason), (id, reason)),
            other => panic!("{other:?}"),
        }
    }
    use QuarantineReason as R;
    assert_eq!(
        rig.audit.quarantined()[..4],
        [R::Fork, R::Shape, R::Implausible, R::Payload]
    );

    // Another device's topic: refused in words, and the session goes on.
    raw.send5(&publish5(
        "v1/d/mon-2/vitals",
        QoS5::AtLeastOnce,
        9,
        rig.seal(&device, 9),
    ))
    .await;
    raw.send5(&publish5(
        "v1/d/mon-2/vitals",
        QoS5::ExactlyOnce,
        10,
        rig.seal(&device, 9),
    ))
    .await;
    match (raw.read5().await, raw.read5().await) {
        (Some(Packet5::PubAck(ack)), Some(Packet5::PubRec(rec))) => {
            assert_eq!(ack.reason, PubAckReason::NotAuthorized);
            assert_eq!(rec.reason, PubRecReason::NotAuthorized);
        }
        other => panic!("{other:?}"),
    }

    let (mut raw, _) = Raw::v5(&rig, &unassigned, "mon-2").await;
    let message = rig.seal(&unassigned, 1);
    raw.send5(&publish5(
        &unassigned.vitals(),
        QoS5::AtLeastOnce,
        1,
        message,
    ))
    .await;
    match raw.read5().await {
        Some(Packet5::PubAck(ack)) => assert_eq!(ack.reason, PubAckReason::NotAuthorized),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.rows().await, 1);
}

#[tokio::test]
async fn a_relayed_message_counts_against_the_relay() {
    let rig = Rig::start().await;
    let (owner, relay) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let outcome = rig
        .pipeline
        .submit(&relay.id, rig.seal(&owner, 1).into())
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Quarantined(QuarantineReason::Identity));
    // The owner's own copy is not taken for a replay.
    let outcome = rig
        .pipeline
        .submit(&owner.id, rig.seal(&owner, 1).into())
        .await
        .unwrap();
    let (readings, gap) = (1, false);
    assert_eq!(outcome, Outcome::Stored { readings, gap });
}

#[tokio::test]
async fn an_erased_patients_late_message_leaves_no_body() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let late = rig.seal(&device, 1);
    let mut broken = rig.seal(&device, 2);
    let last = broken.len() - 10;
    broken[last] ^= 1;
    rig.store
        .keys
        .erase(&rig.patient, "erasure-1", SystemClock.now())
        .await
        .unwrap();
    for message in [late, broken] {
        rig.pipeline
            .submit(&device.id, message.into())
            .await
            .unwrap();
    }
    let kept = rig.store.inbox.quarantined(10).await.unwrap();
    assert!(kept.iter().all(|row| row.size == 0), "{kept:?}");
    assert!(
        rig.audit
            .quarantined()
            .contains(&QuarantineReason::PatientErased)
    );
    assert_eq!(rig.rows().await, 0);
}

#[tokio::test]
async fn many_copies_at_once_make_one_row() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let message = bytes::Bytes::from(rig.seal(&device, 1));
    let copies = (0..40).map(|_| rig.pipeline.submit(&device.id, message.clone()));
    let outcomes = futures::future::try_join_all(copies).await.unwrap();
    let stored = |outcome: &&Outcome| matches!(outcome, Outcome::Stored { .. });
    assert_eq!(outcomes.iter().filter(stored).count(), 1);
    assert_eq!(rig.rows().await, 1);
}
