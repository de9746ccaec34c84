//! Drafting a report: gathering what the log, the catalog and the key tree say, and turning it into figures.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use vitalseal_crypto::{DeviceId, SubjectPseudonym};
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord};
use vitalseal_storage::{DeviceState, Holding, KeyStatus, PatientState};

use super::counting::{self, Accesses, Deliveries, Span};
use super::deadline::{HipaaClock, NotificationClock, utc_date};
use super::evidence::evidence;
use super::kind::{Cause, KeyExposure};
use super::record::{Incident, IncidentDeps, IncidentError, Parties, ReportVersion, find, keep};
use super::report::{
    BreachReport, FORMAT, Figure, KeyState, LogRange, Nature, Precision, ReportKind,
};
use super::wording::{consequences, measures, unknowns};

/// Drafts the report of an incident as the evidence stands now, and records that it was drafted.
///
/// Drafting again with the same findings gives the same version; with others, a supplementary one with the original awareness.
///
/// # Errors
///
/// When the incident is not known or the evidence can not be read.
pub async fn report(
    deps: &IncidentDeps,
    id: &str,
    actor: Actor,
    now: Timestamp,
) -> Result<BreachReport, IncidentError> {
    let mut incident = find(deps, id).await?;
    let findings = gather(deps, &incident).await?;
    let mut report = assemble(&incident, &deps.parties, &findings, now);
    let findings_sha256 = findings_hash(&report)?;
    let latest = incident.reports.last();
    if latest.is_none_or(|latest| latest.findings_sha256 != findings_sha256) {
        let version = latest.map_or(1, |latest| latest.version.saturating_add(1));
        let kind = if version == 1 {
            ReportKind::Initial
        } else {
            ReportKind::Supplementary
        };
        let drafted = ReportVersion {
            version,
            kind,
            drafted_at: now,
            findings_sha256,
        };
        incident.reports.push(drafted);
        keep(deps, &incident, now).await?;
    }
    if let Some(latest) = incident.reports.last() {
        (report.version, report.kind) = (latest.version, latest.kind);
    }
    let event = AuditEvent::IncidentReported {
        incident: incident.id,
        version: report.version,
        sha256: hex::encode(Sha256::digest(report.to_json()?)),
    };
    deps.audit
        .append(AuditRecord {
            at: now,
            actor,
            event,
        })
        .await?;
    Ok(report)
}

/// What the world says about an incident.
pub(super) struct Findings {
    pub(super) accesses: Option<Accesses>,
    pub(super) deliveries: Option<Deliveries>,
    /// Everybody who was erased, and when.
    pub(super) erased: BTreeMap<SubjectPseudonym, Timestamp>,
    /// Named devices that are revoked by now.
    pub(super) revoked: BTreeSet<DeviceId>,
    pub(super) keys: KeyStatus,
    pub(super) envelope_keys_alive: u64,
    pub(super) log: String,
    pub(super) range: LogRange,
    pub(super) checkpoint: String,
}

async fn gather(deps: &IncidentDeps, incident: &Incident) -> Result<Findings, IncidentError> {
    let seen = deps
        .audit
        .evidence_since(counting::evidence_from(incident))
        .await?;
    let holdings: Vec<Holding> = if counting::counts_devices(incident) {
        let devices = (!incident.devices.is_empty()).then_some(&incident.devices);
        deps.store
            .catalog
            .holdings(None, devices, incident.from, incident.to)
            .await?
    } else {
        Vec::new()
    };
    let losses = deps.store.catalog.current().await?.losses;
    let accesses =
        counting::counts_queries(incident).then(|| counting::accesses(incident, &seen.entries));
    let deliveries = counting::counts_devices(incident)
        .then(|| counting::deliveries(incident, &seen.entries, &holdings, &losses));
    let erased = deps.store.registry.patient_states().await?.into_iter();
    let erased = erased.filter(|patient| patient.state == PatientState::Erased);
    let revoked = deps.store.registry.devices().await?.into_iter();
    let revoked = revoked.filter(|device| {
        device.state == DeviceState::Revoked && incident.devices.contains(&device.id)
    });
    Ok(Findings {
        accesses,
        deliveries,
        erased: erased
            .filter_map(|patient| patient.erased_at.map(|at| (patient.subject, at)))
            .collect(),
        revoked: revoked.map(|device| device.id).collect(),
        keys: deps.store.keys.status().await?,
        envelope_keys_alive: deps.store.keys.recipients().await?.len() as u64,
        log: deps.audit.key().origin().to_owned(),
        range: LogRange {
            first: seen.first,
            end: seen.head.size,
            root: hex::encode(seen.head.root),
        },
        checkpoint: seen.note,
    })
}

