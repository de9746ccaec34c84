//! Kept messages under review: settled once, whoever was first; counted against their limit.

use super::*;
use crate::inbox::{InboxError, NewQuarantine, QuarantineFilter, QuarantineState, Settled};
use crate::ports::QuarantineReason;

fn refused(n: u32, sequence: u64, reason: QuarantineReason) -> NewQuarantine {
    NewQuarantine {
        device: device(n),
        message: Some((1, sequence)),
        reason,
        detail: "as a test has it".into(),
        received_at: at(1),
        subject: None,
        body: Some(vec![7; 1_000]),
        releasable: None,
        introduced: None,
        place: None,
        clone_proof: None,
    }
}

fn settled(by: &str) -> Settled {
    Settled {
        at: at(50),
        by: by.into(),
        reason: "checked with the ward".into(),
    }
}

#[tokio::test]
async fn a_row_is_settled_once_and_keeps_everything_but_its_body() {
    let site = Site::new();
    let store = site.create().await;
    for (n, sequence, reason) in [
        (1, 1, QuarantineReason::Stale),
        (1, 2, QuarantineReason::NotYet),
        (2, 1, QuarantineReason::Stale),
    ] {
        store
            .quarantine(refused(n, sequence, reason))
            .await
            .unwrap();
    }
    let inbox = &store.inbox;
    let listed = async |device, reason, state| {
        let filter = QuarantineFilter {
            device,
            reason,
            state,
        };
        let rows = inbox.quarantine_list(&filter, 10).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, None, None).await, [3, 2, 1]);
    assert_eq!(listed(Some(device(1)), None, None).await, [2, 1]);
    let stale = Some(QuarantineReason::Stale);
    assert_eq!(listed(Some(device(1)), stale, None).await, [1]);

    // Two at once: one of them was first.
    let (one, two) = tokio::join!(
        inbox.settle(1, QuarantineState::Released, settled("a")),
        inbox.settle(1, QuarantineState::Dropped, settled("b")),
    );
    assert_eq!((one.unwrap(), two.unwrap()), (true, false));
    assert!(
        !inbox
            .settle(77, QuarantineState::Dropped, settled("a"))
            .await
            .unwrap()
    );
    let row = inbox.quarantine_row(1).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.has_body, row.size, row.settled),
        (QuarantineState::Released, false, 1_000, Some(settled("a")))
    );
    assert_eq!(store.quarantined_body(1).await.unwrap(), None);
    assert_eq!(
        listed(None, None, Some(QuarantineState::Held)).await,
        [3, 2]
    );
    assert_eq!(inbox.quarantine_held().await.unwrap(), 2);

    // The device repeats it: it stays settled.
    store
        .quarantine(refused(1, 1, QuarantineReason::Stale))
        .await
        .unwrap();
    let row = inbox.quarantine_row(1).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.times, row.has_body),
        (QuarantineState::Released, 2, false)
    );
}

#[tokio::test]
async fn a_full_quarantine_keeps_what_it_has_and_takes_nothing_that_it_would_have_to_lose() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let inbox = &store.inbox;
    inbox.limit_quarantine(2_500);
    let keep = async |sequence: u64, reason, releasable: bool| {
        let hash = [u8::try_from(sequence).unwrap(); 32];
        let refused = NewQuarantine {
            subject: Some(subject.clone()),
            releasable: releasable.then_some(hash),
            ..refused(1, sequence, reason)
        };
        store.quarantine(refused).await
    };
    let stale = QuarantineReason::Stale;
    for sequence in [1, 2] {
        keep(sequence, stale, true).await.unwrap();
    }
    inbox.limit_quarantine(2_000);
    keep(2, stale, true).await.unwrap();
    assert_eq!(
        inbox.quarantine_bytes(),
        2_000,
        "a repetition takes no room"
    );
    let refused = keep(3, stale, true).await.unwrap_err();
    assert!(matches!(
        refused,
        StoreError::Inbox(InboxError::QuarantineFull)
    ));
    // What could never be stored is counted without its body, so nobody can fill it up for others: nor with what says
    // that it is of a device that is shut out, and is not signed.
    for reason in [
        QuarantineReason::Signature,
        QuarantineReason::DeviceNotActive,
    ] {
        keep(4, reason, false).await.unwrap();
        let row = inbox.quarantined(1).await.unwrap().remove(0);
        assert_eq!((row.reason, row.size, row.has_body), (reason, 1_000, false));
    }

    inbox
        .settle(1, QuarantineState::Dropped, settled("a"))
        .await
        .unwrap();
    keep(3, stale, true).await.unwrap();
    assert_eq!(inbox.quarantine_bytes(), 2_000);
    // Counted again at the next start.
    store.close().await;
    let store = site.open().await.unwrap();
    assert_eq!(store.inbox.quarantine_bytes(), 2_000);
    // An erasure takes the bodies along.
    store.keys.erase(&subject, "e1", at(60)).await.unwrap();
    assert_eq!(store.inbox.quarantine_bytes(), 0);
    assert_eq!(store.inbox.quarantine_held().await.unwrap(), 4);
}

/// Whoever is told that a message is kept forgets it.
#[tokio::test]
async fn only_the_same_bytes_are_the_same_message_whatever_counters_they_claim() {
    let site = Site::new();
    let store = site.create().await;
    for (message, releasable) in [
        (Some((1, 1)), None),
        (None, None),
        (Some((1, 1)), Some([7; 32])),
        (Some((1, 1)), Some([8; 32])),
    ] {
        for (round, body) in [(1, b"one"), (2, b"one"), (1, b"two")] {
            let refused = NewQuarantine {
                message,
                releasable,
                body: Some(body.to_vec()),
                ..refused(1, 1, QuarantineReason::Stale)
            };
            store.quarantine(refused).await.unwrap();
            let rows = store.inbox.quarantined(1).await.unwrap();
            let kept = store.quarantined_body(rows[0].id).await.unwrap().unwrap();
            // Wrapped anew, what is signed is still the same message.
            let (times, expected) = match (releasable, body) {
                (Some(_), b"two") => (3, b"one"),
                _ => (round, body),
            };
            assert_eq!((rows[0].times, kept.as_slice()), (times, &expected[..]));
        }
    }
    assert_eq!(store.inbox.quarantine_held().await.unwrap(), 6);
    assert_eq!(store.inbox.quarantine_bytes(), 18);
}
