//! What is stored beside readings, and what proves it: `waveforms` and `provenance`, before and after flush and compaction.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use jiff::Timestamp;
use vitalseal_crypto::{AtRest, default_backend};
use vitalseal_storage::ports::AuditEvent;
use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{Period, Waveform, signal};

use crate::ward::{Bedside, START_US, Ward};

/// A stretch of a pulse at 250 Hz, whose samples tell from which message they are.
fn stretch(at_s: i64, samples: i32) -> Waveform {
    let start = Timestamp::from_microsecond(START_US + at_s * 1_000_000).unwrap();
    let period = Period::new(1_000_000, 250).unwrap();
    let first = i32::try_from(at_s).unwrap() * 100;
    let samples = (first..first + samples).collect();
    Waveform::new(
        signal(PULSE_WAVEFORM).unwrap(),
        start,
        period,
        0.1,
        -3.0,
        samples,
    )
    .unwrap()
}

/// What a row of `waveforms` is to say, by the time at which it begins.
type Expected = BTreeMap<i64, (String, Vec<f64>)>;

async fn batches(ward: &Ward, sql: &str) -> Vec<RecordBatch> {
    let rows = ward.session("md").await.sql(sql).await.unwrap();
    rows.try_collect().await.unwrap()
}

async fn found(ward: &Ward) -> Expected {
    let mut found = Expected::new();
    let sql = "SELECT patient, start, period_us, samples FROM waveforms";
    for batch in batches(ward, sql).await {
        let (patients, starts) = (
            batch.column(0).as_string_view(),
            batch.column(1).as_primitive::<TimestampMicrosecondType>(),
        );
        let periods = batch.column(2).as_primitive::<Float64Type>();
        let samples = batch.column(3).as_list::<i32>();
        for row in 0..batch.num_rows() {
            assert!((periods.value(row) - 4_000.0).abs() < f64::EPSILON);
            let values = samples.value(row);
            let values = values.as_primitive::<Float64Type>().values().to_vec();
            let said = (patients.value(row).to_owned(), values);
            let before = found.insert(starts.value(row), said);
            assert!(before.is_none(), "a waveform is there twice");
        }
    }
    found
}

/// Waveforms of `bed`, and what is to be found of them.
async fn record(ward: &Ward, bed: &Bedside, starts: impl Iterator<Item = i64>) -> Expected {
    let mut expected = Expected::new();
    for at_s in starts {
        let wave = stretch(at_s, 500);
        ward.record(bed, &wave).await;
        let values = wave.readings().iter().map(|r| r.value).collect();
        let said = (bed.patient.as_str().to_owned(), values);
        expected.insert(wave.start().as_microsecond(), said);
    }
    expected
}

#[tokio::test]
async fn every_sample_comes_back_once_from_the_inbox_from_rows_and_from_chunks() {
    let ward = Ward::open().await;
    let one = ward.admit("icu-1", "One", "md").await;
    let hidden = ward.admit("icu-2", "Two", "else").await;
    let mut expected = record(&ward, &one, (0..40).step_by(2)).await;
    record(&ward, &hidden, 1..9).await;
    ward.measure(&one, 0, &[60.0, 61.0]).await;
    assert_eq!(found(&ward).await, expected, "from the inbox");

    ward.flush().await;
    assert_eq!(found(&ward).await, expected, "from rows");
    ward.compact().await;
    assert_eq!(found(&ward).await, expected, "from chunks");

    // Late: before what is compacted already, and across the end of a bucket.
    expected.extend(record(&ward, &one, [1, 899, 3600].into_iter()).await);
    assert_eq!(found(&ward).await, expected, "from chunks and the inbox");
    ward.flush().await;
    ward.compact().await;
    assert_eq!(found(&ward).await, expected, "late ones in chunks");

    assert_eq!(
        ward.number("md", "SELECT count(*) FROM waveforms").await,
        23
    );
    // Neither table shows what the other holds.
    assert_eq!(ward.number("md", "SELECT count(*) FROM vitals").await, 2);
    let inner = "SELECT unnest(samples) AS sample FROM waveforms";
    let sql = format!("SELECT count(sample) FROM ({inner})");
    assert_eq!(ward.number("md", &sql).await, 23 * 500);
}

