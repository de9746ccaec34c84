//! A release overrules one judgement and no other, and is the same thing however often it is done.

use bytes::Bytes;
use futures::future::join_all;
use jiff::SignedDuration;
use vitalseal_ingest::{Outcome, PipelineError, Released};
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

const SHUT_OUT: Outcome = Outcome::Quarantined(QuarantineReason::DeviceNotActive);

async fn suspend(rig: &Rig, device: &Device) {
    let registry = &rig.store.registry;
    let suspended = registry.suspend_device(&device.id, "lost", SystemClock.now());
    assert!(suspended.await.unwrap());
}

/// In a cluster, whoever waits holds up everybody behind it.
#[tokio::test]
async fn only_what_a_device_that_is_shut_out_has_signed_is_worth_waiting_for_room() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let stranger = rig.stranger("mon-2", &rig.authority);
    suspend(&rig, &device).await;
    rig.store.inbox.limit_quarantine(0);
    let signed = rig.seal(&device, 1);
    let mut forged = signed.clone();
    *forged.last_mut().unwrap() ^= 1;
    for (device, message) in [(&device, forged), (&stranger, rig.seal(&stranger, 1))] {
        assert_eq!(rig.submit(device, message).await, SHUT_OUT);
        assert!(!newest(&rig).await.has_body);
    }
    let waits = rig.pipeline.submit(&device.id, signed.clone().into()).await;
    assert!(waits.unwrap_err().is_full());
    // The forged one, which claims the same counters, does not stand for it.
    rig.store.inbox.limit_quarantine(1 << 20);
    for _ in 0..2 {
        assert_eq!(rig.submit(&device, signed.clone()).await, SHUT_OUT);
    }
    let row = newest(&rig).await;
    assert_eq!((row.times, row.has_body), (2, true));
    // Other signed bytes under its counters are another message.
    let other = rig.seal_value(&device, 1, 61.0);
    assert_eq!(rig.submit(&device, other).await, SHUT_OUT);
    let row = newest(&rig).await;
    assert_eq!((row.times, row.has_body), (1, true));
    assert_eq!(rig.store.inbox.quarantine_held().await.unwrap(), 4);
}

/// Kept as it came it would end with the envelope key, and its device has forgotten it by then.
#[tokio::test]
async fn what_could_not_be_wrapped_for_its_patient_for_want_of_a_key_is_not_acknowledged() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    suspend(&rig, &device).await;
    let message = rig.seal(&device, 1);
    let (_, roots) = rig.directories();
    let entries = std::fs::read_dir(&roots).unwrap();
    let mut files = entries.map(|entry| entry.unwrap().path());
    let cover = files
        .find(|path| path.to_string_lossy().contains("recipient"))
        .unwrap();
    let kept = std::fs::read(&cover).unwrap();
    std::fs::write(&cover, b"no key").unwrap();
    let failed = rig
        .pipeline
        .submit(&device.id, message.clone().into())
        .await;
    assert!(matches!(failed, Err(PipelineError::Keys(_))), "{failed:?}");
    assert_eq!(rig.store.inbox.quarantine_held().await.unwrap(), 0);
    std::fs::write(&cover, kept).unwrap();
    assert_eq!(rig.submit(&device, message).await, SHUT_OUT);
}

#[tokio::test]
async fn whoever_sends_nothing_but_junk_is_slowed_down_and_strangers_are_counted() {
    const FLOOD: u64 = 900;
    let rig = Rig::start().await;
    let (device, held) = (rig.device("mon-1").await, rig.device("mon-2").await);
    suspend(&rig, &held).await;
    let rows = async || rig.store.inbox.quarantine_held().await.unwrap();
    let junk = |n: u64| Bytes::copy_from_slice(&n.to_be_bytes());
    let flood = (0..FLOOD).map(|n| rig.pipeline.submit(&device.id, junk(n)));
    let outcomes = join_all(flood).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
    assert!(refused.iter().all(|error| error.is_full()));
    let kept = rows().await;
    assert_eq!(kept + u64::try_from(refused.len()).unwrap(), FLOOD);
    assert!((600..FLOOD).contains(&kept), "{kept}");
    assert_eq!(
        rig.audit.quarantined().len(),
        usize::try_from(kept).unwrap()
    );
    // What is good comes in as ever.
    let good = rig.submit(&device, rig.seal(&device, 1)).await;
    assert!(matches!(good, Outcome::Stored { .. }));

    let strangers = rig.pipeline.for_strangers();
    // Another name each time does not help them.
    let names: Vec<_> = (0..FLOOD)
        .map(|n| format!("any-{n}").parse().unwrap())
        .collect();
    let flood = names
        .iter()
        .zip(0..)
        .map(|(name, n)| strangers.submit(name, junk(n)));
    let shape = Outcome::Quarantined(QuarantineReason::Shape);
    for outcome in join_all(flood).await {
        assert_eq!(outcome.unwrap(), shape);
    }
    let before = rows().await;
    assert!((600..FLOOD).contains(&(before - kept)), "{before}");
    // What is signed is kept, whoever made a noise before.
    let signed = Bytes::from(rig.seal(&held, 1));
    assert_eq!(strangers.submit(&held.id, signed).await.unwrap(), SHUT_OUT);
    assert_eq!(rows().await, before + 1);
    assert!(newest(&rig).await.has_body);
}
