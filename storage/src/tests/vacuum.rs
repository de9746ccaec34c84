//! What was shredded or kept long enough goes, physically, and it is said when.

use jiff::SignedDuration;

use super::compact::{compact_all, flushed, forced, found};
use super::*;
use crate::catalog::{FileKind, TableKind};
use crate::crash::CrashPoint;
use crate::paths::data_file;
use crate::ports::{Actor, AuditError, AuditEvent, AuditRecord, AuditSink};
use crate::progress::Unwatched;
use crate::retention::Retention;
use crate::upkeep::GRACE;

/// An audit log in memory.
#[derive(Default, Debug)]
pub(super) struct Log(std::sync::Mutex<Vec<AuditRecord>>);

impl Log {
    fn events(&self) -> Vec<AuditEvent> {
        let records = self.0.lock().unwrap();
        records.iter().map(|record| record.event.clone()).collect()
    }
}

#[async_trait::async_trait]
impl AuditSink for Log {
    async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(record);
        Ok(())
    }
}

async fn holders(store: &Store) -> BTreeSet<SubjectPseudonym> {
    let mut all = BTreeSet::new();
    for file in store.catalog.files().await.unwrap().iter() {
        all.extend(store.subjects_of(file).await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_vacuum_leaves_out_the_erased_and_their_end_is_recorded_once_the_last_file_is_gone() {
    for merged in [false, true] {
        let site = Site::new();
        let store = site.create().await;
        let (_, [gone, stays]) = flushed(&store).await;
        if merged {
            compact_all(&store, 900).await;
        }
        store.keys.erase(&gone, "e", at(1000)).await.unwrap();
        let kept = found(&store, &[&stays]).await;
        assert!(holders(&store).await.contains(&gone));
        let report = store.vacuum(at(1001), &Unwatched).await.unwrap();
        assert_eq!(
            (report.erasures.as_slice(), report.messages),
            (&[gone.clone()][..], 12)
        );
        assert!(report.bytes_out < report.bytes_in, "{report:?}");
        assert_eq!(holders(&store).await, [stays.clone()].into());
        assert_eq!(found(&store, &[&gone, &stays]).await, kept);
        let again = store.vacuum(at(1002), &Unwatched).await.unwrap();
        assert_eq!(again, Default::default());

        let log = Log::default();
        let collect = async |now| {
            let by = Actor::System;
            store
                .collect_garbage(at(now), GRACE, by, &log)
                .await
                .unwrap()
        };
        assert_eq!(collect(1100).await.dropped, []);
        assert_eq!(
            store.catalog.tombstones().await.unwrap()[0].dropped_at,
            None
        );
        // Killed between the removal of a file and the note of it.
        store.crash().arm(CrashPoint::GarbageRemoved);
        let by = Actor::System;
        store
            .collect_garbage(at(3000), GRACE, by, &log)
            .await
            .unwrap_err();
        assert_eq!(log.events(), []);
        let copy = site.power_cut();
        let opened = copy.open().await.unwrap();
        let by = Actor::System;
        let last = opened
            .collect_garbage(at(3001), GRACE, by, &log)
            .await
            .unwrap();
        assert_eq!(
            (last.dropped.as_slice(), last.waiting),
            (&[gone.clone()][..], 0)
        );
        assert!(
            matches!(log.events().as_slice(), [AuditEvent::CiphertextDropped { patients, .. }] if *patients == [gone.clone()])
        );
        let stone = opened.catalog.tombstones().await.unwrap().remove(0);
        assert_eq!((stone.subject, stone.dropped_at), (gone, Some(at(3001))));
        let by = Actor::System;
        let nothing = opened
            .collect_garbage(at(9000), GRACE, by, &log)
            .await
            .unwrap();
        assert_eq!((nothing.dropped.len(), log.events().len()), (0, 1));
        assert_eq!(found(&opened, &[&stays]).await, kept);
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_vacuum_loses_nobody_else() {
    for point in [
        CrashPoint::UpkeepPlanned,
        CrashPoint::FileHalfWritten,
        CrashPoint::UpkeepWritten,
        CrashPoint::UpkeepProved,
        CrashPoint::UpkeepCommitted,
    ] {
        let site = Site::new();
        let store = site.create().await;
        let (_, [gone, stays]) = flushed(&store).await;
        store.keys.erase(&gone, "e", at(1000)).await.unwrap();
        let kept = found(&store, &[&stays]).await;
        store.crash().arm(point);
        assert!(
            store.vacuum(at(1001), &Unwatched).await.is_err(),
            "{point:?}"
        );
        assert_eq!(store.catalog.tombstones().await.unwrap()[0].cleared, None);
        assert_eq!(found(&store, &[&stays]).await, kept, "{point:?}");
        let copy = site.power_cut();
        let opened = copy.open().await.unwrap();
        assert_eq!(found(&opened, &[&stays]).await, kept, "{point:?}");
        let report = opened.vacuum(at(1002), &Unwatched).await.unwrap();
        assert_eq!(report.erasures, std::slice::from_ref(&gone), "{point:?}");
        assert_eq!(found(&opened, &[&stays]).await, kept, "{point:?}");
        assert_eq!(holders(&opened).await, [stays.clone()].into(), "{point:?}");
        let by = Actor::System;
        let collected = opened
            .collect_garbage(at(9000), GRACE, by, &Log::default())
            .await;
        assert_eq!(
            collected.unwrap().dropped,
            std::slice::from_ref(&gone),
            "{point:?}"
        );
        let live = opened.catalog.files().await.unwrap().len();
        assert_eq!(copy.parquet_files().len(), live, "{point:?}");
    }
}

#[tokio::test]
async fn a_chunk_that_was_being_made_while_its_patient_was_erased_opens_for_nobody_and_is_vacuumed()
{
    let site = Site::new();
    let store = site.create().await;
    let (_, [gone, stays]) = flushed(&store).await;
    let before = site.parquet_files().len();
    // The commit waits, as it would for a flush, while the chunk is written already.
    let quiet = store.hold_flushes().await;
    let other = store.clone();
    let compaction =
        tokio::spawn(async move { other.compact(at(900), &forced(), &Unwatched).await });
    while site
        .parquet_files()
        .iter()
        .filter(|name| name.starts_with("c-"))
        .count()
        == 0
    {
        tokio::task::yield_now().await;
    }
    assert!(site.parquet_files().len() > before);
    store.keys.erase(&gone, "e", at(901)).await.unwrap();
    drop(quiet);
    assert_eq!(compaction.await.unwrap().unwrap().dropped, 0);
    assert!(holders(&store).await.contains(&gone));
    assert!(store.keys.patient_keys(&gone).await.unwrap().is_none());
    // The next level leaves it out by itself, and so does a vacuum.
    let report = store.vacuum(at(902), &Unwatched).await.unwrap();
    assert_eq!((report.erasures, report.messages), (vec![gone.clone()], 12));
    assert_eq!(holders(&store).await, [stays].into());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_no_other_from_being_vacuumed() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [gone, stays]) = flushed(&store).await;
    store.keys.erase(&gone, "e", at(1000)).await.unwrap();
    let files = store.catalog.files().await.unwrap();
    let path = site.data().join("parquet").join(files[0].path.as_ref());
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 3] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let refused = store.vacuum(at(1001), &Unwatched).await.unwrap_err();
    assert!(matches!(refused, StoreError::Input { .. }), "{refused:?}");
    // The other three are through; nobody is who may be in the damaged one.
    assert_eq!(store.catalog.ended().await.unwrap().len(), 3);
    assert_eq!(store.catalog.tombstones().await.unwrap()[0].cleared, None);
    fs::write(&path, &whole).unwrap();
    let report = store.vacuum(at(1002), &Unwatched).await.unwrap();
    assert_eq!((report.files_in, report.erasures), (1, vec![gone]));
    assert_eq!(holders(&store).await, [stays].into());
}

#[tokio::test]
async fn while_a_copy_lies_aside_or_a_file_is_nobodys_no_end_is_noted() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [gone, _]) = flushed(&store).await;
    // As a registry leaves it that went back over a file's plan.
    let live = store.catalog.files().await.unwrap()[0].path.to_string();
    let parquet = site.data().join("parquet");
    let nobodys = parquet.join(data_file(FileKind::Rows, &[7; 16]));
    fs::copy(parquet.join(live), &nobodys).unwrap();
    store.keys.erase(&gone, "e", at(1000)).await.unwrap();
    store.vacuum(at(1001), &Unwatched).await.unwrap();
    let aside = site.paths().damaged();
    fs::create_dir_all(&aside).unwrap();
    let aside = aside.join("r-0.parquet");
    fs::write(&aside, "of whoever was in it").unwrap();
    let log = Log::default();
    let collect = async |now| {
        let by = Actor::System;
        store
            .collect_garbage(at(now), GRACE, by, &log)
            .await
            .unwrap()
    };
    for (now, kept) in [(9000, aside), (9001, nobodys)] {
        let report = collect(now).await;
        assert_eq!(
            (report.waiting, report.dropped.len(), log.events().len()),
            (0, 0, 0)
        );
        fs::remove_file(kept).unwrap();
    }
    assert_eq!(collect(9002).await.dropped, [gone]);
}

#[tokio::test]
async fn a_compaction_leaves_out_the_erased_and_says_how_many() {
    let site = Site::new();
    let store = site.create().await;
    let (_, [gone, stays]) = flushed(&store).await;
    store.keys.erase(&gone, "e", at(1000)).await.unwrap();
    let reports = compact_all(&store, 1001).await;
    let dropped: u64 = reports.iter().map(|report| report.dropped).sum();
    assert_eq!(dropped, 12);
    assert_eq!(holders(&store).await, [stays].into());
    let report = store.vacuum(at(1002), &Unwatched).await.unwrap();
    assert_eq!((report.erasures, report.files_in), (vec![gone], 0));
}

#[tokio::test]
async fn what_was_kept_long_enough_ends_by_class_and_not_of_whoever_is_held() {
    let site = Site::new();
    let store = site.create().await;
    let (monitor, [a, b]) = flushed(&store).await;
    for (sequence, subject) in [(900, &a), (901, &b)] {
        let wave = monitor.wave(&store, subject, sequence, (10, 30)).await;
        store.inbox.admit(wave).await.unwrap();
    }
    store.flush(at(800)).await.unwrap();
    let before = found(&store, &[&a, &b]).await;
    let log = Log::default();
    let hour = Some(SignedDuration::from_hours(1));
    let enforce = async |retention: &Retention, now| {
        let by = Actor::System;
        store
            .enforce_retention(at(now), retention, by, &log)
            .await
            .unwrap()
    };
    // Without a setting nothing ends, ever.
    let none = enforce(&Retention::default(), 100_000_000).await;
    assert_eq!((none, log.events()), (Default::default(), Vec::new()));
    let waves = Retention {
        waveforms: hour,
        ..Retention::default()
    };
    assert_eq!(enforce(&waves, 3600).await.files, 0);
    let report = enforce(&waves, 3631).await;
    assert_eq!((report.files, report.messages), (1, 2));
    let vitals = Retention {
        vitals: hour,
        held: [b.clone()].into(),
        ..Retention::default()
    };
    // Two of the four files came more than an hour ago: those with sequences 0 to 11.
    let report = enforce(&vitals, 3600 + 6 * 60 + 2).await;
    assert_eq!((report.files, report.rewritten, report.messages), (2, 2, 6));
    let after = found(&store, &[&a, &b]).await;
    let left: Vec<i64> = after.keys().map(|(_, sequence)| *sequence).collect();
    let expected: Vec<i64> = (0..24).filter(|n| *n >= 12 || n % 2 == 1).collect();
    assert_eq!(left, expected);
    assert!(after.iter().all(|(name, found)| before[name].1 == found.1));
    // What is held stays in a file of its own, and is not written again.
    assert_eq!(enforce(&vitals, 3600 + 6 * 60 + 2).await.files, 0);
    let classes = log.events();
    let classes: Vec<_> = classes
        .iter()
        .map(|event| match event {
            AuditEvent::RetentionEnforced { class, .. } => class.as_str(),
            _ => "",
        })
        .collect();
    assert_eq!(classes, ["waveforms", "vitals", "vitals"]);
    assert!(
        store
            .catalog
            .files()
            .await
            .unwrap()
            .iter()
            .all(|f| f.table == TableKind::Vitals)
    );
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_retention_ends_nothing_else_and_doubles_nothing() {
    let steps = [
        CrashPoint::UpkeepPlanned,
        CrashPoint::FileHalfWritten,
        CrashPoint::UpkeepWritten,
        CrashPoint::UpkeepProved,
        CrashPoint::UpkeepCommitted,
    ];
    // Files that end whole are not written anew: of them there is the last step alone.
    let cases = steps.map(|step| (step, true)).into_iter();
    for (step, with_hold) in cases.chain([(CrashPoint::UpkeepCommitted, false)]) {
        let site = Site::new();
        let store = site.create().await;
        let (_, [a, b]) = flushed(&store).await;
        let before = found(&store, &[&a, &b]).await;
        let retention = Retention {
            vitals: Some(SignedDuration::from_hours(1)),
            held: with_hold.then(|| b.clone()).into_iter().collect(),
            ..Retention::default()
        };
        let log = Log::default();
        // Two of the four files came more than an hour ago.
        let now = at(3600 + 6 * 60 + 2);
        let enforce = async |store: &Store| {
            let by = Actor::System;
            store.enforce_retention(now, &retention, by, &log).await
        };
        let due =
            |(_, sequence): &(String, i64)| *sequence < 12 && (!with_hold || sequence % 2 == 0);
        let all_but_due = |found: &sealed::Found| -> Vec<_> {
            let rest = found.iter().filter(|(name, _)| !due(name));
            rest.map(|(name, (_, envelope))| (name.clone(), envelope.clone()))
                .collect()
        };
        store.crash().arm(step);
        enforce(&store).await.unwrap_err();
        let copy = site.power_cut();
        store.crash().arm(CrashPoint::RootCreated);
        let opened = copy.open().await.unwrap();
        for (site, store) in [(&site, &store), (&copy, &opened)] {
            // What is due is there, or it is not: file by file. Everything else is, once.
            let left = found(store, &[&a, &b]).await;
            assert_eq!(all_but_due(&left), all_but_due(&before), "{step:?}");
            enforce(store).await.unwrap();
            let left = found(store, &[&a, &b]).await;
            assert!(!left.keys().any(due), "{step:?}");
            assert_eq!(all_but_due(&left), all_but_due(&before), "{step:?}");
            let collected = store.collect_garbage(at(9000), GRACE, Actor::System, &log);
            collected.await.unwrap();
            let live = store.catalog.files().await.unwrap().len();
            assert_eq!(site.parquet_files().len(), live, "{step:?}");
        }
    }
}
