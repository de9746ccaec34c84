//! A release overrules one judgement and no other, and is the same thing however often it is done.

use bytes::Bytes;
use jiff::SignedDuration;
use vitalseal_ingest::{Outcome, Released};
use vitalseal_storage::{
    Clock as _, QuarantineReason, QuarantineRow, QuarantineState, Settled, SystemClock,
};

use crate::past::{Past, ago, device_since, newest};
use crate::rig::{Device, Rig};

const STORED: Released = Released::Stored { readings: 1 };

const fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

async fn release(rig: &Rig, row: &QuarantineRow) -> Released {
    let body = rig.store.quarantined_body(row.id).await.unwrap().unwrap();
    let body = Bytes::copy_from_slice(&body);
    rig.pipeline.release(row, body).await.unwrap()
}

/// Submits a message that is refused for `reason`; its row.
async fn held(
    rig: &Rig,
    device: &Device,
    message: &Past,
    reason: QuarantineReason,
) -> QuarantineRow {
    let sealed = message.seal(rig, device).bytes;
    assert_eq!(
        rig.submit(device, sealed).await,
        Outcome::Quarantined(reason)
    );
    newest(rig).await
}

#[tokio::test]
async fn what_a_person_may_know_better_is_released_even_after_the_envelope_key_is_gone() {
    let rig = Rig::start().await;
    let device = device_since(&rig, "mon-1", ago(days(3))).await;
    let message = |boot, sequence, age| Past {
        boot,
        sequence,
        ..Past::new(&rig, age)
    };
    let stored = message(2, 0, SignedDuration::from_hours(1));
    let sealed = stored.seal(&rig, &device).bytes;
    assert!(matches!(
        rig.submit(&device, sealed).await,
        Outcome::Stored { .. }
    ));
    let mut rows = Vec::new();
    for (message, reason) in [
        (message(1, 5, days(2)), QuarantineReason::Stale),
        (message(2, 1, -days(1)), QuarantineReason::NotYet),
        (
            message(3, 0, SignedDuration::from_hours(2)),
            QuarantineReason::BootsOverlap,
        ),
        (
            Past {
                measured: vec![ago(days(4))],
                ..message(2, 2, SignedDuration::ZERO)
            },
            QuarantineReason::NotAssigned,
        ),
    ] {
        rows.push(held(&rig, &device, &message, reason).await);
    }
    let registry = &rig.store.registry;
    let suspended = registry.suspend_device(&device.id, "lost", SystemClock.now());
    assert!(suspended.await.unwrap());
    let message = message(2, 3, SignedDuration::ZERO);
    rows.push(held(&rig, &device, &message, QuarantineReason::DeviceNotActive).await);

    // All of them are fine but for that, and the suspension is no judgement of what came before it …
    for row in &rows[..4] {
        let refused = release(&rig, row).await;
        assert!(matches!(
            refused,
            Released::Refused {
                reason: QuarantineReason::DeviceNotActive,
                ..
            }
        ));
    }
    assert_eq!(release(&rig, &rows[4]).await, STORED);
    let reinstated = registry.reinstate_device(&device.id, "found", SystemClock.now());
    reinstated.await.unwrap();
    // … and the key that they were sealed for may be gone by then.
    rig.next_epoch(2).await;
    let tomorrow = SystemClock.now() + SignedDuration::from_hours(25);
    let gone = rig.store.keys.destroy_recipients_ended_before(tomorrow);
    assert_eq!(gone.await.unwrap().len(), 1);
    for row in &rows[..4] {
        assert_eq!(release(&rig, row).await, STORED, "{:?}", row.reason);
        assert_eq!(
            release(&rig, row).await,
            Released::Known,
            "{:?}",
            row.reason
        );
    }
    assert_eq!(rig.rows().await, 6);
}

#[tokio::test]
async fn a_second_fault_is_not_waived_and_what_cannot_be_overruled_stays() {
    let rig = Rig::start().await;
    let device = device_since(&rig, "mon-1", ago(days(3))).await;
    // Too old, and of a time in which the device measured nobody.
    let both = Past {
        sequence: 5,
        measured: vec![ago(days(5))],
        ..Past::new(&rig, days(2))
    };
    let row = held(&rig, &device, &both, QuarantineReason::NotAssigned).await;
    let refused = release(&rig, &row).await;
    let Released::Refused { reason, detail } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(reason, QuarantineReason::Stale);
    assert!(detail.contains("order"), "{detail}");
    // An implausible value is never overruled, nor is what names a patient whom the device never measured.
    let sealed = Past::new(&rig, SignedDuration::ZERO).seal_value(&rig, &device, 9_999.0);
    rig.submit(&device, sealed.bytes).await;
    let row = newest(&rig).await;
    assert!(matches!(
        release(&rig, &row).await,
        Released::Refused {
            reason: QuarantineReason::Implausible,
            ..
        }
    ));
    let registry = &rig.store.registry;
    let stranger = registry
        .add_patient(None, None, SystemClock.now())
        .await
        .unwrap();
    let never = Past {
        sequence: 7,
        subject: stranger,
        ..Past::new(&rig, SignedDuration::ZERO)
    };
    let row = held(&rig, &device, &never, QuarantineReason::NotAssigned).await;
    assert!(matches!(
        release(&rig, &row).await,
        Released::Refused {
            reason: QuarantineReason::NotAssigned,
            ..
        }
    ));
    assert_eq!((rig.rows().await, row.state), (0, QuarantineState::Held));
}

