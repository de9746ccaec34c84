//! A registry that goes back to any earlier state of its own, under a store that is closed, crashed or running, loses no
//! message and doubles none; or it is refused, and every file stays.

mod journal;
mod lines;

use jiff::SignedDuration;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::compact::{forced, found};
use super::sealed::{Found, Monitor};
use super::vacuum::Log;
use super::*;
use crate::crash::CrashPoint;
use crate::error::WentBack;
use crate::ports::Actor;
use crate::progress::Unwatched;

/// What a registry says of data files, saved beside it and brought back.
struct Past {
    db: Database,
    states: usize,
}

const TABLES: [&str; 5] = [
    "snapshots",
    "data_files",
    "watermarks",
    "tombstones",
    "losses",
];

impl Past {
    async fn of(site: &Site) -> Self {
        Self {
            db: site.database().await,
            states: 0,
        }
    }

    async fn run(&self, statements: impl Iterator<Item = String>) {
        let mut tx = self.db.begin().await.unwrap();
        for statement in statements {
            let statement = sqlx::raw_sql(AssertSqlSafe(statement));
            statement.execute(tx.connection()).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Saves the present state; its number.
    async fn save(&mut self) -> usize {
        let n = self.states;
        let save = |table| format!("CREATE TABLE past_{n}_{table} AS SELECT * FROM {table}");
        self.run(TABLES.into_iter().map(save)).await;
        self.states += 1;
        n
    }

    /// Saves a state that has what `before` had, and as planned what was written since.
    async fn save_planned(&mut self, before: usize) -> usize {
        let n = self.states;
        let save =
            |table| format!("CREATE TABLE past_{n}_{table} AS SELECT * FROM past_{before}_{table}");
        let plan = format!(
            "INSERT INTO past_{n}_data_files (file, state, written_at_us) \
             SELECT file, 'planned', written_at_us FROM data_files \
             WHERE file NOT IN (SELECT file FROM past_{before}_data_files)"
        );
        self.run(TABLES.into_iter().map(save).chain([plan])).await;
        self.states += 1;
        n
    }

    async fn bring_back(&self, n: usize) {
        let back = |table| {
            [
                format!("DELETE FROM {table}"),
                format!("INSERT INTO {table} SELECT * FROM past_{n}_{table}"),
            ]
        };
        self.run(TABLES.into_iter().flat_map(back)).await;
    }
}

/// What is done to the files of a store.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    /// A message of each patient, and their flush.
    Flush,
    Compact,
    /// What ended is removed at once.
    Collect,
}

impl Step {
    fn crash_points(self) -> &'static [CrashPoint] {
        match self {
            Self::Flush => &[
                CrashPoint::FlushPlanned,
                CrashPoint::FileRenamed,
                CrashPoint::FlushCatalogued,
            ],
            Self::Compact => &[CrashPoint::UpkeepWritten, CrashPoint::UpkeepCommitted],
            Self::Collect => &[CrashPoint::GarbageRemoved],
        }
    }
}

/// Two patients, a monitor, and the clock of a test.
struct Ward {
    monitor: Monitor,
    patients: [SubjectPseudonym; 2],
    now: i64,
}

impl Ward {
    async fn of(store: &Store) -> Self {
        Self {
            patients: [patient(store).await, patient(store).await],
            monitor: Monitor::enrol(store, 1).await,
            now: 100,
        }
    }

    /// A message of each patient, acknowledged.
    async fn admit(&mut self, store: &Store) {
        self.now += 60;
        for (n, subject) in (0..).zip(&self.patients) {
            let sequence = u64::try_from(self.now).unwrap() + n;
            let when = (self.now, self.now + 3);
            let message = self.monitor.vitals(store, subject, sequence, when, 3).await;
            store.inbox.admit(message).await.unwrap();
        }
    }

    async fn take(&self, step: Step, store: &Store) -> Result<(), StoreError> {
        let now = at(self.now + 10);
        match step {
            Step::Flush => store.flush(now).await.map(drop),
            Step::Compact => store.compact(now, &forced(), &Unwatched).await.map(drop),
            Step::Collect => {
                let (grace, log) = (SignedDuration::ZERO, Log::default());
                let collected = store.collect_garbage(now, grace, Actor::System, &log);
                collected.await.map(drop)
            }
        }
    }

    /// Every message, each once.
    async fn messages(&self, store: &Store) -> Vec<Vec<u8>> {
        let [a, b] = &self.patients;
        without_place(found(store, &[a, b]).await)
    }
}

