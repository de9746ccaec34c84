//! What is written down about a query.

use vitalseal_storage::ports::{AuditEvent, Purpose, QueryOutcome};

use crate::ward::{START_US, Ward};

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
                    AuditEvent::QueryStarted { .. },
                    AuditEvent::QueryFinished {
                        outcome: QueryOutcome::Completed,
                        readings: 0,
                        ..
                    }
                ]
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
