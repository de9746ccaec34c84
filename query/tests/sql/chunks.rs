//! Compacted readings: how much of them is opened, and what damage costs.

use std::fs;
use std::time::Duration;

use futures::StreamExt;
use vitalseal_query::QueryLimits;
use vitalseal_storage::catalog::FileKind;
use vitalseal_storage::ports::{AuditEvent, QueryOutcome};

use crate::ward::{Bedside, Ward};

/// `minutes` messages of two readings, a minute apart.
async fn measure(ward: &Ward, bed: &Bedside, minutes: std::ops::Range<i64>) {
    for minute in minutes {
        ward.measure(bed, minute * 60, &[60.0, 61.0]).await;
    }
}

/// On each of so many days `messages` of a hundred readings, of which a few are 60.
async fn measure_daily(ward: &Ward, bed: &Bedside, days: i64, messages: i64) {
    let values: Vec<f64> = (0..100)
        .map(|second| 60.0 + f64::from(second % 10))
        .collect();
    for day in 0..days {
        for message in 0..messages {
            let at_s = day * 86_400 + message * 100;
            ward.measure(bed, at_s, &values).await;
        }
    }
}

/// What the last query opened: messages and readings.
fn opened(ward: &Ward) -> (u64, u64) {
    let events = ward.audit.events();
    match events.last() {
        Some(AuditEvent::QueryFinished {
            messages, readings, ..
        }) => (*messages, *readings),
        _ => panic!("{events:?}"),
    }
}

#[tokio::test]
async fn an_answer_from_statistics_is_counted_as_what_was_opened_for_it() {
    let ward = Ward::open().await;
    let mine = ward.admit("icu-1", "Mine", "me").await;
    let theirs = ward.admit("icu-2", "Theirs", "them").await;
    measure(&ward, &mine, 0..20).await;
    measure(&ward, &theirs, 0..30).await;
    ward.flush().await;
    ward.compact().await;
    for (sql, expected, counted) in [
        (
            "SELECT count(*), max(value) FROM vitals",
            "40|61.0",
            (20, 40),
        ),
        (
            "SELECT count(*) FROM vitals WHERE value > 60.5",
            "20",
            (20, 40),
        ),
        // The clear columns and the bitmap of signals are enough to open nothing.
        (
            "SELECT count(*) FROM vitals WHERE code = '59408-5'",
            "0",
            (0, 0),
        ),
        (
            "SELECT count(*) FROM vitals WHERE ts > '2026-03-01T09:00:00Z'",
            "0",
            (0, 0),
        ),
    ] {
        ward.audit.forget();
        assert_eq!(ward.ask("me", sql).await.unwrap(), [expected], "{sql}");
        assert_eq!(opened(&ward), counted, "{sql}");
    }
}

#[tokio::test]
async fn a_limit_leaves_the_rest_sealed() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    let limited = async || {
        for sql in [
            "SELECT value FROM vitals LIMIT 5",
            "SELECT value FROM vitals WHERE code = '8867-4' AND value > 60.5 LIMIT 5",
        ] {
            ward.audit.forget();
            assert_eq!(ward.ask("md", sql).await.unwrap().len(), 5);
            let (messages, _) = opened(&ward);
            assert!((1..=2).contains(&messages), "{sql}: {messages}");
        }
    };
    measure_daily(&ward, &bed, 20, 2).await;
    limited().await;
    ward.flush().await;
    limited().await;
    // A chunk of each day, of two messages, of which one has enough.
    ward.compact().await;
    limited().await;
}

#[tokio::test]
async fn the_latest_rows_are_found_without_opening_what_is_older() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    for hour in 0..4 {
        measure(&ward, &bed, hour * 60..hour * 60 + 20).await;
        ward.flush().await;
    }
    ward.audit.forget();
    let sql = "SELECT ts FROM vitals ORDER BY ts DESC LIMIT 3";
    let rows = ward.ask("md", sql).await.unwrap();
    assert_eq!(rows[0], "2026-03-01T03:19:01Z");
    let (messages, _) = opened(&ward);
    assert!((20..80).contains(&messages), "{messages}");
}

#[tokio::test]
async fn whoever_goes_away_stops_the_opening() {
    let ward = Ward::open().await;
    for device in ["icu-1", "icu-2", "icu-3", "icu-4"] {
        let bed = ward.admit(device, "Ada", "md").await;
        measure_daily(&ward, &bed, 20, 8).await;
    }
    // A batch that was taken, and a few on their way, of 64 messages each.
    let n = opened_until_dropped(&ward).await;
    println!("HOT {n}");
    ward.flush().await;
    ward.compact().await;
    // The same of chunks, of five messages each.
    let n = opened_until_dropped(&ward).await;
    println!("CHUNKS {n}");
}

