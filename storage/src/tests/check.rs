//! The check finds what was changed, names it, and nothing else; a repair keeps all the rest.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::sealed::{Found, Monitor, everything};
use super::*;
use crate::catalog::{DataFile, FileKind, TableKind};
use crate::check::{CheckOptions, CheckReport, Cost};
use crate::compact::CompactionSettings;
use crate::progress::Unwatched;

/// Patients and messages of each: small, since every byte of the files is tried.
const PATIENTS: u64 = 3;
const MESSAGES: u64 = 4;

/// One byte in so many is flipped, or all with `VITALSEAL_TEST_EVERY_BYTE`.
fn stride() -> usize {
    match std::env::var_os("VITALSEAL_TEST_EVERY_BYTE") {
        Some(_) => 1,
        None => 211,
    }
}

struct Ward {
    site: Site,
    store: Store,
    patients: Vec<SubjectPseudonym>,
}

impl Ward {
    /// Vitals and waveforms of some patients, flushed; as chunks if they are compacted.
    async fn new(compacted: bool) -> Self {
        let site = Site::new();
        let store = site.create().await;
        let monitor = Monitor::enrol(&store, 1).await;
        let mut patients = Vec::new();
        let mut sequence = 0;
        for _ in 0..PATIENTS {
            let subject = patient(&store).await;
            for message in 0..MESSAGES {
                let first = i64::try_from(message).unwrap() * 100;
                let span = (first, first + 70);
                let vitals = monitor.vitals(&store, &subject, sequence, span, 60).await;
                let mut wave = monitor.wave(&store, &subject, sequence + 1, span).await;
                wave.last_at = wave.first_at + SignedDuration::from_millis(990);
                sequence += 2;
                for admission in [vitals, wave] {
                    assert!(store.inbox.admit(admission).await.unwrap().is_stored());
                }
            }
            patients.push(subject);
        }
        store.flush(at(1_000)).await.unwrap();
        let ward = Self {
            site,
            store,
            patients,
        };
        if compacted {
            ward.compact().await;
        }
        ward
    }

    async fn compact(&self) {
        let settings = CompactionSettings {
            force: true,
            ..CompactionSettings::default()
        };
        while self
            .store
            .compact(at(2_000), &settings, &Unwatched)
            .await
            .unwrap()
            .more
        {}
    }

    async fn check(&self) -> CheckReport {
        let options = CheckOptions {
            keys: true,
            authorities: Vec::new(),
        };
        self.store.check(&options, &Unwatched).await.unwrap()
    }

    async fn found(&self) -> Found {
        let patients: Vec<_> = self.patients.iter().collect();
        let cut = self.store.cut(&authorized(&patients)).await.unwrap();
        everything(&self.store, &cut, &patients).await
    }

    async fn files(&self) -> Arc<[DataFile]> {
        self.store.catalog.files().await.unwrap()
    }

    fn path(&self, file: &DataFile) -> PathBuf {
        self.site.data().join("parquet").join(file.path.as_ref())
    }
}

#[tokio::test]
async fn what_is_sound_is_found_sound_in_the_inbox_as_rows_and_as_chunks() {
    for compacted in [false, true] {
        let ward = Ward::new(compacted).await;
        let monitor = Monitor::enrol(&ward.store, 2).await;
        let hot = monitor
            .vitals(&ward.store, &ward.patients[0], 0, (500, 570), 60)
            .await;
        ward.store.inbox.admit(hot).await.unwrap();
        let report = ward.check().await;
        assert_eq!(report.damage, []);
        let stored = PATIENTS * MESSAGES * 2;
        assert_eq!((report.files, report.inbox), (2, 1));
        assert_eq!(
            (report.messages, report.signatures),
            (stored + 1, stored + 1)
        );
        assert_eq!(report.readings, PATIENTS * MESSAGES * 160 + 60);
        let (rows, chunks) = match compacted {
            false => (stored, 0),
            true => (0, PATIENTS * 2),
        };
        assert_eq!((report.rows, report.chunks), (rows, chunks));
        assert_eq!((report.opened, report.unopened), (rows + chunks + 1, 0));
        let without = CheckOptions {
            keys: false,
            authorities: Vec::new(),
        };
        let report = ward.store.check(&without, &Unwatched).await.unwrap();
        assert!(
            report.is_sound() && report.opened == 0,
            "{:?}",
            report.damage
        );
        assert_eq!(report.signatures, stored + 1);
        fs::write(ward.site.data().join("parquet/r-0.parquet"), "any").unwrap();
        assert_eq!(ward.check().await.unknown, ["r-0.parquet"]);
    }
}

