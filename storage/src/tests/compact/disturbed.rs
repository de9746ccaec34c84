//! What may come between: a crash, another task, damage, a caller that goes away. No message is lost or doubled by it, and
//! no file is left over.

use super::*;

#[tokio::test]
async fn a_crash_at_any_step_of_a_compaction_loses_doubles_and_orphans_nothing() {
    for point in [
        CrashPoint::UpkeepPlanned,
        CrashPoint::FileHalfWritten,
        CrashPoint::UpkeepWritten,
        CrashPoint::UpkeepProved,
        CrashPoint::UpkeepCommitted,
    ] {
        let site = Site::new();
        let store = site.create().await;
        let (_, [a, b]) = flushed(&store).await;
        let both = [&a, &b];
        let before = found(&store, &both).await;
        store.crash().arm(point);
        assert!(store.compact(at(900), &forced(), &Unwatched).await.is_err());
        assert_eq!(
            envelopes(&found(&store, &both).await),
            envelopes(&before),
            "{point:?}"
        );

        let copy = site.power_cut();
        let opened = copy.open().await.unwrap();
        assert_eq!(
            envelopes(&found(&opened, &both).await),
            envelopes(&before),
            "{point:?}"
        );
        let there: BTreeSet<String> = copy.parquet_files().into_iter().collect();
        assert_eq!(there, known(&opened).await, "{point:?}");
        compact_all(&opened, 1000).await;
        assert_eq!(
            envelopes(&found(&opened, &both).await),
            envelopes(&before),
            "{point:?}"
        );
        let there: BTreeSet<String> = copy.parquet_files().into_iter().collect();
        assert_eq!(there, known(&opened).await, "{point:?}");

        // The same process goes on past the point where it failed.
        store.crash().arm(CrashPoint::TreeCommitted);
        store.flush(at(901)).await.unwrap();
        compact_all(&store, 1000).await;
        assert_eq!(
            envelopes(&found(&store, &both).await),
            envelopes(&before),
            "{point:?}"
        );
        let there: BTreeSet<String> = site.parquet_files().into_iter().collect();
        assert_eq!(there, known(&store).await, "{point:?}");
    }
}

#[tokio::test]
async fn flushes_compactions_and_messages_at_once_leave_each_message_once() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    let monitor = Monitor::enrol(&store, 1).await;
    let mut messages = Vec::new();
    for n in 0..40 {
        let when = (i64::try_from(n).unwrap() * 60, 4000);
        messages.push(monitor.vitals(&store, &subject, n, when, 20).await);
    }
    let sent: Vec<_> = messages.iter().map(|m| m.envelope.clone()).collect();
    let intake = async {
        for message in messages {
            store.inbox.admit(message).await.unwrap();
            store.flush(at(4000)).await.unwrap();
        }
    };
    let compacting = async {
        for _ in 0..60 {
            store
                .compact(at(4000), &forced(), &Unwatched)
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
    };
    let too = async {
        for _ in 0..60 {
            store
                .compact(at(4000), &forced(), &Unwatched)
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(intake, compacting, too);
    compact_all(&store, 4000).await;
    let all = found(&store, &[&subject]).await;
    let stored: Vec<_> = all.into_values().map(|(_, envelope)| envelope).collect();
    assert_eq!(stored, sent);
}

#[tokio::test]
async fn a_damaged_file_keeps_no_other_from_being_merged() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [a, b]) = flushed(&store).await;
    let victim = store.catalog.files().await.unwrap()[1].clone();
    let path = site.data().join("parquet").join(victim.path.as_ref());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = store
        .compact(at(900), &forced(), &Unwatched)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, StoreError::Input { file, .. } if *file == victim.path.as_ref()),
        "{}",
        chain(&refused)
    );
    compact_all(&store, 900).await;
    let files = store.catalog.files().await.unwrap();
    let levels: Vec<u8> = files.iter().map(|file| file.level).collect();
    assert_eq!(levels, [0, 3]);
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(found(&store, &[&a, &b]).await.len(), 24);
    // An hour later it is tried again.
    assert_eq!(compact_all(&store, 900 + 3599).await, []);
    compact_all(&store, 900 + 3600).await;
    let files = store.catalog.files().await.unwrap();
    assert_eq!(files.iter().map(|file| file.level).collect::<Vec<_>>(), [3]);
    assert_eq!(found(&store, &[&a, &b]).await.len(), 24);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_commit_to_its_end_and_no_file_behind() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [a, b]) = flushed(&store).await;
    let before = found(&store, &[&a, &b]).await;
    for committing in [false, true] {
        let quiet = store.hold_flushes().await;
        let other = store.clone();
        let compaction =
            tokio::spawn(async move { other.compact(at(900), &forced(), &Unwatched).await });
        let written = || {
            site.parquet_files()
                .iter()
                .any(|name| name.starts_with("c-"))
        };
        while !written() {
            tokio::task::yield_now().await;
        }
        if committing {
            // Longer than it takes to read one small file back.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        compaction.abort();
        assert!(compaction.await.unwrap_err().is_cancelled());
        drop(quiet);
        // What is under way ends by itself; what nobody commits is cleared away.
        for _ in 0..1000 {
            store.flush(at(901)).await.unwrap();
            if site.parquet_files().into_iter().collect::<BTreeSet<_>>() == known(&store).await {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let there: BTreeSet<String> = site.parquet_files().into_iter().collect();
        assert_eq!(there, known(&store).await);
        assert_eq!(
            envelopes(&found(&store, &[&a, &b]).await),
            envelopes(&before)
        );
    }
    compact_all(&store, 1000).await;
    assert_eq!(
        envelopes(&found(&store, &[&a, &b]).await),
        envelopes(&before)
    );
}
