//! What cannot be run, tried at the session itself; the door tries the same on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use vitalseal_query::{QueryError, QueryLimits};
use vitalseal_storage::ports::{AuditEvent, Authorized, QueryOutcome};

use crate::ward::Ward;

/// Statements that must be refused on every path.
pub(crate) const REFUSED: &[&str] = &[
    "CREATE TABLE t AS SELECT * FROM vitals",
    "CREATE VIEW v AS SELECT * FROM vitals",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
    "DROP TABLE vitals",
    "INSERT INTO vitals SELECT * FROM vitals",
    "DELETE FROM vitals",
    "UPDATE vitals SET value = 0",
    "TRUNCATE TABLE vitals",
    "COPY vitals TO '/tmp/out.csv'",
    "COPY (SELECT * FROM vitals) TO '/tmp/out.parquet' STORED AS PARQUET",
    "SELECT * INTO t FROM vitals",
    "WITH x AS (SELECT 1) INSERT INTO vitals SELECT * FROM vitals",
    "SET datafusion.runtime.temp_directory = '/tmp'",
    "SET datafusion.runtime.memory_limit = '100G'",
    "RESET datafusion.runtime.temp_directory",
    "SET datafusion.execution.batch_size = 1",
    "EXPLAIN SELECT * FROM vitals",
    "EXPLAIN ANALYZE SELECT * FROM vitals",
    "EXPLAIN VERBOSE SELECT * FROM vitals",
    "PREPARE p AS SELECT * FROM vitals",
    "SHOW datafusion.runtime.memory_limit",
];

#[tokio::test]
async fn nothing_but_queries_runs() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    ward.measure(&bed, 0, &[60.0]).await;
    for sql in REFUSED {
        let error = ward.ask("md", sql).await.expect_err(sql);
        assert!(
            matches!(
                error,
                QueryError::Refused(_) | QueryError::Parse(_) | QueryError::Engine(_)
            ),
            "{sql}: {error:?}"
        );
        let (_, text) = error.client_message();
        assert!(!text.contains(bed.patient.as_str()), "{sql}: {text}");
    }
    assert_eq!(ward.number("md", "SELECT count(*) FROM vitals").await, 1);
    assert!(ward.ask("md", "SELECT 1; SELECT 2").await.is_err());
}

#[tokio::test]
async fn files_of_the_machine_cannot_be_named() {
    let ward = Ward::open().await;
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM '/tmp/x.parquet'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
        "SELECT * FROM vitalseal.parquet.vitals",
    ] {
        assert!(ward.ask("md", sql).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn a_deadline_holds_over_the_whole_stream() {
    let ward = Ward::with_limits(QueryLimits {
        memory_bytes: 64 << 20,
        deadline: Duration::from_millis(700),
        connections: 1,
    })
    .await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    ward.measure(&bed, 0, &[60.0]).await;
    let sql = "SELECT sum(v.value * s.value) FROM vitals v, generate_series(1, 100000000000) s";
    let started = std::time::Instant::now();
    let error = ward.ask("md", sql).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(error.client_message().0, "57014", "{error:?}");
    // A client that takes one batch and waits meets the same end.
    let mut rows = ward
        .session("md")
        .await
        .sql("SELECT v.value FROM vitals v, generate_series(1, 100000000)")
        .await
        .unwrap();
    rows.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    let mut ended = false;
    while let Some(batch) = rows.next().await {
        ended = batch.is_err();
    }
    assert!(ended);
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_recorded_as_cancelled() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    ward.measure(&bed, 0, &[60.0]).await;
    let mut rows = ward
        .session("md")
        .await
        .sql("SELECT v.value FROM vitals v, generate_series(1, 100000000)")
        .await
        .unwrap();
    rows.next().await.unwrap().unwrap();
    drop(rows);
    for _ in 0..100 {
        let cancelled = ward.audit.events().into_iter().any(|event| {
            matches!(
                event,
                AuditEvent::QueryFinished {
                    outcome: QueryOutcome::Cancelled,
                    readings: 1,
                    ..
                }
            )
        });
        if cancelled {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no record: {:?}", ward.audit.events());
}

#[tokio::test]
async fn hot_rows_are_charged_once_to_each_query_for_as_long_as_it_runs() {
    let limit = 8 << 20;
    let ward = Ward::with_limits(QueryLimits {
        memory_bytes: limit,
        deadline: Duration::from_secs(60),
        connections: 8,
    })
    .await;
    let mut patients = BTreeSet::new();
    for device in ["icu-1", "icu-2"] {
        let bed = ward.admit(device, "Ada", "md").await;
        for message in 0..100 {
            ward.measure(&bed, message * 800, &[60.0; 800]).await;
        }
        patients.insert(bed.patient.clone());
    }
    let one = patients.first().unwrap().as_str().to_owned();
    let hot = ward.store.cut(&Authorized::new(patients)).await.unwrap();
    let hot = hot.hot.get_array_memory_size();
    // Each of two partitions goes through all of them, in four parts.
    assert!((limit / 4..limit / 2).contains(&hot), "{hot}");
    let all = "SELECT count(value) FROM vitals WHERE value > 1 OR quality = 'ok'";
    assert_eq!(ward.number("md", all).await, 160_000);

    // Of one partition, so that nothing is read before somebody asks.
    let sql = format!("SELECT value FROM vitals WHERE patient = '{one}'");
    let session = ward.session("md").await;
    let mut waiting = Vec::new();
    for _ in 0..limit / hot {
        waiting.push(session.sql(&sql).await.unwrap());
    }
    let Err(error) = session.sql(&sql).await else {
        panic!("{} queries hold {hot} bytes each", waiting.len() + 1);
    };
    assert_eq!(error.client_message().0, "53200", "{error:?}");
    drop(waiting);
    assert_eq!(ward.number("md", all).await, 160_000);
}