#[tokio::test]
async fn waveforms_are_narrowed_by_patient_device_code_and_start_and_what_is_opened_is_counted() {
    let ward = Ward::open().await;
    let one = ward.admit("icu-1", "One", "md").await;
    let two = ward.admit("icu-2", "Two", "md").await;
    for compacted in [false, true] {
        if compacted {
            ward.flush().await;
            ward.compact().await;
        } else {
            record(&ward, &one, 0..10).await;
            record(&ward, &two, 20..25).await;
        }
        for (filter, expected, opened) in [
            ("true".to_owned(), 15, 15 * 500),
            (
                format!("patient = '{}'", one.patient.as_str()),
                10,
                10 * 500,
            ),
            ("device = 'icu-2'".to_owned(), 5, 5 * 500),
            ("start >= '2026-03-01T00:00:20Z'".to_owned(), 5, 5 * 500),
            ("start < '2026-03-01T00:00:03.5Z'".to_owned(), 4, 4 * 500),
            (
                "start BETWEEN '2026-03-01T00:00:08Z' AND '2026-03-01T00:00:21Z'".to_owned(),
                4,
                5 * 500,
            ),
            (
                format!("code = '{PULSE_WAVEFORM}' AND boot = 1 AND sequence < 3"),
                6,
                15 * 500,
            ),
            ("code = '8867-4'".to_owned(), 0, 15 * 500),
            ("samples[1] > 1999".to_owned(), 0, 15 * 500),
        ] {
            ward.audit.forget();
            let sql = format!("SELECT count(*) FROM waveforms WHERE {filter}");
            assert_eq!(ward.number("md", &sql).await, expected, "{filter}");
            let events = ward.audit.events();
            let Some(AuditEvent::QueryFinished { readings, .. }) = events.last() else {
                panic!("{events:?}");
            };
            // The clear columns say only what a message spans, so one that begins before the range may be opened; a
            // chunk is opened whole.
            assert!(
                *readings <= 15 * 500 && (compacted || *readings == opened),
                "{filter}: {readings}"
            );
        }
    }
}

#[tokio::test]
async fn provenance_shows_each_message_bit_for_bit_wherever_it_is_stored() {
    let ward = Ward::open().await;
    let one = ward.admit("icu-1", "One", "md").await;
    let hidden = ward.admit("icu-2", "Two", "else").await;
    let mut stored = BTreeSet::new();
    for minute in 0..5 {
        let message = ward.measure(&one, minute * 60, &[60.0, 61.0, 62.0]).await;
        stored.insert((message.sequence, "vitals"));
    }
    for at_s in 0..3 {
        let message = ward.record(&one, &stretch(at_s, 500)).await;
        stored.insert((message.sequence, "waveforms"));
    }
    ward.measure(&hidden, 0, &[80.0]).await;
    let all = "SELECT * FROM provenance ORDER BY sequence";
    let from_inbox = ward.ask("md", all).await.unwrap();
    assert_eq!(from_inbox.len(), stored.len());
    ward.flush().await;
    assert_eq!(ward.ask("md", all).await.unwrap(), from_inbox, "from rows");
    ward.compact().await;
    assert_eq!(
        ward.ask("md", all).await.unwrap(),
        from_inbox,
        "from chunks"
    );

    let mut shown = BTreeSet::new();
    let sql = "SELECT sequence, kind, readings, signed_hash, certificate, envelope FROM provenance";
    for batch in batches(&ward, sql).await {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let text = |column: usize| batch.column(column).as_string_view().value(row).to_owned();
            let sequence = u64::try_from(numbers(0).value(row)).unwrap();
            let envelope = batch.column(5).as_binary::<i32>().value(row);
            let envelope = AtRest::decode(envelope).unwrap();
            envelope
                .verify(one.certificate(), default_backend())
                .unwrap();
            assert_eq!(envelope.header().sequence, sequence);
            let hash = envelope.signed_hash(default_backend());
            assert_eq!(text(3), hex::encode(hash));
            assert_eq!(text(4), one.certificate().thumbprint().to_string());
            let readings = if text(1) == "vitals" { 3 } else { 500 };
            assert_eq!(numbers(2).value(row), readings);
            let kind = ["vitals", "waveforms"]
                .into_iter()
                .find(|kind| *kind == text(1));
            shown.insert((sequence, kind.unwrap()));
        }
    }
    assert_eq!(shown, stored);

    // A reading leads to its message, and an aggregate counts messages, not readings.
    let joined = "SELECT count(*) FROM vitals v JOIN provenance p USING (device, boot, sequence)";
    assert_eq!(ward.number("md", joined).await, 15);
    let counted = "SELECT patient, count(*), min(received_at) = max(received_at) FROM provenance GROUP BY patient";
    let counted = ward.ask("md", counted).await.unwrap();
    assert_eq!(counted, [format!("{}|8|true", one.patient.as_str())]);
    let limited = ward
        .ask("md", "SELECT sequence FROM provenance LIMIT 3")
        .await;
    assert_eq!(limited.unwrap().len(), 3);
}

#[tokio::test]
async fn an_erased_patient_has_neither_waveforms_nor_provenance() {
    let ward = Ward::open().await;
    let one = ward.admit("icu-1", "One", "md").await;
    let two = ward.admit("icu-2", "Two", "md").await;
    for bed in [&one, &two] {
        record(&ward, bed, 0..2).await;
        ward.measure(bed, 0, &[60.0]).await;
    }
    ward.flush().await;
    ward.compact().await;
    record(&ward, &one, 2..4).await;
    ward.erase(&one).await;
    for (table, left) in [("waveforms", 2), ("provenance", 3)] {
        let sql = format!("SELECT patient, count(*) FROM {table} GROUP BY patient");
        let rows = ward.ask("md", &sql).await.unwrap();
        assert_eq!(
            rows,
            [format!("{}|{left}", two.patient.as_str())],
            "{table}"
        );
    }
}
