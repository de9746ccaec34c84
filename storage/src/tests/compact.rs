//! Files are merged under everybody's eyes: each message is there once, bit for bit, before, during and after.

mod disturbed;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use vitalseal_crypto::blob_kid;

use super::sealed::{Found, Monitor, Name, batches, everything};
use super::vacuum::Log;
use super::*;
use crate::catalog::{Change, ChangeId, ChangeKind, FileKind};
use crate::chunk::ChunkRow;
use crate::compact::{CompactionReport, CompactionSettings};
use crate::crash::CrashPoint;
use crate::ports::Actor;
use crate::progress::Unwatched;
use crate::registry::PatientState;

pub(super) fn forced() -> CompactionSettings {
    CompactionSettings {
        force: true,
        ..CompactionSettings::default()
    }
}

pub(super) async fn found(store: &Store, subjects: &[&SubjectPseudonym]) -> Found {
    let cut = store.cut(&authorized(subjects)).await.unwrap();
    everything(store, &cut, subjects).await
}

/// What there is, without where.
fn envelopes(found: &Found) -> Vec<(&Name, &Vec<u8>)> {
    let found = found.iter();
    found
        .map(|(name, (_, envelope))| (name, envelope))
        .collect()
}

pub(super) async fn compact_all(store: &Store, now: i64) -> Vec<CompactionReport> {
    let mut reports = Vec::new();
    loop {
        let report = store.compact(at(now), &forced(), &Unwatched).await.unwrap();
        if report.files_in == 0 {
            return reports;
        }
        reports.push(report);
    }
}

/// Files that the catalog knows: live and ended ones.
async fn known(store: &Store) -> BTreeSet<String> {
    let live = store.catalog.files().await.unwrap();
    let ended = store.catalog.ended().await.unwrap();
    let live = live.iter().map(|file| file.path.to_string());
    live.chain(ended.into_iter().map(|file| file.file))
        .collect()
}

/// Four flushed files of two patients, a message a minute from each.
pub(super) async fn flushed(store: &Store) -> (Monitor, [SubjectPseudonym; 2]) {
    let patients = [patient(store).await, patient(store).await];
    let monitor = Monitor::enrol(store, 1).await;
    for file in 0..4 {
        for minute in 0..3 {
            for (n, subject) in (0..).zip(&patients) {
                let minute = file * 3 + minute;
                let sequence = u64::try_from(minute * 2 + n).unwrap();
                let when = (minute * 60, minute * 60 + 61);
                let message = monitor.vitals(store, subject, sequence, when, 60).await;
                store.inbox.admit(message).await.unwrap();
            }
        }
        store.flush(at(file * 180 + 200)).await.unwrap();
    }
    (monitor, patients)
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
    let before = found(&store, &both).await;
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
    let after = found(&store, &both).await;
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

#[tokio::test]
async fn a_query_that_began_before_reads_its_files_to_the_end() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [a, b]) = flushed(&store).await;
    let both = [&a, &b];
    let cut = store.cut(&authorized(&both)).await.unwrap();
    let before = everything(&store, &cut, &both).await;
    compact_all(&store, 1000).await;
    store.catalog.files().await.unwrap();
    assert_eq!(everything(&store, &cut, &both).await, before);
    assert!(store.cut(&authorized(&both)).await.unwrap().snapshot > cut.snapshot);
}

#[tokio::test]
async fn a_change_is_made_once_and_no_file_ends_twice() {
    let site = Site::new();
    let store = site.create().await;
    flushed(&store).await;
    let path = store.catalog.files().await.unwrap()[0].path.clone();
    let change = || Change {
        id: ChangeId::draw(store.keys.backend()).unwrap(),
        what: ChangeKind::Compaction,
        add: Vec::new(),
        end: vec![path.clone()],
        watermark: None,
        losses: Vec::new(),
    };
    let first = change();
    let made = store.catalog.commit(&first, at(5)).await.unwrap();
    assert_eq!(store.catalog.commit(&first, at(6)).await.unwrap(), made);
    assert_eq!(store.catalog.current().await.unwrap().id, made);
    let refused = store.catalog.commit(&change(), at(7)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLive(_)), "{refused:?}");
    assert_eq!(store.catalog.current().await.unwrap().id, made);
}

#[tokio::test]
async fn what_does_not_open_stays_as_it_is_and_is_counted() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [a, b]) = flushed(&store).await;
    for n in 100..103 {
        store.inbox.admit(admission(&a, n)).await.unwrap();
    }
    store.flush(at(800)).await.unwrap();
    let before = found(&store, &[&a, &b]).await;
    let reports = compact_all(&store, 1000).await;
    assert!(
        reports.iter().all(|report| report.sealed == 3),
        "{reports:?}"
    );
    let after = found(&store, &[&a, &b]).await;
    assert_eq!(envelopes(&after), envelopes(&before));
    let rows = after
        .values()
        .filter(|(place, _)| place == "rows 3")
        .count();
    assert_eq!((rows, after.len()), (3, 27));
}

#[tokio::test]
async fn a_backup_of_chunks_restores_and_proves_that_they_open() {
    let site = Site::new();
    let custody = || backup::custody(&site);
    let store = Store::create(&site.paths(), custody(), at(0))
        .await
        .unwrap();
    let (_, [a, b]) = flushed(&store).await;
    compact_all(&store, 900).await;
    let before = found(&store, &[&a, &b]).await;
    let out = site.dir.path().join("backup");
    store.backup(&out, "0.0.0", at(1_000)).await.unwrap();
    store.close().await;
    let paths = StorePaths::new(&site.dir.path().join("restored"), Some(&site.roots_dir()));
    let restored = Store::restore(&out, &paths, custody(), at(1_100)).await;
    let (store, restored) = restored.unwrap();
    assert_eq!((restored.messages, restored.opened), (24, 2));
    assert_eq!(found(&store, &[&a, &b]).await, before);
}

