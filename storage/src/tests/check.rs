//! The check finds what was changed, names it, and nothing else; a repair keeps all the rest.

mod crash;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use parquet::arrow::async_reader::AsyncFileReader as _;

use super::sealed::{Found, Monitor, everything};
use super::vacuum::Log;
use super::*;
use crate::catalog::{DataFile, Holding, TableKind};
use crate::check::{CheckOptions, CheckReport, Cost, Place, RepairReport};
use crate::compact::CompactionSettings;
use crate::ports::Actor;
use crate::progress::{Progress, Unwatched};
use crate::schema;

/// Patients and messages of each: small, since every byte of the files is tried (`flips`).
pub(super) const PATIENTS: u64 = 3;
pub(super) const MESSAGES: u64 = 4;

pub(super) struct Ward {
    pub(super) site: Site,
    pub(super) store: Store,
    pub(super) patients: Vec<SubjectPseudonym>,
}

impl Ward {
    /// Vitals and waveforms of some patients, flushed; as chunks if they are compacted.
    pub(super) async fn new(compacted: bool) -> Self {
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

    pub(super) async fn compact(&self) {
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

    pub(super) async fn check(&self) -> CheckReport {
        let options = CheckOptions {
            keys: true,
            authorities: Vec::new(),
        };
        self.store.check(&options, &Unwatched).await.unwrap()
    }

    pub(super) async fn found(&self) -> Found {
        let patients: Vec<_> = self.patients.iter().collect();
        let cut = self.store.cut(&authorized(&patients)).await.unwrap();
        everything(&self.store, &cut, &patients).await
    }

    pub(super) async fn files(&self) -> Arc<[DataFile]> {
        self.store.catalog.files().await.unwrap()
    }

    pub(super) fn path(&self, file: &DataFile) -> PathBuf {
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
        // Half of what is being written belongs to its whole.
        let half = format!("parquet/{}.tmp", ward.files().await[0].path);
        fs::write(ward.site.data().join(half), "any").unwrap();
        assert_eq!(ward.check().await.unknown, ["r-0.parquet"]);
    }
}

/// Flips a bit in the middle of the first group's pages of a column.
async fn flip(ward: &Ward, file: &DataFile, column: &str) -> Vec<u8> {
    let metadata = ward
        .store
        .files
        .reader(file)
        .get_metadata(None)
        .await
        .unwrap();
    let group = metadata.row_group(0);
    let found = group
        .columns()
        .iter()
        .find(|of| of.column_path().string() == column);
    let (start, length) = found.unwrap().byte_range();
    let mut bytes = fs::read(ward.path(file)).unwrap();
    bytes[usize::try_from(start + length / 2).unwrap()] ^= 1;
    fs::write(ward.path(file), &bytes).unwrap();
    bytes
}

/// The damage of rows; what is said of the file's bytes as a whole is left out.
fn of_rows(report: &CheckReport) -> Vec<(Cost, &Place)> {
    let rows = report.damage.iter().filter(|it| it.place.row.is_some());
    rows.map(|it| (it.cost, &it.place)).collect()
}

pub(super) async fn repaired(ward: &Ward, report: &CheckReport) -> RepairReport {
    let nothing = BTreeSet::new();
    let repaired = ward.store.repair(report, &nothing, at(3_000));
    repaired.await.unwrap()
}

#[tokio::test]
async fn damaged_messages_are_set_aside_alone_and_their_loss_is_on_record() {
    let ward = Ward::new(false).await;
    let before = ward.found().await;
    let file = &ward.files().await[0];
    let bytes = flip(&ward, file, schema::ENVELOPE).await;
    let report = ward.check().await;
    let lost = of_rows(&report);
    assert!(!lost.is_empty(), "{:?}", report.damage);
    assert!(lost.iter().all(|(cost, _)| *cost == Cost::Lost));
    let repaired_once = repaired(&ward, &report).await;
    assert_eq!(repaired_once.files, [file.path.as_ref()]);
    assert_eq!(repaired_once.losses.len(), lost.len());
    assert_eq!(
        ward.store.catalog.losses().await.unwrap(),
        repaired_once.losses
    );
    assert_eq!(
        fs::read(ward.site.paths().damaged().join(file.path.as_ref())).unwrap(),
        bytes
    );

    assert!(ward.check().await.is_sound());
    let after = ward.found().await;
    assert_eq!(before.len() - after.len(), lost.len());
    for (name, (_, envelope)) in &after {
        assert_eq!(&before[name].1, envelope);
    }
    // Nothing is damaged any more, so a second repair finds nothing to do.
    let again = repaired(&ward, &ward.check().await).await;
    assert_eq!(again, RepairReport::default());
}

#[tokio::test]
async fn messages_of_a_chunk_whose_readings_are_damaged_are_rows_again_and_none_is_lost() {
    for table in TableKind::ALL {
        let ward = Ward::new(true).await;
        let before = ward.found().await;
        let files = ward.files().await;
        let file = files.iter().find(|file| file.table == table).unwrap();
        flip(&ward, file, schema::SEALED).await;
        let report = ward.check().await;
        let damaged = of_rows(&report);
        assert_eq!(damaged.len(), 1, "a bit costs its own chunk: {damaged:?}");
        let (cost, place) = damaged[0];
        assert_eq!(cost, Cost::Nothing);
        assert!(ward.patients.contains(place.patient.as_ref().unwrap()));
        assert!(place.bucket_start.is_some());

        let repaired = repaired(&ward, &report).await;
        assert_eq!(repaired.losses, []);
        assert_eq!(repaired.put_back, MESSAGES);
        assert!(ward.check().await.is_sound());
        let after = ward.found().await;
        let stored = |found: &Found| -> Vec<_> {
            let envelopes = found.iter();
            let envelopes = envelopes.map(|(name, (_, envelope))| (name.clone(), envelope.clone()));
            envelopes.collect()
        };
        assert_eq!(stored(&after), stored(&before));
        let rows = after.values().filter(|(place, _)| place == "rows 0");
        assert_eq!(rows.count() as u64, MESSAGES);
        ward.compact().await;
        let report = ward.check().await;
        assert_eq!((report.damage.len(), report.rows), (0, 0));
        assert_eq!(stored(&ward.found().await), stored(&before));
    }
}

#[tokio::test]
async fn a_chunk_whose_evidence_is_damaged_keeps_its_readings() {
    let ward = Ward::new(true).await;
    let before = ward.check().await;
    let file = &ward.files().await[0];
    flip(&ward, file, schema::EVIDENCE).await;
    let report = ward.check().await;
    let damaged = of_rows(&report);
    assert_eq!(damaged.len(), 1, "a bit costs its own chunk: {damaged:?}");
    assert_eq!(damaged[0].0, Cost::Evidence);
    let held = async |until| {
        let held = ward.store.catalog.holdings(None, None, at(0), at(until));
        let held = held.await.unwrap();
        let sum = |of: fn(&Holding) -> u64| held.iter().map(of).sum::<u64>();
        (
            sum(|it| it.messages),
            sum(|it| it.readings),
            sum(|it| it.undated),
        )
    };
    let all = held(900).await;
    let repaired_once = repaired(&ward, &report).await;
    assert_eq!(repaired_once.losses.len(), 1);
    let loss = &repaired_once.losses[0];
    assert_eq!(
        (loss.messages, loss.is_of_evidence()),
        (Some(MESSAGES), true)
    );

    // Merging leaves it as it is.
    for _ in 0..2 {
        let after = ward.check().await;
        assert_eq!(after.damage, []);
        let [unproven] = &after.unproven[..] else {
            panic!("{:?}", after.unproven);
        };
        assert_eq!(unproven.patient, loss.patient);
        assert_eq!(unproven.messages, Some(MESSAGES));
        assert_eq!(after.opened, before.opened);
        assert_eq!(
            (after.messages, after.readings),
            (before.messages, before.readings)
        );
        assert_eq!(after.signatures, before.signatures - MESSAGES);
        ward.compact().await;
    }
    let again = repaired(&ward, &ward.check().await).await;
    assert_eq!(again, RepairReport::default());

    // Whoever counts what came needs it only where a window cuts it in two, and then counts all of it.
    assert_eq!(held(900).await, all);
    assert_eq!(all, (before.messages, before.readings, 0));
    let (messages, readings, undated) = held(100).await;
    assert_eq!(undated, MESSAGES);
    let others = PATIENTS * 2 - 1;
    assert_eq!(messages, others + MESSAGES);
    assert!(readings > others * 60 + MESSAGES * 60 - 1, "{readings}");
}

#[tokio::test]
async fn a_damaged_chunk_is_set_aside_alone_and_its_loss_is_on_record() {
    let ward = Ward::new(true).await;
    let before = ward.found().await;
    let file = &ward.files().await[0];
    flip(&ward, file, schema::SEALED).await;
    flip(&ward, file, schema::EVIDENCE).await;
    let report = ward.check().await;
    assert_eq!(of_rows(&report).len(), 1, "{:?}", report.damage);
    let repaired = repaired(&ward, &report).await;
    assert_eq!(repaired.losses.len(), 1);
    assert_eq!(repaired.losses[0].messages, Some(MESSAGES));
    let recorded = ward.store.catalog.losses().await.unwrap();
    assert_eq!(recorded, repaired.losses);
    assert!(ward.check().await.is_sound());
    let lost = before.len() - ward.found().await.len();
    assert_eq!(lost as u64, MESSAGES);
}

#[tokio::test]
async fn a_damaged_footer_costs_nothing() {
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
    let repaired = repaired(&ward, &report).await;
    assert_eq!((repaired.replaced_by.len(), repaired.losses.len()), (1, 0));
    assert!(ward.check().await.is_sound());
    assert_eq!(
        ward.found().await.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_is_given_up_only_by_its_name() {
    let ward = Ward::new(true).await;
    let before = ward.found().await;
    let files = ward.files().await;
    let elsewhere = ward.site.data().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let aside = |file: &DataFile| elsewhere.join(file.path.as_ref());
    for file in files.iter() {
        fs::rename(ward.path(file), aside(file)).unwrap();
    }
    let report = ward.check().await;
    let costs: Vec<_> = report.damage.iter().map(|damage| damage.cost).collect();
    assert_eq!(costs, [Cost::Missing; 2]);
    let left = repaired(&ward, &report).await;
    assert_eq!((left.missing.len(), left.losses.len()), (2, 0));

    // One is back, and is not given up, whatever its name; the other is.
    fs::rename(aside(&files[0]), ward.path(&files[0])).unwrap();
    let named = files.iter().map(|file| file.path.to_string()).collect();
    let given_up = ward.store.repair(&report, &named, at(3_001)).await.unwrap();
    assert_eq!(given_up.missing, [files[0].path.as_ref()]);
    assert_eq!(given_up.losses.len(), 1);
    assert_eq!(given_up.losses[0].messages, Some(files[1].messages));
    assert!(ward.check().await.is_sound());
    let lost = before.len() - ward.found().await.len();
    assert_eq!(lost as u64, files[1].messages);
}

#[tokio::test]
async fn a_key_that_is_not_here_is_no_damage() {
    for compacted in [false, true] {
        let mut ward = Ward::new(compacted).await;
        let before = ward.files().await;
        let rotated = ward
            .store
            .registry
            .rotate_kek(&ward.patients[0], at(2_500))
            .await
            .unwrap();
        ward.store.close().await;
        let db = ward.site.database().await;
        sqlx::query("DELETE FROM keks WHERE kid = $1")
            .bind(rotated.retired.as_bytes())
            .execute(db.pool())
            .await
            .unwrap();
        db.close().await;
        ward.store = ward.site.open().await.unwrap();
        let report = ward.check().await;
        let costs: BTreeSet<_> = report
            .damage
            .iter()
            .map(|it| it.cost == Cost::Doubt)
            .collect();
        assert_eq!(costs, BTreeSet::from([true]), "{:?}", report.damage);
        assert_eq!(repaired(&ward, &report).await, RepairReport::default());
        assert_eq!(ward.files().await, before);
    }
}

/// While it checks the first file, the others are replaced, and whoever removes what was replaced comes along.
struct Meanwhile(Store);

impl Progress for Meanwhile {
    fn step(&self, done: u64, _: u64, what: &str) {
        if done > 0 || what == "inbox" {
            return;
        }
        let store = self.0.clone();
        let replaced = async move {
            let settings = CompactionSettings {
                force: true,
                ..CompactionSettings::default()
            };
            while store
                .compact(at(2_000), &settings, &Unwatched)
                .await
                .unwrap()
                .more
            {}
            let none = SignedDuration::ZERO;
            store
                .collect_garbage(at(9_000), none, Actor::System, &Log::default())
                .await
                .unwrap()
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(replaced));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_while_it_is_checked_stays_until_the_check_is_over() {
    let ward = Ward::new(false).await;
    let options = CheckOptions {
        keys: true,
        authorities: Vec::new(),
    };
    let meanwhile = Meanwhile(ward.store.clone());
    let report = ward.store.check(&options, &meanwhile).await.unwrap();
    assert_eq!((&report.damage[..], report.files), (&[][..], 2));
    assert_eq!(report.messages, PATIENTS * MESSAGES * 2);
    assert_eq!(
        ward.check().await.chunks,
        PATIENTS * 2,
        "nothing was merged"
    );
}