fn without_place(found: Found) -> Vec<Vec<u8>> {
    found.into_values().map(|(_, envelope)| envelope).collect()
}

async fn forget_last_change(site: &Site) {
    let inbox = crate::database::sqlite::options(&site.paths().inbox());
    let mut conn = inbox.connect().await.unwrap();
    let last = "DELETE FROM changes WHERE id = (SELECT MAX(id) FROM changes)";
    sqlx::query(last).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// Everything that a store does after it was opened, and that it is still whole then.
async fn assert_lives_on(site: &Site, ward: &Ward, expected: &[Vec<u8>], what: &str) {
    let open = async || {
        let opened = site.open().await;
        let store = opened.unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
        assert!(ward.messages(&store).await == expected, "{what}");
        store
    };
    let store = open().await;
    for step in [Step::Collect, Step::Flush, Step::Compact, Step::Collect] {
        ward.take(step, &store).await.unwrap();
        assert!(ward.messages(&store).await == expected, "{what}, {step:?}");
    }
    assert_eq!(store.inbox.pending().await.unwrap().0, 0);
    store.close().await;
    open().await.close().await;
}

#[tokio::test]
async fn wherever_power_fails_and_however_far_the_registry_went_back_each_message_is_there_once() {
    let steps = [
        Step::Flush,
        Step::Flush,
        Step::Compact,
        Step::Collect,
        Step::Flush,
        Step::Compact,
        Step::Collect,
    ];
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let mut past = Past::of(&site).await;
    // Before each step, and between its plan and its commit.
    let mut states = Vec::new();
    for step in steps {
        if step == Step::Flush {
            ward.admit(&store).await;
        }
        let expected = ward.messages(&store).await;
        for &point in step.crash_points() {
            let before = past.save().await;
            store.crash().arm(point);
            ward.take(step, &store).await.unwrap_err();
            let now = past.save().await;
            let planned = past.save_planned(before).await;
            for earlier in states.iter().chain([&before, &planned, &now]) {
                past.bring_back(*earlier).await;
                let copy = site.power_cut();
                let what = format!("{step:?}, {point:?}, {earlier} of {now}");
                assert_lives_on(&copy, &ward, &expected, &what).await;
            }
            // The same between the commit and its note, where that is another moment.
            let made = [CrashPoint::FlushCatalogued, CrashPoint::UpkeepCommitted].contains(&point);
            for earlier in [before, planned, now].into_iter().filter(|_| made) {
                past.bring_back(earlier).await;
                let copy = site.power_cut();
                forget_last_change(&copy).await;
                let what = format!("{step:?}, not noted, {earlier} of {now}");
                assert_lives_on(&copy, &ward, &expected, &what).await;
            }
            past.bring_back(now).await;
        }
        store.crash().arm(CrashPoint::TreeCommitted);
        let before = past.save().await;
        ward.take(step, &store).await.unwrap();
        states.extend([before, past.save_planned(before).await]);
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[tokio::test]
async fn a_registry_that_goes_back_under_a_running_store_gets_again_what_it_lost() {
    for seed in 1..=6 {
        let mut dice = Dice(seed);
        let site = Site::new();
        let store = site.create().await;
        let mut ward = Ward::of(&store).await;
        let mut past = Past::of(&site).await;
        let mut before = past.save().await;
        for n in 0..30 {
            if dice.roll(2) == 0 {
                ward.admit(&store).await;
            }
            let expected = ward.messages(&store).await;
            let step = [Step::Flush, Step::Compact, Step::Collect][dice.roll(3)];
            let earlier = dice.roll(past.states);
            let what = format!("seed {seed}, {n}: {step:?}, {earlier}");
            match dice.roll(4) {
                // Nothing happens.
                0 => ward.take(step, &store).await.unwrap(),
                // Before a step, and nobody looks in between.
                1 => {
                    past.bring_back(earlier).await;
                    ward.take(step, &store).await.unwrap();
                }
                // After it, and somebody looks at once.
                2 => {
                    ward.take(step, &store).await.unwrap();
                    past.bring_back(earlier).await;
                }
                // While it is under way.
                _ => {
                    let (taken, ()) =
                        tokio::join!(ward.take(step, &store), past.bring_back(earlier));
                    if let Err(error) = taken {
                        let error = chain(&error);
                        assert!(
                            error.contains("went back") || error.contains("planned"),
                            "{error}"
                        );
                    }
                }
            }
            assert!(ward.messages(&store).await == expected, "{what}");
            past.save_planned(before).await;
            ward.take(Step::Collect, &store).await.unwrap();
            assert!(ward.messages(&store).await == expected, "{what}");
            before = past.save().await;
        }
        let expected = ward.messages(&store).await;
        assert_lives_on(&site.power_cut(), &ward, &expected, &format!("seed {seed}")).await;
    }
}

#[tokio::test]
#[ignore = "test.sh runs it, with a server"]
async fn a_dump_of_the_registry_that_is_restored_gets_again_what_it_lost() {
    let mut site = Site::on_server();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    let dump = site.schema.as_ref().unwrap().copy();
    ward.admit(&store).await;
    for step in [Step::Flush, Step::Compact, Step::Collect] {
        ward.take(step, &store).await.unwrap();
    }
    let expected = ward.messages(&store).await;
    store.close().await;
    site.schema = Some(dump);
    assert_lives_on(&site, &ward, &expected, "restored").await;
}

#[tokio::test]
async fn what_cannot_be_made_up_for_is_refused_and_nothing_is_removed() {
    let site = Site::new();
    let store = site.create().await;
    let mut ward = Ward::of(&store).await;
    let mut past = Past::of(&site).await;
    let before = past.save().await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    let expected = ward.messages(&store).await;
    let now = past.save().await;

    let files = store.catalog.files().await.unwrap();
    let name = files[0].path.to_string();
    let path = site.data().join("parquet").join(&name);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    past.bring_back(before).await;
    for damaged in [None, Some(flipped)] {
        match &damaged {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let there = site.parquet_files();
        // The store that runs goes on taking messages, and neither reads nor removes.
        ward.admit(&store).await;
        let who = authorized(&[&ward.patients[0]]);
        let mut refused = vec![store.cut(&who).await.map(drop).unwrap_err()];
        for step in [Step::Flush, Step::Compact, Step::Collect] {
            refused.push(ward.take(step, &store).await.unwrap_err());
        }
        refused.push(site.power_cut().open().await.map(drop).unwrap_err());
        for refused in refused {
            let StoreError::RegistryBehind { cause, .. } = &refused else {
                panic!("{}", chain(&refused));
            };
            match (cause, &damaged) {
                (WentBack::Unreadable { file, .. }, None) => assert_eq!(*file, name),
                (WentBack::Changed(file), Some(_)) => assert_eq!(*file, name),
                (cause, _) => panic!("{cause:?}"),
            }
        }
        assert_eq!(site.parquet_files(), there);
    }
    fs::write(&path, whole).unwrap();
    let mut all = ward.messages(&store).await;
    assert_eq!(all.len(), expected.len() + 4);
    all.retain(|envelope| expected.contains(envelope));
    assert!(all == expected);

    // A registry that went on without this inbox.
    past.bring_back(now).await;
    past.run(["UPDATE snapshots SET change = 'another' WHERE id = 2".to_owned()].into_iter())
        .await;
    store.close().await;
    let refused = site.open().await.unwrap_err();
    let elsewhere = WentBack::Elsewhere;
    assert!(
        chain(&refused).contains(&elsewhere.to_string()),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_registry_from_before_an_erasure_brings_nobody_back() {
    let site = Site::with_file();
    let custody = || backup::custody(&site);
    let store = backup::create(&site).await;
    let mut ward = Ward::of(&store).await;
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    store.close().await;
    let earlier = fs::read(site.paths().registry()).unwrap();

    let store = Store::open(&site.paths(), custody(), at(300))
        .await
        .unwrap();
    ward.admit(&store).await;
    ward.take(Step::Flush, &store).await.unwrap();
    let [gone, stays] = ward.patients.clone();
    store.keys.erase(&gone, "e", at(400)).await.unwrap();
    store.vacuum(at(401), &Unwatched).await.unwrap();
    ward.take(Step::Collect, &store).await.unwrap();
    let expected = without_place(found(&store, &[&gone, &stays]).await);
    assert_eq!(expected.len(), 2);
    store.close().await;

    fs::write(site.paths().registry(), earlier).unwrap();
    let store = Store::open(&site.paths(), custody(), at(500))
        .await
        .unwrap();
    assert!(store.keys.patient_keys(&gone).await.unwrap().is_none());
    assert!(without_place(found(&store, &[&gone, &stays]).await) == expected);
    ward.take(Step::Collect, &store).await.unwrap();
    assert!(without_place(found(&store, &[&gone, &stays]).await) == expected);
}
