//! Acknowledged means stored, once; refused means kept, sealed.

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use futures::future::join_all;

use super::*;
use vitalseal_crypto::CloneKind;

use crate::inbox::{Fork, InboxError, Judgement, NewQuarantine};
use crate::ports::QuarantineReason;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_stored_once_whatever_is_repeated_and_whenever() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    // Many at once, each three times: within a batch, across batches.
    let wave = |store: &Store| {
        let tasks: Vec<_> = (0..900_u64)
            .map(|n| {
                let (inbox, admission) = (store.inbox.clone(), admission(&subject, n / 3));
                tokio::spawn(async move { inbox.admit(admission).await.unwrap() })
            })
            .collect();
        join_all(tasks)
    };
    let outcomes: Vec<_> = wave(&store).await.into_iter().map(Result::unwrap).collect();
    let stored = outcomes.iter().filter(|o| **o == Judgement::Stored).count();
    let duplicates = outcomes
        .iter()
        .filter(|o| **o == Judgement::Duplicate)
        .count();
    assert_eq!((stored, duplicates), (300, 600));

    // Killed without a word, then repeated; flushed, then repeated; reopened, then repeated.
    let copy = site.power_cut();
    let store = copy.open().await.unwrap();
    let all_known = |outcomes: Vec<Result<Judgement, _>>| {
        assert!(
            outcomes
                .into_iter()
                .all(|o: Result<_, tokio::task::JoinError>| o.unwrap() == Judgement::Duplicate)
        );
    };
    all_known(wave(&store).await);
    assert_eq!(store.inbox.pending().await.unwrap(), (300, 180_000));
    assert_eq!(store.flush(at(500)).await.unwrap().files[0].messages, 300);
    all_known(wave(&store).await);
    store.close().await;
    let store = copy.open().await.unwrap();
    all_known(wave(&store).await);
    assert_eq!(store.inbox.pending().await.unwrap(), (0, 0));
    assert_eq!(store.inbox.seen(&message(7)).await.unwrap(), Some([7; 32]));
    assert_eq!(store.inbox.seen(&message(300)).await.unwrap(), None);
}

const SAME_COUNTERS: Judgement = Judgement::Fork(Fork {
    kind: CloneKind::SameCounters,
    other: 1,
});

#[tokio::test]
async fn the_same_counters_over_other_bytes_are_a_fork_and_store_nothing() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let other = |n| Admission {
        signed_hash: [255; 32],
        ..admission(&subject, n)
    };
    // In one batch, in the next, and after the flush.
    let (inbox, first, clone) = (&store.inbox, admission(&subject, 1), other(1));
    let (a, b) = tokio::join!(inbox.admit(first), inbox.admit(clone));
    assert_eq!((a.unwrap(), b.unwrap()), (Judgement::Stored, SAME_COUNTERS));
    assert_eq!(inbox.admit(other(1)).await.unwrap(), SAME_COUNTERS);
    store.flush(at(100)).await.unwrap();
    assert_eq!(inbox.admit(other(1)).await.unwrap(), SAME_COUNTERS);
    assert_eq!(
        inbox.admit(admission(&subject, 1)).await.unwrap(),
        Judgement::Duplicate
    );
    assert_eq!(inbox.pending().await.unwrap().0, 0);
    // Another boot of the same device is another message.
    let mut later = admission(&subject, 1);
    later.message.boot = 2;
    assert_eq!(inbox.admit(later).await.unwrap(), Judgement::Stored);
}

#[tokio::test]
async fn counters_and_counts_that_do_not_fit_are_refused_before_the_batch() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let mut high = admission(&subject, 1);
    high.message.boot = vitalseal_crypto::MAX_COUNTER + 1;
    assert!(matches!(
        store.inbox.admit(high).await,
        Err(InboxError::OutOfRange(_))
    ));
    let many = Admission {
        readings: u32::MAX,
        ..admission(&subject, 1)
    };
    assert!(matches!(
        store.inbox.admit(many).await,
        Err(InboxError::OutOfRange(_))
    ));
    let mut top = admission(&subject, 1);
    top.message.sequence = vitalseal_crypto::MAX_COUNTER;
    assert_eq!(store.inbox.admit(top).await.unwrap(), Judgement::Stored);
    let absurd = MessageId {
        device: device(1),
        boot: u64::MAX,
        sequence: u64::MAX,
    };
    assert_eq!(store.inbox.seen(&absurd).await.unwrap(), None);
}

