//! What is lost to damage is told to whoever asks for it, and to nobody else.

use std::collections::BTreeSet;
use std::fs;

use futures::TryStreamExt;
use vitalseal_storage::catalog::{DataFile, FileKind};
use vitalseal_storage::{CheckOptions, RepairReport, Unwatched, schema};

use crate::served::Door;
use crate::ward::Ward;

/// Flips a bit in the middle of the first group's pages of a column.
async fn flip(ward: &Ward, file: &DataFile, column: &str) {
    let metadata = ward.store.files.metadata(file).await.unwrap();
    let columns = metadata.row_group(0).columns();
    let found = columns
        .iter()
        .find(|of| of.column_path().string() == column);
    let (start, length) = found.unwrap().byte_range();
    let path = ward.store.paths().parquet().join(file.path.as_ref());
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::try_from(start + length / 2).unwrap()] ^= 1;
    fs::write(&path, &bytes).unwrap();
}

async fn files(ward: &Ward, kind: FileKind) -> Vec<DataFile> {
    let files = ward.store.catalog.files().await.unwrap();
    files
        .iter()
        .filter(|file| file.kind == kind)
        .cloned()
        .collect()
}

/// Sets aside what is damaged, and gives up what is not there.
async fn repair(ward: &Ward) -> RepairReport {
    let options = CheckOptions {
        keys: true,
        authorities: Vec::new(),
    };
    let found = ward.store.check(&options, &Unwatched).await.unwrap();
    let named = ward.store.catalog.files().await.unwrap();
    let named: BTreeSet<String> = named.iter().map(|file| file.path.to_string()).collect();
    let now = vitalseal_storage::ports::Clock::now(&*ward.clock);
    ward.store.repair(&found, &named, now).await.unwrap()
}

/// What is told beside an answer.
async fn told(ward: &Ward, user: &str, sql: &str) -> Vec<String> {
    let answer = ward.session(user).await.sql(sql).await.unwrap();
    let told = answer.notices().to_vec();
    let _: Vec<_> = answer.try_collect().await.unwrap();
    told
}

const COUNT: &str = "SELECT count(*) FROM vitals";

#[tokio::test]
async fn a_loss_is_told_to_whoever_asks_for_it_and_to_nobody_else() {
    let ward = Ward::open().await;
    let mine = ward.admit("icu-1", "Mine", "me").await;
    let theirs = ward.admit("icu-2", "Theirs", "them").await;
    let gone = ward.admit("icu-3", "Gone", "me").await;
    for bed in [&mine, &gone] {
        ward.measure(bed, 60, &[60.0, 61.0]).await;
        ward.flush().await;
    }
    ward.measure(&mine, 600, &[62.0]).await;
    ward.measure(&theirs, 60, &[80.0]).await;
    ward.flush().await;
    assert!(told(&ward, "me", COUNT).await.is_empty());
    let damaged = files(&ward, FileKind::Rows).await;
    for file in &damaged[..2] {
        flip(&ward, file, schema::ENVELOPE).await;
    }
    assert_eq!(repair(&ward).await.losses.len(), 2);
    ward.erase(&gone).await;

    let lost = "messages lost to damage, which may be missing from this answer: 1, measured from \
                2026-03-01T00:01:00Z to 2026-03-01T00:01:01Z";
    let of_mine = format!("patient = '{}'", mine.patient.as_str());
    for (user, sql, expected) in [
        ("me", COUNT.to_owned(), Some(lost)),
        (
            "me",
            format!("{COUNT} WHERE {of_mine} AND value > 1000"),
            Some(lost),
        ),
        (
            "me",
            "SELECT a.value FROM vitals a JOIN vitals b USING (ts)".to_owned(),
            Some(lost),
        ),
        (
            "me",
            "SELECT count(*) FROM provenance".to_owned(),
            Some(lost),
        ),
        (
            "me",
            "SELECT date_trunc('minute', ts), avg(value) FROM vitals GROUP BY 1".to_owned(),
            Some(lost),
        ),
        (
            "me",
            format!("{COUNT} WHERE ts > '2026-03-01T00:01:01Z'"),
            None,
        ),
        (
            "me",
            format!("{COUNT} WHERE patient = '{}'", gone.patient.as_str()),
            None,
        ),
        ("me", "SELECT patient FROM patients".to_owned(), None),
        ("me", "SELECT 1".to_owned(), None),
        ("them", COUNT.to_owned(), None),
        ("nobody", COUNT.to_owned(), None),
    ] {
        let told = told(&ward, user, &sql).await;
        assert_eq!(told, Vec::from_iter(expected), "{user}: {sql}");
    }
    // What is lost stays told, wherever the rest is by now.
    ward.compact().await;
    assert_eq!(told(&ward, "me", COUNT).await, [lost]);

    let door = Door::open(&ward).await;
    let client = door.connect("me", "token-of-me").await.unwrap();
    for expected in [1, 2] {
        // The extended protocol, then the simple one.
        if expected == 1 {
            assert_eq!(client.query(COUNT, &[]).await.unwrap().len(), 1);
        } else {
            client.simple_query(COUNT).await.unwrap();
        }
        assert_eq!(*door.heard.lock().unwrap(), vec![lost; expected]);
    }
    if let Some(psql) = door.psql("me", "token-of-me", &[COUNT]).await {
        let (out, err) = (psql.stdout, psql.stderr);
        assert_eq!(String::from_utf8(out).unwrap().trim(), "1");
        assert_eq!(
            String::from_utf8(err).unwrap().trim(),
            format!("NOTICE:  {lost}")
        );
        let quiet = door.psql("them", "token-of-them", &[COUNT]).await.unwrap();
        assert!(quiet.stderr.is_empty(), "{quiet:?}");
    }
}