/// Flips one byte after the other and says what is found of it; the file is as it was afterwards.
async fn flipped(ward: &Ward, file: &DataFile) {
    let path = ward.path(file);
    let bytes = fs::read(&path).unwrap();
    let name = file.path.as_ref();
    let (mut lost, mut costless) = (0_usize, 0_usize);
    for at in (0..bytes.len()).step_by(stride()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        fs::write(&path, &flipped).unwrap();
        let report = ward.check().await;
        assert!(
            !report.is_sound(),
            "byte {at} of {name} was flipped unnoticed"
        );
        for damage in &report.damage {
            assert_eq!(
                damage.place.file.as_deref(),
                Some(name),
                "byte {at}: {damage:?}"
            );
            assert_ne!(damage.cost, Cost::Doubt, "byte {at}: {damage:?}");
        }
        let rows: BTreeSet<_> = report
            .damage
            .iter()
            .filter(|damage| damage.cost == Cost::Lost)
            .map(|damage| damage.place.row.expect("a row is lost, never the file"))
            .collect();
        match rows.len() {
            0 => costless += 1,
            n => lost += n,
        }
    }
    fs::write(&path, &bytes).unwrap();
    assert!(ward.check().await.is_sound());
    assert!(
        lost > 0 && costless > 0,
        "{name}: {lost} rows, {costless} flips without a loss"
    );
}

#[tokio::test]
async fn a_flipped_byte_of_any_kind_of_file_is_found_and_named() {
    for compacted in [false, true] {
        let ward = Ward::new(compacted).await;
        for file in ward.files().await.iter() {
            flipped(&ward, file).await;
        }
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_set_aside_alone_and_its_loss_is_on_record() {
    for (kind, table) in [
        (FileKind::Rows, TableKind::Vitals),
        (FileKind::Chunks, TableKind::Vitals),
        (FileKind::Chunks, TableKind::Waveforms),
    ] {
        let ward = Ward::new(kind == FileKind::Chunks).await;
        let before = ward.found().await;
        let files = ward.files().await;
        let file = files.iter().find(|file| file.table == table).unwrap();
        assert_eq!(file.kind, kind);
        let path = ward.path(file);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();

        let report = ward.check().await;
        let lost: Vec<_> = report
            .damage
            .iter()
            .filter(|it| it.cost == Cost::Lost)
            .collect();
        assert!(!lost.is_empty(), "{:?}", report.damage);
        if kind == FileKind::Chunks {
            assert_eq!(lost.len(), 1, "a bit costs its own chunk: {lost:?}");
            assert!(
                ward.patients
                    .contains(lost[0].place.patient.as_ref().unwrap())
            );
            assert!(lost[0].place.bucket_start.is_some());
        }
        let repaired = ward.store.repair(&report, at(3_000)).await.unwrap();
        assert_eq!(repaired.files, [file.path.as_ref()]);
        assert_eq!(repaired.losses.len(), lost.len());
        assert_eq!(ward.store.catalog.losses().await.unwrap(), repaired.losses);
        assert_eq!(
            fs::read(ward.site.paths().damaged().join(file.path.as_ref())).unwrap(),
            bytes
        );

        assert!(ward.check().await.is_sound());
        let after = ward.found().await;
        let messages: u64 = repaired
            .losses
            .iter()
            .filter_map(|loss| loss.messages)
            .sum();
        assert_eq!(
            before.len() - after.len(),
            usize::try_from(messages).unwrap()
        );
        for (name, (_, envelope)) in &after {
            assert_eq!(&before[name].1, envelope);
        }
        // Nothing is damaged any more, so a second repair finds nothing to do.
        let again = ward
            .store
            .repair(&ward.check().await, at(3_001))
            .await
            .unwrap();
        assert_eq!(again.files, [""; 0]);
    }
}

#[tokio::test]
async fn a_damaged_footer_costs_nothing_and_a_missing_file_is_said_to_be_lost() {
    let ward = Ward::new(true).await;
    let before = ward.found().await;
    let files = ward.files().await;
    let path = ward.path(&files[0]);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = ward.check().await;
    assert!(
        report
            .damage
            .iter()
            .all(|damage| damage.cost == Cost::Nothing),
        "{:?}",
        report.damage
    );
    let repaired = ward.store.repair(&report, at(3_000)).await.unwrap();
    assert_eq!((repaired.replaced_by.len(), repaired.losses.len()), (1, 0));
    assert!(ward.check().await.is_sound());
    assert_eq!(
        ward.found().await.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );

    let gone = ward.files().await[0].clone();
    fs::remove_file(ward.path(&gone)).unwrap();
    let report = ward.check().await;
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    let repaired = ward.store.repair(&report, at(3_001)).await.unwrap();
    assert_eq!(repaired.losses[0].messages, Some(gone.messages));
    assert!(ward.check().await.is_sound());
}
