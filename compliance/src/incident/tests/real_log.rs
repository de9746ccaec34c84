//! Incidents over a real store and a real audit log.

use vitalseal_storage::ports::{AuditRecord, Role};

use super::*;
use crate::access::add_user;
use crate::testing::World;

fn deps(world: &World) -> IncidentDeps {
    IncidentDeps {
        store: world.store.clone(),
        audit: world.audit.clone(),
        parties: parties(),
    }
}

#[tokio::test]
async fn a_real_incident_is_opened_counted_reported_and_supplemented() {
    let mut world = World::new().await;
    let (ada, grace) = (
        world.patient("Ada Lovelace").await,
        world.patient("Grace Hopper").await,
    );
    let monitor = world.device("monitor-1").await;
    let other = world.device("monitor-2").await;
    world.admit(&monitor, &ada, 7, world.hours(1)).await;
    world.admit(&monitor, &grace, 5, world.hours(2)).await;
    world.store.flush(world.hours(2)).await.unwrap();
    world.admit(&monitor, &ada, 3, world.hours(3)).await;
    world.admit(&other, &ada, 100, world.hours(3)).await;
    let deps = deps(&world);

    let (from, to, aware_at) = (world.hours(2), world.hours(10), world.hours(4));
    let kind: IncidentKind = "device_compromise".parse().unwrap();
    let mut new = NewIncident::new(kind, from, to, aware_at, ACTOR);
    new.devices = vec![monitor.clone()];
    let opened = open(&deps, new.clone(), world.hours(5)).await.unwrap();
    assert_eq!(find(&deps, &opened.id).await.unwrap(), opened);

    let first = report(&deps, &opened.id, ACTOR, world.hours(5))
        .await
        .unwrap();
    assert_eq!((first.version, first.kind), (1, ReportKind::Initial));
    assert_eq!(
        (first.nature.people.value, first.nature.records.value),
        (2, 8)
    );
    assert_eq!(first.clock.due_at, world.hours(4 + 72));
    let same = report(&deps, &opened.id, ACTOR, world.hours(6))
        .await
        .unwrap();
    assert_eq!(
        (same.version, same.kind),
        (1, ReportKind::Initial),
        "nothing new was found"
    );

    world.admit(&monitor, &ada, 300, world.hours(7)).await;
    let more = report(&deps, &opened.id, ACTOR, world.hours(80))
        .await
        .unwrap();
    assert_eq!((more.version, more.kind), (2, ReportKind::Supplementary));
    assert_eq!(more.nature.records.value, 308);
    assert_eq!(
        more.clock.aware_at, aware_at,
        "the clock is the original one"
    );
    assert!(more.clock.late && !first.clock.late);

    for text in [more.to_json().unwrap(), more.to_markdown()] {
        for personal in [
            ada.as_str(),
            grace.as_str(),
            "Lovelace",
            "Hopper",
            "MRN-4711",
            "61.5",
        ] {
            assert!(!text.contains(personal), "{personal} stands in the report");
        }
    }
    let entries = world.audit.entries(0, u64::MAX).await.unwrap();
    let reported: Vec<_> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            AuditEvent::IncidentReported {
                version, sha256, ..
            } => Some((*version, sha256.clone())),
            _ => None,
        })
        .collect();
    use sha2::{Digest as _, Sha256};
    let hash = hex::encode(Sha256::digest(more.to_json().unwrap()));
    assert_eq!(
        reported
            .iter()
            .map(|(version, _)| *version)
            .collect::<Vec<_>>(),
        [1, 1, 2]
    );
    assert_eq!(
        reported[2].1, hash,
        "the log knows the document that was handed out"
    );
    assert!(
        matches!(&entries[0].event, AuditEvent::IncidentOpened { incident, .. } if *incident == opened.id)
    );

    new.devices = vec![device("monitor-99")];
    let unknown = open(&deps, new, world.hours(5)).await.unwrap_err();
    assert!(matches!(unknown, IncidentError::UnknownDevice(_)));
    let unknown = report(&deps, "inc-none", ACTOR, world.hours(5))
        .await
        .unwrap_err();
    assert!(matches!(unknown, IncidentError::Unknown(_)));
}

