//! Files are merged under everybody's eyes: each message is there once, bit for bit, before, during and after, whatever
//! fails.

use super::sealed::{Found, Monitor, everything};
use super::*;
use crate::catalog::FileKind;
use crate::compact::{CompactionReport, CompactionSettings};
use crate::progress::Unwatched;

const FORCED: CompactionSettings = CompactionSettings {
    flushed_files: 15,
    wait: jiff::SignedDuration::from_mins(15),
    settle: jiff::SignedDuration::from_mins(5),
    force: true,
};

async fn cut_of(store: &Store, subjects: &[&SubjectPseudonym]) -> Found {
    let cut = store.cut(&authorized(subjects)).await.unwrap();
    everything(store, &cut, subjects).await
}

/// What there is, without where.
fn envelopes(found: &Found) -> Vec<(&super::sealed::Name, &Vec<u8>)> {
    found
        .iter()
        .map(|(name, (_, envelope))| (name, envelope))
        .collect()
}

async fn compact_all(store: &Store, now: i64) -> Vec<CompactionReport> {
    let mut reports = Vec::new();
    loop {
        let report = store.compact(at(now), &FORCED, &Unwatched).await.unwrap();
        if report.files_in == 0 {
            return reports;
        }
        reports.push(report);
    }
}

#[tokio::test]
async fn messages_become_chunks_of_quarters_then_hours_then_days_and_none_is_lost_or_changed() {
    let site = Site::new();
    let store = site.create().await;
    let (a, b) = (patient(&store).await, patient(&store).await);
    let monitor = Monitor::enrol(&store, 1).await;
    let mut sequence = 0;
    for round in 0..4 {
        for minute in 0..6 {
            for subject in [&a, &b] {
                sequence += 1;
                let when = round * 900 + minute * 60;
                // Every fifth comes an hour late.
                let late = if sequence % 5 == 0 { 3600 } else { 1 };
                let message = monitor
                    .vitals(&store, subject, sequence, (when, when + 60 + late), 60)
                    .await;
                store.inbox.admit(message).await.unwrap();
            }
        }
        let wave = monitor
            .wave(&store, &a, 1000 + sequence, (round * 900, round * 900 + 2))
            .await;
        store.inbox.admit(wave).await.unwrap();
        store.flush(at(round * 900 + 600)).await.unwrap();
    }
    let both = [&a, &b];
    let before = cut_of(&store, &both).await;
    assert_eq!(before.len(), 52);
    // Nothing is due yet: too few files, and none waited long enough.
    let settings = CompactionSettings::default();
    let calm = store
        .compact(at(1200), &settings, &Unwatched)
        .await
        .unwrap();
    assert_eq!(calm, CompactionReport::default());
    let reports = compact_all(&store, 5000).await;
    assert!(
        reports
            .iter()
            .all(|report| report.sealed == 0 && report.dropped == 0),
        "{reports:?}"
    );
    let after = cut_of(&store, &both).await;
    assert_eq!(envelopes(&before), envelopes(&after));
    assert!(
        after.values().all(|(place, _)| place == "chunks 3"),
        "{after:?}"
    );
    let files = store.catalog.files().await.unwrap();
    assert_eq!(files.len(), 2, "one a table: {files:?}");
    assert!(
        files
            .iter()
            .all(|file| file.kind == FileKind::Chunks && file.encrypted)
    );
    // What ended is there until the grace is over.
    assert_eq!(
        store.catalog.ended().await.unwrap().len() + 2,
        site.parquet_files().len()
    );
}
