//! What is written down about a query.

use std::time::Duration;

use futures::TryStreamExt as _;
use jiff::SignedDuration;
use vitalseal_query::{QueryError, QueryLimits, QuerySession};
use vitalseal_storage::ports::{AuditEvent, Clock as _, Purpose, QueryOutcome, SCOPE_HOLDS};

use crate::ward::{START_US, Ward, identity};

#[tokio::test]
async fn a_query_leaves_its_shape_its_scope_and_what_it_opened() {
    let ward = Ward::open().await;
    let one = ward.admit("icu-1", "Ada Lovelace", "md").await;
    let two = ward.admit("icu-2", "Bob", "md").await;
    ward.measure(&one, 0, &[60.0, 61.0, 62.0]).await;
    ward.measure(&two, 0, &[70.0]).await;
    ward.flush().await;
    let sql = format!(
        "SELECT avg(value) FROM vitals WHERE patient = '{}' AND value > 61.5 -- Ada",
        one.patient.as_str()
    );
    ward.ask("md", &sql).await.unwrap();

    let events = ward.audit.events();
    let [
        AuditEvent::QueryStarted {
            query,
            user,
            purpose,
            patients,
            scope_of: None,
            sql,
        },
        AuditEvent::QueryFinished {
            query: same,
            outcome,
            patients: opened,
            messages,
            readings,
            first_at,
            last_at,
            identities,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        (query, user.as_str(), purpose),
        (same, "md", &Purpose::Treatment)
    );
    let scope: std::collections::BTreeSet<_> = patients.iter().collect();
    assert_eq!(scope, [&one.patient, &two.patient].into());
    assert_eq!(
        sql,
        "SELECT avg(value) FROM vitals WHERE patient = ? AND value > ?"
    );
    assert_eq!(
        (*outcome, *messages, *readings),
        (QueryOutcome::Completed, 1, 3)
    );
    assert_eq!(opened, std::slice::from_ref(&one.patient));
    assert_eq!(*identities, 0);
    assert_eq!(first_at.unwrap().as_microsecond(), START_US);
    assert_eq!(last_at.unwrap().as_microsecond(), START_US + 2_000_000);
}

/// Of each query that started: its id, whom it may see, and whose scope it has.
fn scopes(ward: &Ward) -> Vec<(String, usize, Option<String>)> {
    let events = ward.audit.events().into_iter();
    let started = events.filter_map(|event| match event {
        AuditEvent::QueryStarted {
            query,
            patients,
            scope_of,
            ..
        } => Some((query, patients.len(), scope_of)),
        _ => None,
    });
    started.collect()
}

#[tokio::test]
async fn a_scope_is_listed_by_the_first_query_of_a_session_and_whenever_it_changed_or_is_old() {
    let ward = Ward::open().await;
    ward.admit("icu-1", "Ada", "md").await;
    ward.admit("icu-2", "Bob", "md").await;
    let session = || ward.service.session(identity("md"), Purpose::Treatment);
    let mine = session().await.unwrap();
    let ask = async |session: &QuerySession| {
        let rows = session.sql("SELECT count(*) FROM patients").await.unwrap();
        rows.try_collect::<Vec<_>>().await.unwrap();
        scopes(&ward).pop().unwrap()
    };
    let (first, listed, refers) = ask(&mine).await;
    assert_eq!((listed, refers), (2, None));
    let (_, listed, refers) = ask(&mine).await;
    assert_eq!((listed, refers), (0, Some(first.clone())));
    let other = session().await.unwrap();
    let (_, listed, refers) = ask(&other).await;
    assert_eq!((listed, refers), (2, None), "sessions share nothing");

    ward.admit("icu-3", "Eve", "md").await;
    let (second, listed, refers) = ask(&mine).await;
    assert_eq!((listed, refers), (3, None));
    ward.clock.forward(SCOPE_HOLDS);
    let (_, listed, refers) = ask(&mine).await;
    assert_eq!((listed, refers), (0, Some(second)));
    ward.clock.forward(SignedDuration::from_secs(1));
    let (_, listed, refers) = ask(&mine).await;
    assert_eq!((listed, refers), (3, None));
    ward.revoke_grants("md");
    let (_, listed, refers) = ask(&mine).await;
    assert_eq!(
        (listed, refers),
        (0, None),
        "nobody is not who it was before"
    );
}

/// The engine begins to work as soon as it has planned, here in two partitions. Whoever is erased meanwhile shows whether
/// it had opened anything: what is opened with a key stays open.
#[tokio::test]
async fn nothing_is_opened_while_the_start_is_not_on_record() {
    for sql in [
        "SELECT value FROM vitals",
        "SELECT mrn FROM patients WHERE mrn IS NOT NULL UNION ALL SELECT name FROM patients WHERE name IS NOT NULL",
    ] {
        let ward = Ward::open().await;
        let beds = [
            ward.admit("icu-1", "Ada", "md").await,
            ward.admit("icu-2", "Bob", "md").await,
        ];
        for bed in &beds {
            ward.measure(bed, 0, &[60.0]).await;
        }
        ward.flush().await;
        let whole = ward.ask("md", sql).await.unwrap();
        assert!(whole.len() >= 2, "{sql}: {whole:?}");
        ward.audit.forget();
        let slow = ward.audit.gate.lock().await;
        let mut asked = Box::pin(ward.ask("md", sql));
        // Whatever can run without the record has run long since.
        for _ in 0..20_000 {
            assert!(futures::poll!(&mut asked).is_pending(), "{sql}");
            tokio::task::yield_now().await;
        }
        assert!(ward.audit.events().is_empty(), "{sql}");
        for (n, bed) in beds.iter().enumerate() {
            let (keys, now) = (&ward.store.keys, ward.clock.now());
            keys.erase(&bed.patient, &format!("e{n}"), now)
                .await
                .unwrap();
        }
        drop(slow);
        assert_eq!(asked.await.unwrap(), [""; 0], "{sql}");
        assert_eq!(ward.audit.events().len(), 2, "{sql}");
    }
}

#[tokio::test]
async fn a_deadline_holds_while_the_start_is_recorded() {
    let ward = Ward::with_limits(QueryLimits {
        memory_bytes: 64 << 20,
        deadline: Duration::from_millis(100),
        connections: 8,
    })
    .await;
    ward.admit("icu-1", "Ada", "md").await;
    let slow = ward.audit.gate.lock().await;
    let late = ward.ask("md", "SELECT name FROM patients").await;
    assert!(matches!(late, Err(QueryError::Deadline(_))), "{late:?}");
    drop(slow);
    assert_cancelled(&ward).await;
}

/// Waits for what is recorded of the one query that was asked.
async fn assert_cancelled(ward: &Ward) {
    while ward.audit.events().len() < 2 {
        tokio::task::yield_now().await;
    }
    let events = ward.audit.events();
    assert!(
        matches!(
            events.as_slice(),
            [
                AuditEvent::QueryStarted { .. },
                AuditEvent::QueryFinished {
                    outcome: QueryOutcome::Cancelled,
                    ..
                }
            ]
        ),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_query_that_goes_away_while_its_start_is_recorded_leaves_an_end() {
    let ward = Ward::open().await;
    ward.admit("icu-1", "Ada", "md").await;
    let session = ward.service.session(identity("md"), Purpose::Treatment);
    let session = session.await.unwrap();
    let slow = ward.audit.gate.lock().await;
    let mut asked = Box::pin(session.sql("SELECT name FROM patients"));
    for _ in 0..1_000 {
        assert!(futures::poll!(&mut asked).is_pending());
        tokio::task::yield_now().await;
    }
    drop(asked);
    drop(slow);
    assert_cancelled(&ward).await;
}

#[tokio::test]
async fn names_and_record_numbers_that_were_handed_out_are_counted() {
    let ward = Ward::open().await;
    ward.admit("icu-1", "Ada Lovelace", "md").await;
    ward.admit("icu-2", "Bob", "md").await;
    for (sql, expected) in [
        ("SELECT name FROM patients", 2),
        ("SELECT patient FROM patients WHERE name = 'Bob'", 2),
        ("SELECT patient, state FROM patients", 0),
        ("SELECT count(*) FROM patients", 0),
    ] {
        ward.audit.forget();
        ward.ask("md", sql).await.unwrap();
        let events = ward.audit.events();
        let Some(AuditEvent::QueryFinished { identities, .. }) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(*identities, expected, "{sql}");
    }
}

#[tokio::test]
async fn only_messages_that_can_matter_are_opened() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada", "md").await;
    for minute in 0..20 {
        ward.measure(&bed, minute * 60, &[60.0, 61.0]).await;
        if minute == 9 {
            ward.flush().await;
        }
    }
    for (filter, expected) in [
        (
            "ts >= '2026-03-01T00:05:00Z' AND ts < '2026-03-01T00:06:00Z'",
            1,
        ),
        ("ts > '2026-03-01T00:17:30Z'", 2),
        ("patient = 'pffffffffffffffffffffffffffffffff'", 0),
        ("true", 20),
    ] {
        ward.audit.forget();
        let sql = format!("SELECT count(*) FROM vitals WHERE {filter}");
        ward.ask("md", &sql).await.unwrap();
        let events = ward.audit.events();
        let Some(AuditEvent::QueryFinished { messages, .. }) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(*messages, expected, "{filter}");
    }
}

#[tokio::test]
async fn catalogue_queries_leave_nothing_and_empty_answers_do() {
    let ward = Ward::open().await;
    for sql in [
        "SELECT 1",
        "SELECT * FROM information_schema.tables",
        "SELECT relname FROM pg_catalog.pg_class",
    ] {
        ward.ask("md", sql).await.unwrap();
    }
    assert!(ward.audit.events().is_empty(), "{:?}", ward.audit.events());
    let bed = ward.admit("icu-1", "Ada", "md").await;
    for sql in [
        "SELECT * FROM vitals WHERE false",
        "SELECT name FROM patients",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM devices)",
    ] {
        ward.audit.forget();
        ward.ask("md", sql).await.unwrap();
        let events = ward.audit.events();
        assert!(
            matches!(
                events.as_slice(),
                [
                    AuditEvent::QueryStarted { patients, .. },
                    AuditEvent::QueryFinished {
                        outcome: QueryOutcome::Completed,
                        readings: 0,
                        ..
                    }
                ] if *patients == [bed.patient.clone()]
            ),
            "{sql}: {events:?}"
        );
    }
}

#[tokio::test]
async fn failures_and_refusals_are_recorded_as_such() {
    let ward = Ward::open().await;
    let bed = ward.admit("icu-1", "Ada Lovelace", "md").await;
    ward.measure(&bed, 0, &[60.0]).await;
    ward.ask("md", "SELECT CAST(name AS DOUBLE) FROM patients")
        .await
        .unwrap_err();
    let events = ward.audit.events();
    assert!(
        matches!(
            events.last(),
            Some(AuditEvent::QueryFinished {
                outcome: QueryOutcome::Failed,
                ..
            })
        ),
        "{events:?}"
    );
    assert!(!format!("{events:?}").contains("Ada"), "{events:?}");
    ward.audit.forget();
    ward.ask("md", "DROP TABLE vitals").await.unwrap_err();
    let events = ward.audit.events();
    assert!(
        matches!(events.as_slice(), [AuditEvent::QueryRefused { .. }]),
        "{events:?}"
    );
}