/// Messages that were opened for somebody who takes one batch of all there are.
async fn opened_until_dropped(ward: &Ward) -> u64 {
    ward.audit.forget();
    let session = ward.session("md").await;
    let mut rows = session.sql("SELECT value FROM vitals").await.unwrap();
    rows.next().await.unwrap().unwrap();
    drop(rows);
    while ward.audit.events().len() < 2 {
        tokio::task::yield_now().await;
    }
    let events = ward.audit.events();
    let Some(AuditEvent::QueryFinished {
        outcome, messages, ..
    }) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!(*outcome, QueryOutcome::Cancelled);
    *messages
}

#[tokio::test]
async fn a_flipped_bit_costs_its_own_chunk_and_no_other() {
    let ward = Ward::open().await;
    let beds = [
        ward.admit("icu-1", "A", "md").await,
        ward.admit("icu-2", "B", "md").await,
    ];
    for bed in &beds {
        measure(&ward, bed, 0..60).await;
    }
    ward.flush().await;
    ward.compact().await;
    let files = ward.store.catalog.files().await.unwrap();
    let chunks: Vec<_> = files
        .iter()
        .filter(|f| f.kind == FileKind::Chunks)
        .collect();
    let [file] = chunks.as_slice() else {
        panic!("{files:?}");
    };
    let path = ward.store.paths().parquet().join(file.path.as_ref());
    let whole = fs::read(&path).unwrap();
    let sql = |bed: &Bedside| {
        let patient = bed.patient.as_str();
        format!("SELECT count(*), sum(value) FROM vitals WHERE patient = '{patient}'")
    };
    let (mut cost, mut told) = ([0, 0], 0);
    let stride = match std::env::var_os("VITALSEAL_TEST_EVERY_BYTE") {
        Some(_) => 1,
        None => whole.len() / 100,
    };
    for at in (0..whole.len()).step_by(stride) {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let mut lost = 0;
        for (bed, cost) in beds.iter().zip(&mut cost) {
            match ward.ask("md", &sql(bed)).await {
                Ok(rows) => assert_eq!(rows, ["120|7260.0"]),
                Err(error) => {
                    let (code, text) = error.client_message();
                    assert_eq!(code, "XX001", "{text}");
                    told += usize::from(text.contains("vitalseal store check"));
                    lost += 1;
                    *cost += 1;
                }
            }
        }
        assert!(lost < 2, "byte {at} costs both");
    }
    assert!(cost.iter().all(|lost| *lost > 0), "{cost:?}");
    assert_eq!(told, cost[0] + cost[1]);
}

#[tokio::test]
async fn memory_is_bounded_and_nothing_spills() {
    let ward = Ward::with_limits(QueryLimits {
        memory_bytes: 4 << 20,
        deadline: Duration::from_secs(60),
        connections: 1,
    })
    .await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    for minute in 0..300 {
        ward.measure(&bed, minute * 60, &[60.0; 60]).await;
    }
    ward.flush().await;
    let by = |step| {
        format!(
            "SELECT count(*) FROM (SELECT date_bin(INTERVAL '{step}', ts), code, count(*) FROM vitals GROUP BY 1, 2)"
        )
    };
    let (few, groups) = (by("1 minute"), by("1 second"));
    let sorted = "SELECT * FROM vitals ORDER BY received_at, value, sequence";
    // Out of rows, and out of one chunk, which a fold has whole.
    for compacted in [false, true] {
        if compacted {
            ward.compact().await;
        }
        for (what, sql) in [("groups", groups.as_str()), ("rows to sort", sorted)] {
            assert_eq!(ward.number("md", &few).await, 300);
            let error = ward.ask("md", sql).await.unwrap_err();
            assert_eq!(error.client_message().0, "53200", "{what}: {error:?}");
        }
    }
    // What the refused ones held is free again.
    assert_eq!(ward.number("md", &few).await, 300);
}

#[tokio::test]
async fn a_chunk_that_is_larger_than_the_memory_is_refused_and_not_opened() {
    let ward = Ward::with_limits(QueryLimits {
        memory_bytes: 640 << 10,
        deadline: Duration::from_secs(60),
        connections: 1,
    })
    .await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    for minute in 0..300 {
        let values: Vec<f64> = (0..60)
            .map(|second| 60.0 + f64::from(second) * 0.37)
            .collect();
        ward.measure(&bed, minute * 60, &values).await;
        if minute % 60 == 59 {
            ward.flush().await;
        }
    }
    let sql = "SELECT count(value) FROM vitals WHERE value > 1 OR quality = 'ok'";
    assert_eq!(ward.number("md", sql).await, 18_000);
    ward.compact().await;
    let error = ward.ask("md", sql).await.unwrap_err();
    assert_eq!(error.client_message().0, "53200", "{error:?}");
}