#[tokio::test]
async fn a_release_that_was_cut_short_is_finished_by_the_next_and_a_fork_of_it_is_still_one() {
    let mut rig = Rig::start().await;
    let device = device_since(&rig, "mon-1", ago(days(3))).await;
    let message = Past {
        sequence: 5,
        ..Past::new(&rig, days(2))
    };
    let row = held(&rig, &device, &message, QuarantineReason::Stale).await;
    assert_eq!(release(&rig, &row).await, STORED);
    // The server ends before the row is settled.
    let (data, _) = rig.directories();
    rig.reopened(&data).await;
    assert_eq!(newest(&rig).await.state, QuarantineState::Held);
    assert_eq!(release(&rig, &row).await, Released::Known);
    let settled = Settled {
        at: SystemClock.now(),
        by: "uid 0".into(),
        reason: "clock of the ward".into(),
    };
    let settled = rig
        .store
        .inbox
        .settle(row.id, QuarantineState::Released, settled);
    assert!(settled.await.unwrap());
    assert_eq!(rig.rows().await, 1);
    // The device sends it again: known. Other bytes under its counters: a clone, released or not.
    let again = message.seal(&rig, &device).bytes;
    let fork = Outcome::Quarantined(QuarantineReason::Fork);
    assert_eq!(rig.submit(&device, again).await, fork);
}

#[tokio::test]
async fn an_erased_patient_s_message_is_not_released() {
    let rig = Rig::start().await;
    let device = device_since(&rig, "mon-1", ago(days(3))).await;
    let message = Past {
        sequence: 5,
        ..Past::new(&rig, days(2))
    };
    let row = held(&rig, &device, &message, QuarantineReason::Stale).await;
    let body = rig.store.quarantined_body(row.id).await.unwrap().unwrap();
    let body = Bytes::copy_from_slice(&body);
    rig.store
        .keys
        .erase(&rig.patient, "e1", SystemClock.now())
        .await
        .unwrap();
    assert_eq!(rig.store.quarantined_body(row.id).await.unwrap(), None);
    // Even from a copy of the body.
    let refused = rig.pipeline.release(&row, body).await.unwrap();
    assert!(matches!(
        refused,
        Released::Refused {
            reason: QuarantineReason::PatientErased,
            ..
        }
    ));
}

#[tokio::test]
async fn a_full_quarantine_leaves_to_the_device_what_a_review_may_still_release() {
    let rig = Rig::start().await;
    let device = device_since(&rig, "mon-1", ago(days(3))).await;
    let old = Past {
        sequence: 5,
        ..Past::new(&rig, days(2))
    };
    let old = old.seal(&rig, &device).bytes;
    let fresh = Past::new(&rig, SignedDuration::ZERO);
    let submit = async |message: &[u8]| {
        let message = Bytes::copy_from_slice(message);
        rig.pipeline.submit(&device.id, message).await
    };
    rig.store.inbox.limit_quarantine(0);
    let refused = submit(&old).await.unwrap_err();
    assert!(refused.is_full(), "{refused}");
    // What is no envelope is nobody's loss, and what is good is stored as ever.
    let shape = Outcome::Quarantined(QuarantineReason::Shape);
    assert_eq!(submit(b"no envelope").await.unwrap(), shape);
    assert!(!newest(&rig).await.has_body);
    let fresh = submit(&fresh.seal(&rig, &device).bytes).await.unwrap();
    assert!(matches!(fresh, Outcome::Stored { .. }));
    rig.store.inbox.limit_quarantine(1 << 20);
    let stale = Outcome::Quarantined(QuarantineReason::Stale);
    assert_eq!(submit(&old).await.unwrap(), stale);
    assert!(newest(&rig).await.has_body);
    let counted: Vec<_> = rig.pipeline.quarantined();
    let counted: Vec<_> = counted
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    let (shape, stale) = (QuarantineReason::Shape, QuarantineReason::Stale);
    assert_eq!(counted, [(shape, 1), (stale, 1)]);
}
