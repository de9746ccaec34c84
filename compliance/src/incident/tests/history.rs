//! What the log of an incident may say, written down by hand: whole days of it in a few lines.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{DeviceId, KeyEpoch, SubjectPseudonym};
use vitalseal_storage::ports::{Actor, AuditEvent, Purpose, QueryOutcome, UserName};
use vitalseal_storage::{Holding, KeyStatus};

use super::super::draft::Findings;
use super::super::*;
use crate::audit::AuditEntry;

pub(super) const ACTOR: Actor = Actor::Local { uid: 1000 };

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn patient(n: u8) -> SubjectPseudonym {
    format!("p{}", hex::encode([n; 16])).parse().unwrap()
}

pub(super) fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

pub(super) fn device(id: &str) -> DeviceId {
    id.parse().unwrap()
}

pub(super) fn started(query: &str, by: &str, patients: &[u8]) -> AuditEvent {
    AuditEvent::QueryStarted {
        query: query.into(),
        user: user(by),
        purpose: Purpose::Treatment,
        patients: patients.iter().copied().map(patient).collect(),
        scope_of: None,
        sql: "SELECT value FROM vitals WHERE code = ?".into(),
    }
}

pub(super) fn finished(query: &str, patients: &[u8], readings: u64, hour: i64) -> AuditEvent {
    let first = at("2026-03-26T00:00:00Z") + SignedDuration::from_hours(hour);
    AuditEvent::QueryFinished {
        query: query.into(),
        outcome: QueryOutcome::Completed,
        patients: patients.iter().copied().map(patient).collect(),
        messages: readings / 10,
        readings,
        first_at: Some(first),
        last_at: Some(first + SignedDuration::from_mins(30)),
        identities: 0,
    }
}

/// A finished query over `patients` alone.
pub(super) fn named(query: &str, patients: &[u8]) -> AuditEvent {
    AuditEvent::QueryFinished {
        query: query.into(),
        outcome: QueryOutcome::Completed,
        patients: patients.iter().copied().map(patient).collect(),
        messages: 0,
        readings: 0,
        first_at: None,
        last_at: None,
        identities: patients.len() as u64,
    }
}

/// Numbers the events from 100 and dates them at the given minute of 26 March 2026.
pub(super) fn history(events: Vec<(i64, AuditEvent)>) -> Vec<AuditEntry> {
    let day = at("2026-03-26T00:00:00Z");
    (100..)
        .zip(events)
        .map(|(seq, (minute, event))| AuditEntry {
            seq,
            at: day + SignedDuration::from_mins(minute),
            actor: Actor::System,
            event,
        })
        .collect()
}

pub(super) fn incident(kind: &str) -> Incident {
    Incident {
        id: "inc-20260327-0badcafe".into(),
        kind: kind.parse().unwrap(),
        from: at("2026-03-26T08:00:00Z"),
        to: at("2026-03-26T20:00:00Z"),
        devices: BTreeSet::new(),
        users: BTreeSet::new(),
        aware_at: at("2026-03-27T18:30:00Z"),
        aware_reason: "a token was found in a public notebook".into(),
        moments: Vec::new(),
        keys: KeyExposure::Unknown,
        opened_by: ACTOR,
        opened_at: at("2026-03-27T19:00:00Z"),
        reports: Vec::new(),
    }
}

pub(super) fn findings(
    incident: &Incident,
    entries: &[AuditEntry],
    holdings: &[Holding],
) -> Findings {
    Findings {
        accesses: counting::counts_queries(incident).then(|| counting::accesses(incident, entries)),
        deliveries: counting::counts_devices(incident)
            .then(|| counting::deliveries(incident, entries, holdings, &[])),
        erased: BTreeMap::from([(patient(1), at("2026-03-27T20:00:00Z"))]),
        revoked: BTreeSet::new(),
        keys: KeyStatus {
            root_epoch: KeyEpoch(3),
            root_since: at("2026-03-27T20:00:00Z"),
            roots_retiring: 0,
            root_provider: "file".into(),
            pages: 2,
            keks: 40,
            keks_retired: 0,
            erasures: 3,
            erasures_unfinished: 0,
        },
        envelope_keys_alive: 2,
        log: "hospital.example/vitalseal/audit".into(),
        range: LogRange { first: 100, end: 109, root: "ab".repeat(32) },
        checkpoint: "hospital.example/vitalseal/audit\n109\nq6ur=\n\n— hospital.example/vitalseal/audit c2ln\n"
            .into(),
    }
}

pub(super) fn parties() -> Parties {
    Parties {
        controller: Some("Example Hospital".into()),
        contact: Some(Contact {
            name: "Data Protection Office".into(),
            email: Some("dpo@hospital.example".into()),
            phone: None,
        }),
    }
}