/// Turns findings into the report. Pure.
pub(super) fn assemble(
    incident: &Incident,
    parties: &Parties,
    findings: &Findings,
    now: Timestamp,
) -> BreachReport {
    let people = people(findings);
    let nature = nature(incident, findings, &people);
    let erased = people
        .iter()
        .filter(|person| findings.erased.contains_key(*person))
        .count();
    let clock = NotificationClock::new(incident.aware_at, now);
    let keys = KeyState {
        encryption: "AES-256-GCM, a key for each message, wrapped (AES-256 key wrap) under a random key for each patient"
            .into(),
        exposure: incident.keys,
        root_epoch: findings.keys.root_epoch,
        root_provider: findings.keys.root_provider.clone(),
        envelope_keys_alive: findings.envelope_keys_alive,
        people_erased_since: Figure {
            value: erased as u64,
            precision: nature.people.precision,
            queries: [nature.people.queries.clone(), vec!["K1".into()]].concat(),
        },
    };
    BreachReport {
        format: FORMAT.into(),
        incident: incident.id.clone(),
        version: 1,
        kind: ReportKind::Initial,
        drafted_at: now,
        parties: parties.clone(),
        aware_reason: incident.aware_reason.clone(),
        moments: incident.moments.clone(),
        hipaa: HipaaClock::new(
            utc_date(incident.aware_at),
            nature.people.value,
            nature.people.precision,
            None,
        ),
        hipaa_unsecured: unsecured(incident, findings),
        likely_consequences: consequences(incident),
        measures: measures(incident, findings, erased as u64),
        unknowns: unknowns(incident, parties, findings, &nature.people, now, clock.late),
        evidence: evidence(incident, findings),
        clock,
        nature,
        keys,
    }
}

fn people(findings: &Findings) -> BTreeSet<SubjectPseudonym> {
    let read = findings
        .accesses
        .iter()
        .flat_map(|a| a.people.iter().chain(&a.people_in_unfinished));
    let delivered = findings.deliveries.iter().flat_map(|d| &d.people);
    read.chain(delivered).cloned().collect()
}

