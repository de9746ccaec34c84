//! Reports from a written-down history; `real_log` makes them from a real one.

mod history;
mod real_log;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use vitalseal_storage::ports::{Actor, AuditEvent, QuarantineReason};
use vitalseal_storage::{Holding, Loss};

use self::history::*;
use super::draft::assemble;
use super::record::check_times;
use super::*;
use crate::audit::AuditEntry;

fn stolen_token() -> (Incident, Vec<AuditEntry>) {
    let mut incident = incident("credential_misuse");
    incident.users.insert(user("n.okafor"));
    let entries = history(vec![
        (478, started("before", "n.okafor", &[9])),
        (479, finished("before", &[9], 900, 1)),
        (500, started("q1", "n.okafor", &[1, 2, 3])),
        (501, finished("q1", &[1, 2], 120, 2)),
        (502, started("other", "m.keller", &[7])),
        (503, finished("other", &[7], 70, 3)),
        (1199, started("q2", "n.okafor", &[1, 2, 3])),
        // It ends after the window, and counts: it began inside.
        (1260, finished("q2", &[2], 60, 5)),
        (1200, started("after", "n.okafor", &[8])),
    ]);
    (incident, entries)
}

#[test]
fn a_stolen_token_is_counted_by_its_queries_and_nothing_else() {
    let (incident, entries) = stolen_token();
    let findings = findings(&incident, &entries, &[]);
    let now = at("2026-03-28T09:00:00Z");
    let report = assemble(&incident, &parties(), &findings, now);
    let nature = &report.nature;
    assert_eq!(
        (nature.people.value, nature.people.precision),
        (2, Precision::Exact)
    );
    assert_eq!(
        (nature.records.value, nature.records.precision),
        (180, Precision::AtMost)
    );
    assert_eq!(nature.queries.as_ref().unwrap().value, 2);
    assert_eq!(nature.vitals_from, Some(at("2026-03-26T02:00:00Z")));
    assert_eq!(nature.vitals_to, Some(at("2026-03-26T05:30:00Z")));
    assert_eq!(report.keys.people_erased_since.value, 1);
    assert_eq!(
        report.hipaa_unsecured,
        Some(true),
        "read in clear: keys do not matter"
    );
    assert_eq!(report.clock.due_at, at("2026-03-30T18:30:00Z"));
    for person in [1, 2, 3, 7, 8, 9] {
        assert!(!report.to_json().unwrap().contains(patient(person).as_str()));
    }
    insta::assert_snapshot!("stolen_token", report.to_markdown());
    insta::assert_snapshot!("stolen_token_json", report.to_json().unwrap());
}

#[test]
fn a_stolen_device_is_counted_by_what_it_delivered() {
    let mut incident = incident("device_compromise");
    incident.devices.insert(device("monitor-7"));
    incident.aware_reason = String::new();
    incident.moments = vec![
        AwarenessMoment {
            at: at("2026-03-27T08:00:00Z"),
            event: AwarenessEvent::FirstAlert,
            reason: "fork detected | two boots at once".into(),
        },
        AwarenessMoment {
            at: incident.aware_at,
            event: AwarenessEvent::Certainty,
            reason: "the monitor is missing from the ward".into(),
        },
    ];
    let quarantined = |id: &str| AuditEvent::MessageQuarantined {
        device: device(id),
        boot: None,
        sequence: None,
        reason: QuarantineReason::Fork,
        detail: String::new(),
    };
    let entries = history(vec![
        (500, quarantined("monitor-7")),
        (
            500,
            AuditEvent::ForkDetected {
                device: device("monitor-7"),
                boot: 1,
                sequence: 2,
            },
        ),
        (501, quarantined("monitor-8")),
        (502, started("q1", "n.okafor", &[5])),
        (1200, quarantined("monitor-7")),
    ]);
    let holding = |n: u8, readings| Holding {
        subject: patient(n),
        device: device("monitor-7"),
        messages: readings / 10,
        readings,
        first_at: at("2026-03-26T08:00:00Z"),
        last_at: at("2026-03-26T11:00:00Z"),
        undated: 0,
    };
    let mut findings = findings(&incident, &entries, &[holding(1, 400), holding(4, 100)]);
    findings.revoked.insert(device("monitor-7"));
    let late = at("2026-03-30T18:30:01Z");
    let report = assemble(&incident, &Parties::default(), &findings, late);
    let nature = &report.nature;
    assert_eq!(
        (nature.people.value, nature.people.precision),
        (2, Precision::AtLeast)
    );
    assert_eq!(
        (nature.records.value, nature.records.precision),
        (500, Precision::Exact)
    );
    assert_eq!(nature.quarantined.as_ref().unwrap().value, 1);
    assert_eq!(nature.forks.as_ref().unwrap().value, 1);
    assert_eq!(
        nature.queries, None,
        "queries of others are not this incident"
    );
    assert!(report.clock.late);
    insta::assert_snapshot!("stolen_device_late", report.to_markdown());
}

