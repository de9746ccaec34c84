//! What a query returns: everything of the patients it may see, nothing of anybody else.

use std::sync::atomic::Ordering;

use futures::StreamExt;
use proptest::prelude::*;
use vitalseal_query::QueryError;

use crate::ward::Ward;

#[tokio::test]
async fn rows_are_what_was_sealed() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada Lovelace", "ada.md").await;
    ward.measure(&bed, 0, &[61.0, 62.5]).await;
    ward.flush().await;
    ward.measure(&bed, 2, &[63.0]).await;

    let rows = ward
        .ask(
            "ada.md",
            "SELECT patient, device, code, value, ts, quality FROM vitals ORDER BY ts",
        )
        .await
        .unwrap();
    let expected = |value: &str, second: u32| {
        format!(
            "{}|icu-1|8867-4|{value}|2026-03-01T00:00:0{second}Z|ok",
            bed.patient.as_str()
        )
    };
    assert_eq!(
        rows,
        [
            expected("61.0", 0),
            expected("62.5", 1),
            expected("63.0", 2)
        ]
    );

    assert_eq!(
        ward.number("ada.md", "SELECT count(*) FROM vitals").await,
        3
    );
    assert_eq!(
        ward.ask("ada.md", "SELECT avg(value) FROM vitals WHERE value < 63")
            .await
            .unwrap(),
        ["61.75"]
    );
    assert_eq!(
        ward.ask("ada.md", "SELECT name, mrn, state FROM patients")
            .await
            .unwrap(),
        ["Ada Lovelace|MRN-1|active"],
    );
    assert_eq!(
        ward.ask(
            "ada.md",
            "SELECT d.device, p.name FROM devices d JOIN patients p USING (patient)"
        )
        .await
        .unwrap(),
        ["icu-1|Ada Lovelace"],
    );
}