#[tokio::test]
async fn queries_of_a_named_user_are_counted_from_the_real_log() {
    let world = World::new().await;
    let deps = deps(&world);
    let registry = &world.store.registry;
    add_user(
        registry,
        &world.audit,
        ACTOR,
        user("n.okafor"),
        Role::Clinician,
        world.now,
    )
    .await
    .unwrap();
    for (hour, event) in [
        (1, started("q1", "n.okafor", &[1, 2])),
        (1, finished("q1", &[1], 50, 1)),
        (2, started("q2", "m.keller", &[3])),
        (2, finished("q2", &[3], 50, 1)),
    ] {
        let record = AuditRecord {
            at: world.hours(hour),
            actor: Actor::System,
            event,
        };
        world.audit.append(record).await.unwrap();
    }
    let kind = "credential_misuse".parse().unwrap();
    let mut new = NewIncident::new(kind, world.now, world.hours(3), world.hours(4), ACTOR);
    new.users = vec![user("n.okafor")];
    let opened = open(&deps, new.clone(), world.hours(4)).await.unwrap();
    let report = report(&deps, &opened.id, ACTOR, world.hours(5))
        .await
        .unwrap();
    assert_eq!(
        (report.nature.people.value, report.nature.records.value),
        (1, 50)
    );
    assert_eq!(report.nature.records.precision, Precision::Exact);
    let range = &report.evidence.range;
    let counted = world.audit.entries(range.first, range.end).await.unwrap();
    assert_eq!(
        counted.len() as u64,
        range.end - range.first,
        "the evidence is still there"
    );
    assert!(
        world
            .audit
            .verify(Some(&report.evidence.checkpoint))
            .await
            .unwrap()
            .is_sound()
    );
    new.users = vec![user("nobody")];
    let unknown = open(&deps, new, world.hours(4)).await.unwrap_err();
    assert!(matches!(unknown, IncidentError::UnknownUser(_)));
}

/// The scope that `query` shares with `of`.
fn started_as(query: &str, of: &str) -> AuditEvent {
    let AuditEvent::QueryStarted {
        user, purpose, sql, ..
    } = started(query, "n.okafor", &[])
    else {
        unreachable!()
    };
    AuditEvent::QueryStarted {
        query: query.into(),
        user,
        purpose,
        patients: Vec::new(),
        scope_of: Some(of.into()),
        sql,
    }
}

#[tokio::test]
async fn whom_a_query_without_an_end_could_see_is_known_though_an_earlier_record_lists_them() {
    let world = World::new().await;
    let deps = deps(&world);
    let window = world.hours(1);
    // A query of fifteen minutes before the window may have run into it, and may refer to one of ten minutes before.
    let minute = |before| window - SignedDuration::from_mins(before);
    for (at, event) in [
        (minute(25), started("lists", "n.okafor", &[1, 2, 3])),
        (minute(25), finished("lists", &[1], 50, 1)),
        (minute(15), started_as("refers", "lists")),
        (minute(0), started_as("too", "lists")),
        (minute(0), finished("too", &[2], 70, 1)),
    ] {
        let actor = Actor::System;
        let record = AuditRecord { at, actor, event };
        world.audit.append(record).await.unwrap();
    }
    let kind = || "credential_misuse".parse().unwrap();
    let new = NewIncident::new(kind(), window, world.hours(2), world.hours(2), ACTOR);
    let opened = open(&deps, new, world.hours(2)).await.unwrap();
    let first = report(&deps, &opened.id, ACTOR, world.hours(2)).await;
    let nature = first.unwrap().nature;
    assert_eq!(nature.queries.unwrap().value, 2, "the first one was over");
    assert_eq!(
        (nature.people.value, nature.people.precision),
        (3, Precision::AtMost)
    );
    // A list that is not there is not taken for an empty one.
    let record = AuditRecord {
        at: window,
        actor: Actor::System,
        event: started_as("lost", "nothing"),
    };
    world.audit.append(record).await.unwrap();
    let second = report(&deps, &opened.id, ACTOR, world.hours(3)).await;
    let people = second.unwrap().nature.people;
    assert_eq!((people.value, people.precision), (3, Precision::Estimate));
}

#[tokio::test]
async fn a_damaged_identity_does_not_stand_in_the_way_of_a_report() {
    let world = World::new().await;
    let ada = world.patient("Ada Lovelace").await;
    let deps = deps(&world);
    let kind = "other".parse().unwrap();
    let new = NewIncident::new(kind, world.now, world.hours(1), world.hours(1), ACTOR);
    let opened = open(&deps, new, world.hours(1)).await.unwrap();
    world.damage_identity(&ada).await;
    report(&deps, &opened.id, ACTOR, world.hours(2))
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_counted_from_a_log_that_was_altered() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let deps = deps(&world);
    let event = started("q1", "n.okafor", &[1]);
    let record = AuditRecord {
        at: world.now,
        actor: Actor::System,
        event,
    };
    world.audit.append(record).await.unwrap();
    let kind = "other".parse().unwrap();
    let new = NewIncident::new(kind, world.now, world.hours(1), world.hours(1), ACTOR);
    let opened = open(&deps, new, world.hours(1)).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.paths().audit());
    let mut conn = sqlx::SqliteConnection::connect_with(&options)
        .await
        .unwrap();
    sqlx::raw_sql(
        "DROP TRIGGER record_keeps_text; UPDATE record SET leaf = replace(leaf, 'n.okafor', 'm.keller') WHERE seq = 0",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    let refused = report(&deps, &opened.id, ACTOR, world.hours(2))
        .await
        .unwrap_err();
    assert!(
        matches!(
            &refused,
            IncidentError::Audit(crate::audit::AuditLogError::Unsound(_))
        ),
        "{refused:?}"
    );
}
