//! A message's place among its device's others: boots that do not lie over each other in time, and old messages that the
//! chain puts in order.

use jiff::SignedDuration;
use vitalseal_crypto::MessageId;

use super::chain::shuffle;
use super::*;
use crate::inbox::{Judgement, NewQuarantine, Place, Required};
use crate::ports::QuarantineReason;

const TOLERANCE: SignedDuration = SignedDuration::from_secs(600);

/// A message of `boot` that was sealed `seconds` after some instant.
fn sealed(subject: &SubjectPseudonym, boot: u64, sequence: u64, seconds: i64) -> Admission {
    Admission {
        message: MessageId {
            boot,
            ..message(sequence)
        },
        issued_at: at(seconds),
        required: Required {
            link: false,
            boot_overlap: Some(TOLERANCE),
        },
        ..admission(subject, sequence)
    }
}

fn overlaps(other: u64) -> Judgement {
    Judgement::BootsOverlap { other }
}

#[tokio::test]
async fn two_devices_on_one_key_are_told_by_boots_that_run_at_the_same_time_whichever_comes_first()
{
    for swapped in [false, true] {
        let site = Site::new();
        let store = site.create().await;
        let subject = patient(&store).await;
        // Boot 5 runs from 0 to 3,600; a second device with its key begins boot 6 at 1,800.
        let mut messages = vec![(5, 0, 0), (5, 1, 3_600), (6, 0, 1_800), (6, 1, 3_500)];
        if swapped {
            messages.rotate_left(2);
        }
        let mut found = Vec::new();
        for (boot, sequence, seconds) in messages {
            let sent = sealed(&subject, boot, sequence, seconds);
            found.push((boot, sequence, store.inbox.admit(sent).await.unwrap()));
        }
        let expected = if swapped {
            [
                (6, 0, Judgement::Stored),
                (6, 1, Judgement::Stored),
                (5, 0, Judgement::Stored),
                (5, 1, overlaps(6)),
            ]
        } else {
            [
                (5, 0, Judgement::Stored),
                (5, 1, Judgement::Stored),
                (6, 0, overlaps(5)),
                (6, 1, Judgement::Stored),
            ]
        };
        assert_eq!(found, expected, "swapped: {swapped}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_and_an_outbox_that_sends_old_boots_late_are_no_clone() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let boots = [
        // The clock is set back by up to the tolerance over a restart.
        (1, [0, 1_000]),
        (2, [400, 2_000]),
        (4, [8_000, 9_000]),
        // Boot 3 stood in an outbox until now, and reaches into both neighbours by the tolerance.
        (3, [1_400, 8_600]),
        (5, [9_000, 9_500]),
    ];
    // One by one, and again as one batch of another device.
    for (boot, instants) in boots {
        for (sequence, seconds) in (0..).zip(instants) {
            let sent = sealed(&subject, boot, sequence, seconds);
            assert_eq!(store.inbox.admit(sent).await.unwrap(), Judgement::Stored);
        }
    }
    let batch = boots.iter().flat_map(|(boot, instants)| {
        (0..).zip(instants).map(|(sequence, seconds)| {
            let sent = sealed(&subject, *boot, sequence, *seconds);
            store.inbox.admit(Admission {
                message: MessageId {
                    device: device(2),
                    ..sent.message
                },
                ..sent
            })
        })
    });
    for judged in futures::future::join_all(batch).await {
        assert_eq!(judged.unwrap(), Judgement::Stored);
    }
    // Beyond the tolerance by a second, on either side, after a restart of the server too.
    store.close().await;
    let store = site.open().await.unwrap();
    for (boot, seconds, other) in [(6, 8_899, 5), (3, 8_601, 4), (2, 2_001, 3)] {
        let sent = sealed(&subject, boot, 9, seconds);
        assert_eq!(store.inbox.admit(sent).await.unwrap(), overlaps(other));
    }
    // What was refused does not count for others; nor does an instant that a person let pass.
    let overruled = Admission {
        required: Required::default(),
        ..sealed(&subject, 6, 9, 100)
    };
    let inbox = &store.inbox;
    assert_eq!(inbox.admit(overruled).await.unwrap(), Judgement::Stored);
    let next = sealed(&subject, 6, 10, 9_600);
    assert_eq!(inbox.admit(next).await.unwrap(), Judgement::Stored);
}

/// A device that restarts eight times, each time with a clock that goes back by as much as it may, and a second one that
/// joins in under its key for two minutes with a boot number of its own.
#[tokio::test]
async fn in_any_order_an_honest_device_is_never_accused_and_a_second_one_always() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let mut seed = 3;
    for round in 0..40_u32 {
        let mut honest = Vec::new();
        let mut begin = 0;
        for boot in 1..9 {
            // At least as long as the tolerance: two short ones would add up.
            let end = begin + 600 + i64::from(round) * 40;
            honest.extend([(boot, 0, begin), (boot, 1, begin + 300), (boot, 2, end)]);
            begin = end - 600;
        }
        let half = honest[honest.len() / 2].2;
        let twin = [(100, 0, half - 60), (100, 1, half + 60)];
        for (n, messages) in [(1, honest.clone()), (2, [honest, twin.into()].concat())] {
            let mut messages = messages;
            shuffle(&mut messages, &mut seed);
            let sent = messages.iter().map(|(boot, sequence, seconds)| {
                let sent = sealed(&subject, *boot, *sequence, *seconds);
                store.inbox.admit(Admission {
                    message: MessageId {
                        device: device(round * 10 + n),
                        ..sent.message
                    },
                    ..sent
                })
            });
            // In one batch and one by one: the outcome is the order's, not the batch's.
            let mut accused = 0;
            if round % 2 == 0 {
                for judged in futures::future::join_all(sent).await {
                    accused += usize::from(!judged.unwrap().is_stored());
                }
            } else {
                for judged in sent {
                    accused += usize::from(!judged.await.unwrap().is_stored());
                }
            }
            assert_eq!(accused > 0, n == 2, "round {round}: {messages:?}");
        }
    }
}