#[tokio::test]
async fn filters_on_patient_code_and_time_find_the_same_rows_sealed_or_not() {
    let ward = Ward::open().await;
    let one = ward.admit("icu-1", "One", "md").await;
    let two = ward.admit("icu-2", "Two", "md").await;
    for minute in 0..20 {
        ward.measure(&one, minute * 60, &[60.0, 61.0]).await;
        ward.measure(&two, minute * 60, &[80.0]).await;
        if minute == 9 {
            ward.flush().await;
        }
    }
    let cases = [
        (format!("patient = '{}'", one.patient.as_str()), 40),
        (
            format!("patient IN ('{}', 'nobody')", two.patient.as_str()),
            20,
        ),
        (format!("patient <> '{}'", one.patient.as_str()), 20),
        (
            "ts >= '2026-03-01T00:05:00Z' AND ts < '2026-03-01T00:15:00Z'".to_owned(),
            30,
        ),
        (
            "ts BETWEEN TIMESTAMP '2026-03-01 00:05:00' AND TIMESTAMP '2026-03-01 00:05:00'"
                .to_owned(),
            2,
        ),
        (
            "ts > TIMESTAMP '2026-03-01 00:18:59' OR value = 80".to_owned(),
            22,
        ),
        ("code = '8867-4' AND value > 60".to_owned(), 40),
        ("code = 'no-such-code'".to_owned(), 0),
        (
            "date_trunc('minute', ts) = TIMESTAMP '2026-03-01 00:03:00'".to_owned(),
            3,
        ),
        (
            "NOT (patient = 'x' AND ts < '2026-03-01T00:05:00Z')".to_owned(),
            60,
        ),
    ];
    for (filter, expected) in cases {
        let sql = format!("SELECT count(*) FROM vitals WHERE {filter}");
        assert_eq!(ward.number("md", &sql).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn another_users_patient_cannot_be_seen_counted_or_guessed() {
    let ward = Ward::open().await;
    let mine = ward.admit("icu-1", "Mine", "me").await;
    let theirs = ward.admit("icu-2", "Theirs", "them").await;
    ward.measure(&mine, 0, &[60.0]).await;
    ward.measure(&theirs, 0, &[99.0, 99.0]).await;
    ward.flush().await;
    ward.measure(&theirs, 10, &[99.0]).await;

    let theirs_id = theirs.patient.as_str();
    for (sql, expected) in [
        ("SELECT count(*) FROM vitals".to_owned(), "1"),
        ("SELECT max(value) FROM vitals".to_owned(), "60.0"),
        ("SELECT max(ts) FROM vitals".to_owned(), "2026-03-01T00:00:00Z"),
        ("SELECT count(DISTINCT patient) FROM vitals".to_owned(), "1"),
        (format!("SELECT count(*) FROM vitals WHERE patient = '{theirs_id}'"), "0"),
        ("SELECT count(*) FROM vitals WHERE value = 99 OR true".to_owned(), "1"),
        ("SELECT count(*) FROM vitals a, vitals b".to_owned(), "1"),
        ("SELECT (SELECT count(*) FROM vitals WHERE device = 'icu-2')".to_owned(), "0"),
        ("WITH v AS (SELECT * FROM vitals UNION ALL SELECT * FROM vitals) SELECT count(*) FROM v".to_owned(), "2"),
        ("SELECT count(*) FROM patients".to_owned(), "1"),
        ("SELECT count(*) FROM devices".to_owned(), "1"),
        (format!("SELECT count(*) FROM patients WHERE EXISTS (SELECT 1 FROM vitals WHERE patient = '{theirs_id}')"), "0"),
    ] {
        assert_eq!(ward.ask("me", &sql).await.unwrap(), [expected], "{sql}");
    }
    // Nobody's grants: no row, and no hint in any catalogue of how many there are.
    for sql in [
        "SELECT count(*) FROM vitals",
        "SELECT count(*) FROM patients",
        "SELECT count(*) FROM devices",
    ] {
        assert_eq!(ward.number("nobody", sql).await, 0, "{sql}");
    }
    for sql in [
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT relname, reltuples, relpages FROM pg_catalog.pg_class",
    ] {
        let text = ward.ask("nobody", sql).await.unwrap().join("\n");
        assert!(
            !text.contains(theirs_id) && !text.contains("icu-2"),
            "{sql}: {text}"
        );
        assert!(text.contains("vitals"), "{sql}: {text}");
    }
    // A grant that is taken away ends with the next query.
    ward.revoke_grants("me");
    assert_eq!(ward.number("me", "SELECT count(*) FROM vitals").await, 0);
}

#[tokio::test]
async fn an_erased_patients_rows_are_gone_and_the_others_stay() {
    let ward = Ward::open().await;
    let stays = ward.admit("icu-1", "Stays", "md").await;
    let leaves = ward.admit("icu-2", "Leaves", "md").await;
    for bed in [&stays, &leaves] {
        ward.measure(bed, 0, &[60.0, 61.0]).await;
    }
    ward.flush().await;
    ward.measure(&leaves, 5, &[62.0]).await;
    assert_eq!(ward.number("md", "SELECT count(*) FROM vitals").await, 5);

    let now = vitalseal_storage::ports::Clock::now(&*ward.clock);
    ward.store
        .keys
        .erase(&leaves.patient, "e-1", now)
        .await
        .unwrap();
    assert_eq!(ward.number("md", "SELECT count(*) FROM vitals").await, 2);
    let names = ward
        .ask("md", "SELECT name FROM patients WHERE name IS NOT NULL")
        .await
        .unwrap();
    assert_eq!(names, ["Stays"]);
}

#[tokio::test]
async fn an_erasure_ends_the_rows_of_a_query_that_is_running() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Leaves", "md").await;
    for second in 0..1_000 {
        ward.measure(&bed, second, &[60.0]).await;
    }
    let session = ward.session("md").await;
    let mut rows = session.sql("SELECT value FROM vitals").await.unwrap();
    let mut seen = rows.next().await.unwrap().unwrap().num_rows();
    let now = vitalseal_storage::ports::Clock::now(&*ward.clock);
    ward.store
        .keys
        .erase(&bed.patient, "e-1", now)
        .await
        .unwrap();
    while let Some(batch) = rows.next().await {
        seen += batch.unwrap().num_rows();
    }
    assert!((1..1_000).contains(&seen), "{seen}");
}

#[tokio::test]
async fn a_damaged_message_is_named_and_its_content_is_not() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    let other = ward.admit("icu-2", "Bob", "md").await;
    // A genuine envelope of one patient, filed under another one's name.
    let (envelope, hash) = ward.sealed(&bed, &[0x80]).await;
    let message = envelope.header().message_id();
    ward.put(
        other.patient.clone(),
        &message,
        hash,
        &[],
        envelope.into_bytes(),
    )
    .await;
    let error = ward
        .ask("md", "SELECT count(*) FROM vitals")
        .await
        .unwrap_err();
    let (code, text) = error.client_message();
    assert_eq!(code, "XX001", "{text}");
    assert!(text.contains("icu-1"), "{text}");
    assert!(
        !text.contains(bed.patient.as_str()) && !text.contains("Ada"),
        "{text}"
    );
    assert!(matches!(error, QueryError::Engine(_)));
}

#[tokio::test]
async fn one_flipped_bit_is_an_error_and_not_a_row() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    let (envelope, hash) = ward.sealed(&bed, &[0x80]).await;
    let message = envelope.header().message_id();
    let mut bytes = envelope.into_bytes();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    ward.put(bed.patient.clone(), &message, hash, &[], bytes)
        .await;
    ward.flush().await;
    assert!(ward.ask("md", "SELECT * FROM vitals").await.is_err());
}