#[tokio::test]
async fn when_the_disk_refuses_everybody_in_the_batch_is_told_and_nothing_is_half_stored() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    // A trigger stands in for a disk that fails in the middle of a batch.
    let pool = store.inbox.database().pool();
    sqlx::query(
        "CREATE TRIGGER full BEFORE INSERT ON inbox WHEN NEW.sequence = 5 \
         BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    )
    .execute(pool)
    .await
    .unwrap();
    // One thread: all ten are queued before the writer looks.
    let sent = join_all((0..10).map(|n| store.inbox.admit(admission(&subject, n)))).await;
    assert!(
        sent.iter().all(|s| matches!(s, Err(InboxError::Batch(_)))),
        "{sent:?}"
    );
    assert_eq!(store.inbox.pending().await.unwrap().0, 0);
    assert_eq!(store.inbox.seen(&message(0)).await.unwrap(), None);
    sqlx::query("DROP TRIGGER full")
        .execute(pool)
        .await
        .unwrap();
    let sent = join_all((0..10).map(|n| store.inbox.admit(admission(&subject, n)))).await;
    assert!(
        sent.iter().all(|s| matches!(s, Ok(Judgement::Stored))),
        "{sent:?}"
    );
}

#[tokio::test]
async fn after_close_nobody_is_told_that_anything_is_durable() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let inbox = store.inbox.clone();
    store.close().await;
    assert!(matches!(
        inbox.admit(admission(&subject, 1)).await,
        Err(InboxError::Closed)
    ));
}

#[tokio::test]
async fn a_refused_cleartext_body_is_in_no_file_and_reads_back() {
    const CLEARTEXT: &[u8] = b"heart rate of Nomen Nescio is 71 per minute, in the clear";
    let site = Site::new();
    let store = site.create().await;
    let refused = NewQuarantine {
        device: device(1),
        message: Some((1, 9)),
        reason: QuarantineReason::Shape,
        detail: "not a COSE_Encrypt".into(),
        received_at: at(9),
        subject: None,
        body: Some(CLEARTEXT.to_vec()),
        releasable: None,
        introduced: None,
        place: None,
        clone_proof: None,
    };
    store.quarantine(refused.clone()).await.unwrap();
    // Not acknowledged, so sent again; and once without counters, which are then told apart.
    store.quarantine(refused.clone()).await.unwrap();
    store
        .quarantine(NewQuarantine {
            message: None,
            ..refused.clone()
        })
        .await
        .unwrap();
    // Nothing is kept of what no envelope can be, but that it came.
    let huge = vec![0; vitalseal_crypto::MAX_ENVELOPE_BYTES + 1];
    let reason = QuarantineReason::TooLarge;
    store
        .quarantine(NewQuarantine {
            message: None,
            reason,
            subject: None,
            body: Some(huge),
            ..refused
        })
        .await
        .unwrap();

    for copy in [&site.power_cut(), &site] {
        for (path, bytes) in every_file(copy.dir.path()) {
            for needle in [&CLEARTEXT[..12], &CLEARTEXT[30..]] {
                assert!(!contains(&bytes, needle), "cleartext in {}", path.display());
            }
        }
    }
    let rows = store.inbox.quarantined(10).await.unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0].size, rows[0].reason), (262_145, reason));
    assert_eq!(store.quarantined_body(rows[0].id).await.unwrap(), None);
    assert_eq!((rows[2].times, rows[2].message), (2, Some((1, 9))));
    for row in &rows[1..] {
        let body = store.quarantined_body(row.id).await.unwrap().unwrap();
        assert_eq!(body.as_slice(), CLEARTEXT);
    }
    // The body is bound to its row: it does not open as another device's.
    sqlx::query("UPDATE quarantine SET device = 'monitor-2'")
        .execute(store.inbox.database().pool())
        .await
        .unwrap();
    assert!(matches!(
        store.quarantined_body(rows[2].id).await,
        Err(StoreError::Inbox(InboxError::Seal(_)))
    ));
}

#[tokio::test]
async fn a_cut_shows_authorized_patients_only_sorted() {
    let site = Site::new();
    let store = site.create().await;
    let (mine, other) = (patient(&store).await, patient(&store).await);
    for n in [5, 3, 4] {
        store.inbox.admit(admission(&mine, n)).await.unwrap();
        store.inbox.admit(admission(&other, n + 10)).await.unwrap();
    }
    let cut = store.cut(&authorized(&[&mine])).await.unwrap();
    assert_eq!(cut.hot.schema(), crate::schema::sealed_rows());
    let sequences = cut
        .hot
        .column_by_name("sequence")
        .unwrap()
        .as_primitive::<Int64Type>();
    assert_eq!(sequences.values(), &[3, 4, 5]);
    let nobody = store.cut(&Authorized::default()).await.unwrap();
    assert_eq!((nobody.hot.num_rows(), nobody.files.len()), (0, 0));
}