fn hash(sequence: u64) -> [u8; 32] {
    [u8::try_from(sequence).unwrap() + 1; 32]
}

/// Message `sequence` of one chain, too old to be taken without it.
fn old(subject: &SubjectPseudonym, sequence: u64) -> Admission {
    Admission {
        signed_hash: hash(sequence),
        previous: sequence.checked_sub(1).map(hash),
        required: Required {
            link: true,
            boot_overlap: None,
        },
        ..admission(subject, sequence)
    }
}

/// The same message, refused for its content.
fn refused(sequence: u64, must_link: bool) -> NewQuarantine {
    NewQuarantine {
        device: device(1),
        message: Some((1, sequence)),
        reason: QuarantineReason::Implausible,
        detail: "out of range".into(),
        received_at: at(1),
        subject: None,
        body: Some(vec![7; 100]),
        releasable: None,
        introduced: None,
        place: Some(Place {
            signed_hash: hash(sequence),
            previous: sequence.checked_sub(1).map(hash),
            must_link,
        }),
        clone_proof: None,
    }
}

#[tokio::test]
async fn an_old_message_is_stored_only_where_the_chain_proves_its_place() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let admit = async |message| store.inbox.admit(message).await.unwrap();
    // The first of a boot proves itself, the next ones by it, in one batch too.
    let (first, second) = tokio::join!(admit(old(&subject, 0)), admit(old(&subject, 1)));
    assert_eq!((first, second), (Judgement::Stored, Judgement::Stored));
    // After a hole, nothing does; neither does a device that does not chain.
    assert_eq!(admit(old(&subject, 3)).await, Judgement::Stale);
    let unchained = Admission {
        previous: None,
        ..old(&subject, 2)
    };
    assert_eq!(admit(unchained).await, Judgement::Stale);
    // A fresh message beyond the hole names the one before it: that proves its place as well.
    let fresh = Admission {
        required: Required::default(),
        ..old(&subject, 4)
    };
    assert_eq!(admit(fresh).await, Judgement::StoredAfterGap);
    assert_eq!(admit(old(&subject, 3)).await, Judgement::StoredAfterGap);
    // Old or not, a repetition is a repetition.
    assert_eq!(admit(old(&subject, 0)).await, Judgement::Duplicate);
    let another = Admission {
        signed_hash: [99; 32],
        ..old(&subject, 0)
    };
    assert!(matches!(admit(another).await, Judgement::Fork(_)));
}

#[tokio::test]
async fn one_fault_in_a_backlog_does_not_take_the_proof_from_what_follows() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let admit = async |message| store.inbox.admit(message).await.unwrap();
    assert_eq!(admit(old(&subject, 0)).await, Judgement::Stored);
    for sequence in [1, 2] {
        store.quarantine(refused(sequence, true)).await.unwrap();
    }
    assert_eq!(admit(old(&subject, 3)).await, Judgement::StoredAfterGap);
    // A refused one whose own place is not proven proves nothing.
    store.quarantine(refused(6, true)).await.unwrap();
    assert_eq!(admit(old(&subject, 7)).await, Judgement::Stale);
    // … unless it was fresh, and would have been stored after its gap.
    store.quarantine(refused(9, false)).await.unwrap();
    assert_eq!(admit(old(&subject, 10)).await, Judgement::StoredAfterGap);
}