#[test]
fn messages_without_a_time_of_arrival_are_counted_and_make_their_number_an_upper_bound() {
    let (mut incident, entries) = stolen_token();
    incident.users.clear();
    incident.devices = [device("monitor-7")].into();
    let holding = |n: u8, undated| Holding {
        subject: patient(n),
        device: device("monitor-7"),
        messages: 3,
        readings: 30,
        first_at: incident.from,
        last_at: incident.from,
        undated,
    };
    for (undated, precision) in [(0, Precision::Exact), (2, Precision::AtMost)] {
        let findings = findings(&incident, &entries, &[holding(1, 0), holding(4, undated)]);
        let report = assemble(&incident, &parties(), &findings, incident.opened_at);
        let nature = &report.nature;
        for figure in [&nature.people, &nature.messages, &nature.records] {
            assert_eq!(figure.precision, precision);
        }
        assert_eq!(nature.messages.value, 6);
        let told = |unknown: &String| unknown.starts_with("When 2 messages came in");
        assert_eq!(report.unknowns.iter().any(told), undated > 0);
    }
}

#[test]
fn what_was_lost_to_damage_and_may_have_come_in_the_window_makes_numbers_a_lower_bound() {
    let (mut incident, entries) = stolen_token();
    incident.users.clear();
    incident.devices = [device("monitor-7")].into();
    let loss = |first_at, fault: &str| Loss {
        file: "c-1.parquet".into(),
        row: None,
        patient: None,
        first_at,
        last_at: None,
        messages: None,
        fault: fault.into(),
        found_at: incident.to,
    };
    let evidence = "its evidence does not open; its readings are there";
    for (loss, precision) in [
        (loss(None, "it is not there"), Precision::AtLeast),
        (loss(Some(incident.from), "torn"), Precision::AtLeast),
        (loss(Some(incident.to), "torn"), Precision::Exact),
        (loss(None, evidence), Precision::Exact),
    ] {
        let mut findings = findings(&incident, &entries, &[]);
        let deliveries = counting::deliveries(&incident, &entries, &[], &[loss]);
        findings.deliveries = Some(deliveries);
        let report = assemble(&incident, &parties(), &findings, incident.opened_at);
        assert_eq!(report.nature.messages.precision, precision);
        let told = |unknown: &String| unknown.starts_with("Whether more came in: 1 rows or files");
        let is_told = report.unknowns.iter().any(told);
        assert_eq!(is_told, precision == Precision::AtLeast);
    }
}