#[tokio::test]
async fn of_a_loss_whose_patient_nobody_knows_no_more_than_the_day_can_be_learnt() {
    let ward = Ward::open().await;
    let mine = ward.admit("icu-1", "Mine", "me").await;
    let theirs = ward.admit("icu-2", "Theirs", "them").await;
    ward.measure(&theirs, 60, &[80.0, 81.0]).await;
    ward.flush().await;
    ward.measure(&mine, 60, &[60.0]).await;
    ward.flush().await;
    let lost = files(&ward, FileKind::Rows).await.remove(0);
    let path = ward.store.paths().parquet().join(lost.path.as_ref());
    fs::remove_file(path).unwrap();
    assert_eq!(repair(&ward).await.losses.len(), 1);
    let unknown = "messages were lost to damage of which it is not known whose they were: some may be missing from this \
                   answer";
    for user in ["me", "them"] {
        assert_eq!(told(&ward, user, COUNT).await, [unknown]);
    }
    // Moving bounds lead to the day, and no further.
    let asked = async |filter: &str| told(&ward, "me", &format!("{COUNT} WHERE {filter}")).await;
    for hour in ["ts < '2026-03-01T00:00:01Z'", "ts > '2026-03-01T23:59:59Z'"] {
        assert_eq!(asked(hour).await, [unknown], "{hour}");
    }
    for day in [
        "ts < '2026-03-01T00:00:00Z'",
        "ts >= '2026-03-02T00:00:00Z'",
    ] {
        assert!(asked(day).await.is_empty(), "{day}");
    }
    assert!(told(&ward, "nobody", COUNT).await.is_empty());
}

#[tokio::test]
async fn provenance_goes_on_without_the_evidence_of_a_chunk_and_says_so() {
    let ward = Ward::open().await;
    let mine = ward.admit("icu-1", "Mine", "me").await;
    for minute in 0..3 {
        ward.measure(&mine, minute * 60, &[60.0, 61.0]).await;
    }
    ward.flush().await;
    ward.compact().await;
    let theirs = ward.admit("icu-2", "Theirs", "me").await;
    ward.measure(&theirs, 0, &[80.0]).await;
    ward.flush().await;
    let chunk = files(&ward, FileKind::Chunks).await.remove(0);
    flip(&ward, &chunk, schema::EVIDENCE).await;
    let shown = "SELECT patient, count(*) FROM provenance GROUP BY patient";
    let damaged = ward.ask("me", shown).await.unwrap_err();
    assert_eq!(
        damaged.client_message().0,
        "XX001",
        "not on record: {damaged:?}"
    );
    assert_eq!(repair(&ward).await.losses.len(), 1);

    let left = format!("{}|1", theirs.patient.as_str());
    assert_eq!(ward.ask("me", shown).await.unwrap(), [left]);
    let lost = "messages of which only the readings are left, since damage took their envelopes: 3, measured from \
                2026-03-01T00:00:00Z to 2026-03-01T00:02:01Z";
    assert_eq!(told(&ward, "me", shown).await, [lost]);
    // No reading is missing.
    assert_eq!(ward.number("me", COUNT).await, 7);
    assert!(told(&ward, "me", COUNT).await.is_empty());
}