#[tokio::test]
async fn a_query_that_is_not_recorded_does_not_run() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    ward.measure(&bed, 0, &[60.0]).await;
    ward.audit.full.store(true, Ordering::Relaxed);
    let error = ward.ask("md", "SELECT * FROM vitals").await.unwrap_err();
    assert!(matches!(error, QueryError::Audit(_)), "{error}");
    // What touches no patient needs no record.
    assert_eq!(ward.number("md", "SELECT 1").await, 1);
}

/// A step in the life of the hot tier.
#[derive(Clone, Debug)]
enum Step {
    Measure(usize, u8),
    Flush,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// Whatever the order of messages and flushes, each reading is in the answer exactly once, each time.
    #[test]
    fn hot_and_flushed_rows_are_counted_once(
        steps in prop::collection::vec(
            prop_oneof![
                3 => (0..2_usize, 1..5_u8).prop_map(|(bed, n)| Step::Measure(bed, n)),
                1 => Just(Step::Flush),
            ],
            1..16,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ward = Ward::open().await;
            let beds = [ward.admit("icu-1", "A", "md").await, ward.admit("icu-2", "B", "md").await];
            let (mut count, mut sum, mut second) = (0_i64, 0_i64, 0_i64);
            for step in steps {
                match step {
                    Step::Measure(bed, n) => {
                        let values: Vec<f64> = (0..n).map(|i| 60.0 + f64::from(i)).collect();
                        ward.measure(&beds[bed], second, &values).await;
                        second += 10;
                        count += i64::from(n);
                        sum += (0..i64::from(n)).map(|i| 60 + i).sum::<i64>();
                    }
                    Step::Flush => ward.flush().await,
                }
                let rows = ward
                    .ask("md", "SELECT count(*), count(DISTINCT (device, ts)), CAST(coalesce(sum(value), 0) AS BIGINT) FROM vitals")
                    .await
                    .unwrap();
                assert_eq!(rows, [format!("{count}|{count}|{sum}")]);
            }
        });
    }
}