#[test]
fn without_devices_or_users_everything_in_the_window_counts() {
    let (mut incident, mut entries) = stolen_token();
    incident.users.clear();
    entries.push(AuditEntry {
        event: started("hangs", "m.keller", &[2, 6]),
        ..entries[4].clone()
    });
    let holding = Holding {
        subject: patient(4),
        device: device("monitor-7"),
        messages: 1,
        readings: 5,
        first_at: incident.from,
        last_at: incident.from,
        undated: 0,
    };
    let findings = findings(&incident, &entries, &[holding]);
    let report = assemble(&incident, &parties(), &findings, incident.opened_at);
    // 1, 2 and 7 were read, 4 was delivered, 6 may have been read by the query without an end.
    assert_eq!(report.nature.people.value, 5);
    assert_eq!(report.nature.people.precision, Precision::AtMost);
    assert_eq!(report.nature.records.value, 120 + 60 + 70 + 5);
    assert_eq!(
        report.nature.records.precision,
        Precision::Estimate,
        "one may be counted twice and others are missing: this bounds nothing"
    );
    assert!(
        report
            .to_markdown()
            .contains("about 255; may be more or fewer (A1, C1)")
    );
    assert!(
        report
            .unknowns
            .iter()
            .any(|unknown| unknown.contains("no end in the log"))
    );
}

#[test]
fn every_figure_names_queries_that_stand_in_the_evidence() {
    let (incident, entries) = stolen_token();
    for users in [incident.users.clone(), BTreeSet::new()] {
        let incident = Incident {
            users,
            ..incident.clone()
        };
        let findings = findings(&incident, &entries, &[]);
        let report = assemble(&incident, &parties(), &findings, incident.opened_at);
        let nature = &report.nature;
        let known: Vec<_> = report
            .evidence
            .queries
            .iter()
            .map(|query| &query.id)
            .collect();
        let figures = [&nature.people, &nature.records, &nature.messages]
            .into_iter()
            .chain(
                nature
                    .queries
                    .iter()
                    .chain(&nature.quarantined)
                    .chain(&nature.forks),
            )
            .chain(&nature.identities)
            .chain([&report.keys.people_erased_since]);
        for figure in figures {
            assert!(!figure.queries.is_empty());
            assert!(
                figure.queries.iter().all(|id| known.contains(&id)),
                "{figure:?}"
            );
        }
    }
}

#[test]
fn copied_ciphertext_with_safe_keys_is_secured_and_with_a_read_key_store_it_is_not() {
    let mut incident = incident("other:confidentiality");
    for (keys, unsecured) in [
        (KeyExposure::Safe, Some(false)),
        (KeyExposure::Exposed, Some(true)),
        (KeyExposure::Unknown, None),
    ] {
        incident.keys = keys;
        let findings = findings(&incident, &[], &[]);
        let report = assemble(&incident, &parties(), &findings, incident.opened_at);
        assert_eq!(report.hipaa_unsecured, unsecured);
        let said = report
            .unknowns
            .iter()
            .any(|unknown| unknown.contains("were exposed"));
        assert_eq!(said, keys == KeyExposure::Unknown);
    }
}

#[test]
fn where_no_query_was_looked_at_nobody_says_that_no_notice_is_due() {
    let (safe, entries) = (KeyExposure::Safe, history(vec![]));
    let of = |incident: &Incident| {
        let findings = findings(incident, &entries, &[]);
        assemble(incident, &parties(), &findings, incident.opened_at)
    };
    let mut devices_only = incident("other:confidentiality");
    devices_only.keys = safe;
    devices_only.devices.insert(device("monitor-7"));
    let report = of(&devices_only);
    assert_eq!(report.hipaa_unsecured, None);
    let said = |unknown: &String| unknown.contains("names devices only");
    assert!(report.unknowns.iter().any(said));
    let mut stolen = incident("device_compromise");
    stolen.keys = safe;
    assert_eq!(
        of(&stolen).hipaa_unsecured,
        None,
        "a device holds readings in clear"
    );
}