fn nature(incident: &Incident, findings: &Findings, people: &BTreeSet<SubjectPseudonym>) -> Nature {
    let (accesses, deliveries) = (findings.accesses.as_ref(), findings.deliveries.as_ref());
    let unfinished = accesses.is_some_and(|accesses| accesses.unfinished > 0);
    let unlisted = accesses.is_some_and(|accesses| accesses.unlisted > 0);
    let refused = deliveries.is_some_and(|deliveries| deliveries.quarantined > 0);
    let id = |asked: bool, id: &str| asked.then(|| id.to_owned());
    let resolved = accesses.is_some_and(|accesses| accesses.resolved.is_some());
    let (read_by, resolved_by) = (id(accesses.is_some(), "A1"), id(resolved, "A5"));
    let delivered_by = id(deliveries.is_some(), "C1");
    let queries: Vec<String> = read_by.iter().chain(&delivered_by).cloned().collect();
    let read = |figure: fn(&Accesses) -> u64| accesses.map_or(0, figure);
    let delivered = |figure: fn(&Deliveries) -> u64| deliveries.map_or(0, figure);
    // Two queries may have read the same reading, and a reading that came in may have been read out as well.
    let counted_twice = match (accesses, deliveries) {
        (Some(accesses), Some(_)) => accesses.queries > 0,
        (Some(accesses), None) => accesses.queries > 1,
        _ => false,
    };
    // A query that began before the window may have handed out part of its rows before it as well.
    let carried = accesses.is_some_and(|accesses| accesses.carried > 0);
    // What lost its evidence may have come in before the window or after it.
    let undated = deliveries.is_some_and(|deliveries| deliveries.undated > 0);
    let lost = deliveries.is_some_and(|deliveries| deliveries.lost > 0);
    let precision = Precision::of(counted_twice || carried || undated, unfinished || lost);
    let handed_out = |accesses: &Accesses| Figure {
        value: accesses
            .identities
            .saturating_add(accesses.resolved.unwrap_or(0)),
        precision: Precision::of(carried, unfinished),
        queries: read_by.iter().chain(&resolved_by).cloned().collect(),
    };
    let identities = accesses.map(handed_out);
    let mut categories_of_records =
        vec!["data concerning health (GDPR Art. 9): vital signs with their times".to_owned()];
    if identities.as_ref().is_some_and(|figure| figure.value > 0) {
        categories_of_records.push("identification data (name, medical record number)".into());
    }
    let figure = |value, precision, queries: &[&str]| Figure {
        value,
        precision,
        queries: queries.iter().map(|&id| id.to_owned()).collect(),
    };
    let span = accesses.map_or(Span::default(), |a| a.span);
    let span = span.join(deliveries.map_or(Span::default(), |d| d.span));
    Nature {
        kind: incident.kind.clone(),
        from: incident.from,
        to: incident.to,
        devices: incident.devices.clone(),
        users: incident.users.clone(),
        categories_of_people: vec!["patients".into()],
        categories_of_records,
        people: Figure {
            value: people.len() as u64,
            // An unfinished query may have read nothing; a refused message may belong to somebody who is not counted.
            precision: Precision::of(
                unfinished || carried || undated,
                refused || unlisted || lost,
            ),
            queries: (read_by.iter().chain(&resolved_by).chain(&delivered_by))
                .cloned()
                .collect(),
        },
        records: Figure {
            value: read(|a| a.readings).saturating_add(delivered(|d| d.readings)),
            precision,
            queries: queries.clone(),
        },
        messages: Figure {
            value: read(|a| a.messages).saturating_add(delivered(|d| d.messages)),
            precision,
            queries,
        },
        identities,
        queries: accesses.map(|a| figure(a.queries, Precision::of(carried, false), &["A2"])),
        quarantined: deliveries.map(|d| figure(d.quarantined, Precision::Exact, &["A3"])),
        forks: deliveries.map(|d| figure(d.forks, Precision::Exact, &["A4"])),
        vitals_from: span.0.map(|span| span.0),
        vitals_to: span.0.map(|span| span.1),
    }
}

/// 45 CFR 164.402: data is unsecured unless it was only had as ciphertext and the keys were not breached. That it is secured
/// is said only where somebody looked: a device measures in clear, and queries that were not counted may have read anything.
fn unsecured(incident: &Incident, findings: &Findings) -> Option<bool> {
    let reads = findings.accesses.as_ref();
    let read_in_clear = reads.map(|a| !a.people.is_empty() || a.identities > 0 || a.unfinished > 0);
    match (read_in_clear, incident.keys) {
        (Some(true), _) | (_, KeyExposure::Exposed) => Some(true),
        (Some(false), KeyExposure::Safe) if incident.kind.cause != Cause::DeviceCompromise => {
            Some(false)
        }
        _ => None,
    }
}

/// The findings only: times of drafting and the head of the log, which grows with every draft, are left out.
fn findings_hash(report: &BreachReport) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(&(&report.nature, &report.keys, &report.parties))?;
    Ok(hex::encode(Sha256::digest(json)))
}
