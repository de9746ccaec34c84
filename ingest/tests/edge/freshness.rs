//! What a message's own clock says is believed within limits, and an old one only in the order that its device signed.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::SealedMessage;
use vitalseal_ingest::{Order, Outcome};
use vitalseal_storage::QuarantineReason;

use crate::past::{Past, ago, device_since, newest};
use crate::rig::{Device, Rig};

const STORED: Outcome = Outcome::Stored {
    readings: 1,
    gap: false,
};
const STALE: Outcome = Outcome::Quarantined(QuarantineReason::Stale);

const fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

const fn days(days: i64) -> SignedDuration {
    hours(24 * days)
}

async fn old_device(rig: &Rig) -> Device {
    device_since(rig, "mon-1", ago(days(100))).await
}

/// `count` messages of one boot in a chain, an hour apart, the first of this age.
fn backlog(
    rig: &Rig,
    device: &Device,
    boot: u64,
    age: SignedDuration,
    count: u64,
) -> Vec<SealedMessage> {
    let mut chain: Vec<SealedMessage> = Vec::new();
    for sequence in 0..count {
        let message = Past {
            boot,
            sequence,
            previous: chain.last().map(|message| message.signed_hash),
            ..Past::new(rig, age - hours(i64::try_from(sequence).unwrap()))
        };
        // One of them has a fault of its own.
        let value = if sequence == 3 { 9_999.0 } else { 72.0 };
        chain.push(message.seal_value(rig, device, value));
    }
    chain
}

#[tokio::test]
async fn a_backlog_of_a_week_is_taken_in_its_order_whatever_is_wrong_with_one_message_of_it() {
    let rig = Rig::start().await;
    let device = old_device(&rig).await;
    // Two boots, sent in one go as an outbox does: verified side by side, judged one after the other.
    let mut chain = backlog(&rig, &device, 1, days(7), 8);
    chain.extend(backlog(&rig, &device, 2, days(6), 3));
    let mut order = Order::default();
    let mut sent = Vec::new();
    for message in chain {
        let payload = Bytes::from(message.bytes);
        let credit = rig.pipeline.reserve(payload.len()).await.unwrap();
        sent.push(
            rig.pipeline
                .submit_reserved(credit, &mut order, device.id.clone(), payload),
        );
    }
    let mut outcomes = Vec::new();
    for outcome in sent {
        outcomes.push(outcome.await.unwrap());
    }
    let implausible = Outcome::Quarantined(QuarantineReason::Implausible);
    let after_it = Outcome::Stored {
        readings: 1,
        gap: true,
    };
    let mut expected = [STORED; 11];
    (expected[3], expected[4]) = (implausible, after_it);
    assert_eq!(outcomes, expected);
}

#[tokio::test]
async fn an_old_message_without_the_one_before_it_waits_for_a_review() {
    let rig = Rig::start().await;
    let device = old_device(&rig).await;
    let chain = backlog(&rig, &device, 1, hours(30), 3);
    let submit = async |message: &SealedMessage| rig.submit(&device, message.bytes.clone()).await;
    assert_eq!(submit(&chain[1]).await, STALE);
    assert!(newest(&rig).await.detail.contains("order"));
    // Within a day it would have been a gap, and no more.
    let fresh = backlog(&rig, &device, 2, hours(23), 3);
    let after_gap = Outcome::Stored {
        readings: 1,
        gap: true,
    };
    assert_eq!(submit(&fresh[2]).await, after_gap);
    // Old as it is: a repetition is known, and the first of its boot needs nothing before it.
    assert_eq!(submit(&chain[0]).await, STORED);
    assert_eq!(submit(&chain[0]).await, Outcome::Duplicate);
    // A device that does not chain proves nothing.
    let unchained = Past {
        boot: 1,
        sequence: 9,
        ..Past::new(&rig, hours(25))
    };
    assert_eq!(submit(&unchained.seal(&rig, &device)).await, STALE);
}

#[tokio::test]
async fn no_chain_makes_up_for_two_months() {
    let rig = Rig::start().await;
    let device = old_device(&rig).await;
    for (boot, age, expected) in [(1, days(61), STALE), (2, days(59), STORED)] {
        let first = Past {
            boot,
            ..Past::new(&rig, age)
        };
        let sealed = first.seal(&rig, &device).bytes;
        assert_eq!(rig.submit(&device, sealed).await, expected);
    }
}

#[tokio::test]
async fn a_clock_may_be_ahead_by_minutes_and_a_reading_never_behind_its_seal() {
    let rig = Rig::start().await;
    let device = old_device(&rig).await;
    let ahead = |minutes| ago(-SignedDuration::from_mins(minutes));
    let not_yet = Outcome::Quarantined(QuarantineReason::NotYet);
    let implausible = Outcome::Quarantined(QuarantineReason::Implausible);
    let message = |sequence, issued_at: Timestamp, measured: Timestamp| Past {
        sequence,
        issued_at,
        measured: vec![measured],
        ..Past::new(&rig, SignedDuration::ZERO)
    };
    for (sequence, issued_at, measured, expected) in [
        (0, ahead(4), ahead(4), STORED),
        (1, ahead(6), ahead(6), not_yet),
        (2, ahead(6), ago(hours(1)), not_yet),
        (3, ahead(0), ahead(4), STORED),
        (4, ahead(0), ahead(6), implausible),
        // Long ago, too: it contradicts itself, whatever our clock says.
        (5, ago(hours(2)), ago(hours(1)), implausible),
    ] {
        let sealed = message(sequence, issued_at, measured)
            .seal(&rig, &device)
            .bytes;
        assert_eq!(rig.submit(&device, sealed).await, expected, "{sequence}");
    }
    // A clock that was ahead is set right at the next boot: what was refused does not stand against it.
    let next = Past {
        boot: 2,
        ..Past::new(&rig, SignedDuration::ZERO)
    };
    let sealed = next.seal(&rig, &device).bytes;
    assert_eq!(rig.submit(&device, sealed).await, STORED);
}

#[tokio::test]
async fn a_second_boot_at_the_same_time_is_refused_and_kept() {
    let rig = Rig::start().await;
    let device = old_device(&rig).await;
    let message = |boot, sequence, age| Past {
        boot,
        sequence,
        ..Past::new(&rig, SignedDuration::from_mins(age))
    };
    let overlap = Outcome::Quarantined(QuarantineReason::BootsOverlap);
    for (boot, sequence, age, expected) in [
        (7, 0, 60, STORED),
        (7, 1, 20, STORED),
        // A restart whose clock goes back by less than the tolerance.
        (8, 0, 29, STORED),
        // Boot 7 still runs somewhere, as boot 8 does.
        (7, 2, 5, overlap),
        (6, 0, 40, overlap),
        (8, 1, 1, STORED),
    ] {
        let sealed = message(boot, sequence, age).seal(&rig, &device).bytes;
        assert_eq!(
            rig.submit(&device, sealed).await,
            expected,
            "{boot} {sequence}"
        );
    }
    let row = newest(&rig).await;
    assert_eq!((row.message, row.has_body), (Some((6, 0)), true));
}