#[test]
fn names_that_were_read_are_counted_as_people_and_as_a_category_of_their_own() {
    let mut incident = incident("unauthorized_access");
    incident.keys = KeyExposure::Safe;
    let resolved = |n| AuditEvent::IdentityResolved {
        patient: patient(n),
    };
    let entries = history(vec![
        (479, resolved(9)),
        (500, started("q1", "n.okafor", &[1, 2, 3])),
        (501, named("q1", &[1, 2])),
        (502, resolved(4)),
        (1200, resolved(8)),
    ]);
    let of = |incident: &Incident| {
        let findings = findings(incident, &entries, &[]);
        assemble(incident, &parties(), &findings, incident.opened_at)
    };
    let report = of(&incident);
    let names = report.nature.identities.as_ref().unwrap();
    assert_eq!((names.value, names.precision), (3, Precision::Exact));
    assert_eq!(names.queries, ["A1", "A5"]);
    assert_eq!(report.nature.people.value, 3);
    assert_eq!(report.hipaa_unsecured, Some(true));
    let category = "identification data (name, medical record number)".to_owned();
    assert!(report.nature.categories_of_records.contains(&category));
    assert!(
        report
            .to_markdown()
            .contains("| Names and record numbers handed out | 3 (A1, A5) |")
    );

    incident.users.insert(user("n.okafor"));
    let report = of(&incident);
    let names = report.nature.identities.as_ref().unwrap();
    assert_eq!(
        (names.value, report.nature.people.value),
        (2, 2),
        "the local administrator is not the user"
    );
}

#[test]
fn a_query_that_runs_when_the_window_opens_is_counted() {
    let mut incident = incident("credential_misuse");
    incident.users.insert(user("n.okafor"));
    let entries = history(vec![
        (464, started("too early", "n.okafor", &[7])),
        (470, started("ended", "n.okafor", &[8])),
        (471, started("hangs", "n.okafor", &[6])),
        (475, finished("ended", &[8], 900, 1)),
        (479, started("runs in", "n.okafor", &[1, 2])),
        (480, finished("runs in", &[1], 120, 2)),
    ]);
    let findings = findings(&incident, &entries, &[]);
    let report = assemble(&incident, &parties(), &findings, incident.opened_at);
    let nature = &report.nature;
    let queries = nature.queries.as_ref().unwrap();
    assert_eq!((queries.value, queries.precision), (2, Precision::AtMost));
    // 1 was read, 6 may have been by the query without an end.
    assert_eq!(
        (nature.people.value, nature.people.precision),
        (2, Precision::AtMost)
    );
    assert_eq!(
        (nature.records.value, nature.records.precision),
        (120, Precision::Estimate)
    );
    let said = |unknown: &String| unknown.contains("began before it");
    assert!(report.unknowns.iter().any(said));
}

#[test]
fn times_that_contradict_each_other_are_refused() {
    let now = at("2026-03-27T19:00:00Z");
    let good = || {
        let (from, to) = (at("2026-03-26T08:00:00Z"), at("2026-03-26T20:00:00Z"));
        let aware_at = at("2026-03-27T18:30:00Z");
        NewIncident::new("key_loss".parse().unwrap(), from, to, aware_at, ACTOR)
    };
    let refused = |change: fn(&mut NewIncident)| {
        let mut new = good();
        change(&mut new);
        check_times(&new, at("2026-03-27T19:00:00Z")).unwrap_err()
    };
    check_times(&good(), now).unwrap();
    assert!(matches!(
        refused(|new| new.to = new.from),
        IncidentError::EmptyWindow
    ));
    assert!(matches!(
        refused(|new| new.aware_at = at("2026-03-27T19:00:01Z")),
        IncidentError::AwareInFuture(_)
    ));
    assert!(matches!(
        refused(|new| new.aware_at = at("2026-03-26T07:59:59Z")),
        IncidentError::AwareBeforeBeginning { .. }
    ));
    assert!(matches!(
        refused(|new| (new.from, new.to) = (at("2026-04-01T00:00:00Z"), at("2026-04-02T00:00:00Z"))),
        IncidentError::BeginsInFuture(_)
    ));
    assert!(matches!(
        refused(|new| new.moments = vec![AwarenessMoment {
            at: new.aware_at,
            event: AwarenessEvent::FirstAlert,
            reason: "only an alert".into(),
        }]),
        IncidentError::AwarenessDiffers(_)
    ));
    let mut ongoing = good();
    ongoing.to = at("2026-04-02T00:00:00Z");
    check_times(&ongoing, now).expect("an incident may go on");
}