#[tokio::test]
async fn after_a_rotation_the_next_merge_seals_under_the_new_key() {
    let site = Site::new();
    let store = site.create().await;
    let (monitor, [a, b]) = flushed(&store).await;
    let settings = CompactionSettings {
        flushed_files: 4,
        ..CompactionSettings::default()
    };
    let report = store.compact(at(700), &settings, &Unwatched).await.unwrap();
    assert_eq!((report.files_in, report.more), (4, false));
    store.registry.rotate_kek(&a, at(800)).await.unwrap();
    let message = monitor.vitals(&store, &a, 500, (900, 960), 60).await;
    store.inbox.admit(message).await.unwrap();
    store.flush(at(1000)).await.unwrap();
    compact_all(&store, 1000).await;
    let current = store.keys.patient_keys(&a).await.unwrap().unwrap();
    let files = store.catalog.files().await.unwrap();
    let mut chunks = 0;
    for batch in batches(&store, &files[0]).await {
        for row in 0..batch.num_rows() {
            let chunk = ChunkRow::read(&batch, row).unwrap();
            let under = blob_kid(&chunk.sealed).unwrap();
            chunks += usize::from(chunk.subject == a);
            assert_eq!(chunk.subject == a, under == *current.current().kid());
        }
    }
    assert_eq!((files.len(), chunks > 0), (1, true));
    assert_eq!(found(&store, &[&a, &b]).await.len(), 25);
}

#[tokio::test]
async fn counting_and_finding_messages_go_through_chunks() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [a, b]) = flushed(&store).await;
    let count = async |from, to| {
        let held = store.catalog.holdings(None, None, at(from), at(to));
        held.await.unwrap()
    };
    let windows = [(0, 10_000), (100, 400), (121, 121), (181, 10_000)];
    let mut before = Vec::new();
    for (from, to) in windows {
        before.push(count(from, to).await);
    }
    compact_all(&store, 1000).await;
    for ((from, to), before) in windows.into_iter().zip(before) {
        assert_eq!(count(from, to).await, before, "{from} {to}");
    }
    let all = found(&store, &[&a, &b]).await;
    for ((_, sequence), (_, envelope)) in &all {
        let id = message(u64::try_from(*sequence).unwrap());
        assert_eq!(
            store.stored_envelope(&id).await.unwrap().as_ref(),
            Some(envelope)
        );
    }
    assert_eq!(store.stored_envelope(&message(99)).await.unwrap(), None);
    let keys = store.keys.patient_keys(&a).await.unwrap().unwrap();
    let others = store.keys.patient_keys(&b).await.unwrap().unwrap();
    let samples = store.sample(&a).await.unwrap();
    assert!(samples.len() > 1 && samples.iter().all(|sample| sample.opens_with(&keys)));
    assert!(!samples.iter().any(|sample| sample.opens_with(&others)));
}

#[tokio::test]
async fn an_ended_file_stays_for_the_grace_and_while_somebody_reads_it() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [a, b]) = flushed(&store).await;
    let both = [&a, &b];
    let cut = store.cut(&authorized(&both)).await.unwrap();
    compact_all(&store, 1000).await;
    let log = Log::default();
    let grace = SignedDuration::from_mins(30);
    let collect = async |now| {
        let by = Actor::System;
        store
            .collect_garbage(at(now), grace, by, &log)
            .await
            .unwrap()
    };
    let ended = store.catalog.ended().await.unwrap().len() as u64;
    assert!(ended > 4);
    let early = collect(1000 + 1799).await;
    assert_eq!((early.files, early.waiting), (0, ended));
    // Whatever the clock says: what is being read stays.
    let held = collect(1_000_000).await;
    assert_eq!((held.files, held.waiting), (ended - 4, 4));
    assert_eq!(everything(&store, &cut, &both).await.len(), 24);
    drop(cut);
    let late = collect(1000 + 1800).await;
    assert_eq!((late.files, late.waiting), (4, 0));
    assert_eq!(
        known(&store).await,
        site.parquet_files().into_iter().collect()
    );
    assert_eq!(site.parquet_files().len(), 1);
}

#[tokio::test]
async fn what_version_3_left_in_the_clear_and_in_one_file_is_sorted_and_sealed() {
    let site = Site::new();
    copy_tree(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v3"),
        site.dir.path(),
    );
    make_private(site.dir.path());
    let paths = StorePaths::new(&site.data(), None);
    let store = Store::open(&paths, site.roots(), at(1_000)).await.unwrap();
    let states = store.registry.patient_states().await.unwrap();
    let active = states
        .into_iter()
        .filter(|row| row.state == PatientState::Active);
    let patients: Vec<SubjectPseudonym> = active.map(|row| row.subject).collect();
    let patients: Vec<&SubjectPseudonym> = patients.iter().collect();
    let before = found(&store, &patients).await;
    let plain = store.catalog.files().await.unwrap();
    assert!(plain.iter().any(|file| !file.encrypted) && !before.is_empty());
    store.flush(at(2_000)).await.unwrap();
    let reports = compact_all(&store, 3_000).await;
    assert!(
        reports.iter().all(|report| report.sealed == 0),
        "{reports:?}"
    );
    assert_eq!(
        envelopes(&found(&store, &patients).await),
        envelopes(&before)
    );
    let files = store.catalog.files().await.unwrap();
    assert!(
        files
            .iter()
            .all(|file| file.encrypted && file.kind == FileKind::Chunks)
    );
    let tables: Vec<&str> = files.iter().map(|file| file.table.as_str()).collect();
    assert_eq!(tables.len(), 2, "{tables:?}");
}
