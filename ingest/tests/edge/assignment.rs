//! A message is for a patient when its device measured that patient for all of its time, whenever it comes.

use jiff::SignedDuration;
use vitalseal_ingest::Outcome;
use vitalseal_storage::{Clock as _, QuarantineReason, SystemClock};

use crate::past::{Past, ago, device_since, newest};
use crate::rig::Rig;

const NOT_ASSIGNED: Outcome = Outcome::Quarantined(QuarantineReason::NotAssigned);

const fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

const fn stored(readings: u32) -> Outcome {
    Outcome::Stored {
        readings,
        gap: false,
    }
}

#[tokio::test]
async fn a_device_that_was_offline_over_a_reassignment_loses_nothing_and_mixes_no_one_up() {
    let rig = Rig::start().await;
    let registry = &rig.store.registry;
    let now = SystemClock.now();
    let next = registry.add_patient(None, None, now).await.unwrap();
    // Ours from an hour to half an hour ago, then the next patient.
    let device = device_since(&rig, "mon-1", ago(minutes(60))).await;
    let from = ago(minutes(30));
    registry
        .assign_device(&device.id, &next, from)
        .await
        .unwrap();

    let ours = Past::new(&rig, minutes(40));
    let theirs = Past {
        subject: next.clone(),
        ..Past::new(&rig, minutes(5))
    };
    let across = vec![ago(minutes(32)), ago(minutes(28))];
    let cases = [
        (
            &ours,
            vec![ago(minutes(59)), ago(minutes(31))],
            stored(2),
            "",
        ),
        (
            &theirs,
            vec![ago(minutes(29)), ago(minutes(6))],
            stored(2),
            "",
        ),
        // Clocks differ: a minute over either end is the device's word.
        (
            &ours,
            vec![from + SignedDuration::from_secs(59)],
            stored(1),
            "",
        ),
        (
            &theirs,
            vec![from - SignedDuration::from_secs(59)],
            stored(1),
            "",
        ),
        (&ours, vec![ago(minutes(62))], NOT_ASSIGNED, "before"),
        (&ours, vec![ago(minutes(20))], NOT_ASSIGNED, "after"),
        (&theirs, vec![ago(minutes(40))], NOT_ASSIGNED, "before"),
        // Partly is not at all: nobody can say whose the first half is.
        (&ours, across.clone(), NOT_ASSIGNED, "after"),
        (&theirs, across, NOT_ASSIGNED, "before"),
    ];
    for (sequence, (message, measured, expected, side)) in (0..).zip(cases) {
        let mut message = message.clone();
        message.sequence = sequence;
        message.issued_at = ago(minutes(1));
        message.measured = measured;
        let sealed = message.seal(&rig, &device).bytes;
        assert_eq!(rig.submit(&device, sealed).await, expected, "{sequence}");
        if expected == NOT_ASSIGNED {
            let row = newest(&rig).await;
            assert!(row.detail.contains(side), "{sequence}: {}", row.detail);
            // The log outlives the patient: it names no instant at which somebody was measured.
            assert!(!row.detail.contains(|c: char| c.is_ascii_digit()));
            assert_eq!(row.subject, Some(message.subject));
        }
    }
}

#[tokio::test]
async fn between_two_assignments_to_one_patient_a_device_measured_somebody_else() {
    let rig = Rig::start().await;
    let registry = &rig.store.registry;
    let other = registry
        .add_patient(None, None, SystemClock.now())
        .await
        .unwrap();
    let device = device_since(&rig, "mon-1", ago(minutes(60))).await;
    for (subject, since) in [(&other, 40), (&rig.patient, 20)] {
        let since = ago(minutes(since));
        registry
            .assign_device(&device.id, subject, since)
            .await
            .unwrap();
    }
    let message = |sequence, first, last| Past {
        sequence,
        issued_at: ago(minutes(1)),
        measured: vec![ago(minutes(first)), ago(minutes(last))],
        ..Past::new(&rig, minutes(1))
    };
    for (message, expected) in [
        (message(0, 30, 29), NOT_ASSIGNED),
        (message(1, 50, 10), NOT_ASSIGNED),
        (message(2, 50, 45), stored(2)),
        (message(3, 19, 10), stored(2)),
    ] {
        let sealed = message.seal(&rig, &device).bytes;
        assert_eq!(
            rig.submit(&device, sealed).await,
            expected,
            "{}",
            message.sequence
        );
    }
    let details: Vec<_> = rig.store.inbox.quarantined(2).await.unwrap();
    assert!(details.iter().all(|row| row.detail.contains("while")));
}

#[tokio::test]
async fn an_assignment_that_was_forgotten_is_entered_and_lets_the_message_in() {
    let rig = Rig::start().await;
    let registry = &rig.store.registry;
    let late = registry
        .add_patient(None, None, SystemClock.now())
        .await
        .unwrap();
    let device = device_since(&rig, "mon-1", ago(minutes(60))).await;
    let message = Past {
        subject: late.clone(),
        ..Past::new(&rig, minutes(10))
    };
    let sealed = message.seal(&rig, &device).bytes;
    assert_eq!(rig.submit(&device, sealed.clone()).await, NOT_ASSIGNED);
    assert!(newest(&rig).await.detail.contains("never"));
    let since = ago(minutes(15));
    registry
        .assign_device(&device.id, &late, since)
        .await
        .unwrap();
    assert_eq!(rig.submit(&device, sealed).await, stored(1));
    // An erased patient's assignment says nothing any more.
    rig.store
        .keys
        .erase(&late, "e1", SystemClock.now())
        .await
        .unwrap();
    let after = Past {
        sequence: 1,
        ..message
    };
    let sealed = after.seal(&rig, &device).bytes;
    let erased = Outcome::Quarantined(QuarantineReason::PatientErased);
    assert_eq!(rig.submit(&device, sealed).await, erased);
}
