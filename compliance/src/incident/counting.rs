//! Counting who and what an incident touched. Pure: entries and holdings go in, figures come out.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::ports::{AuditEvent, SCOPE_HOLDS};
use vitalseal_storage::{Holding, Loss};

use super::record::Incident;
use crate::audit::AuditEntry;

/// How far before the window a query may have begun that still ran in it: longer than the longest deadline of a query,
/// which the query service cuts at ten minutes.
const LOOK_BACK: SignedDuration = SignedDuration::from_mins(15);

/// From when on queries are looked at for an incident.
pub(super) fn queries_from(incident: &Incident) -> Timestamp {
    before(incident.from, LOOK_BACK)
}

/// From when on the log is read for an incident: the scope of a query may be listed in the record of an earlier one.
pub(super) fn evidence_from(incident: &Incident) -> Timestamp {
    before(queries_from(incident), SCOPE_HOLDS)
}

fn before(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// What was read through queries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accesses {
    /// Queries that began in the window, or before it and ran into it.
    pub(super) queries: u64,
    /// Of these, how many began before it: part of what they read may have left before.
    pub(super) carried: u64,
    /// Of all, how many have no end in the log.
    pub(super) unfinished: u64,
    /// Whose rows were opened.
    pub(super) people: BTreeSet<SubjectPseudonym>,
    /// Whose rows the unfinished ones were allowed to open.
    pub(super) people_in_unfinished: BTreeSet<SubjectPseudonym>,
    /// Of the unfinished ones, how many name no record that lists their scope. The query service writes none.
    pub(super) unlisted: u64,
    pub(super) messages: u64,
    pub(super) readings: u64,
    /// Entries read with a name or medical record number.
    pub(super) identities: u64,
    /// Pseudonyms that were resolved to a person outside of queries; `None` where that is not counted.
    pub(super) resolved: Option<u64>,
    pub(super) span: Span,
}

/// What came from devices.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Deliveries {
    pub(super) people: BTreeSet<SubjectPseudonym>,
    pub(super) messages: u64,
    pub(super) readings: u64,
    /// Of the messages, those of which it cannot be told any more whether they came in the window.
    pub(super) undated: u64,
    /// Rows and files that were lost to damage, and that may have come in the window.
    pub(super) lost: u64,
    pub(super) span: Span,
    /// Messages kept aside.
    pub(super) quarantined: u64,
    /// Proofs that a device was cloned.
    pub(super) forks: u64,
}

/// Earliest and latest instant measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span(pub(super) Option<(Timestamp, Timestamp)>);

impl Span {
    pub(super) fn cover(&mut self, first: Option<Timestamp>, last: Option<Timestamp>) {
        if let (Some(first), Some(last)) = (first, last) {
            self.0 = Some(match self.0 {
                None => (first, last),
                Some((from, to)) => (from.min(first), to.max(last)),
            });
        }
    }

    pub(super) fn join(mut self, other: Self) -> Self {
        self.cover(other.0.map(|span| span.0), other.0.map(|span| span.1));
        self
    }
}

/// Whether queries are counted: users are named, or nothing is and everything counts.
pub(super) fn counts_queries(incident: &Incident) -> bool {
    !incident.users.is_empty() || incident.devices.is_empty()
}

/// Whether resolved pseudonyms are counted. They are resolved by the local administrator, who is no user and no device.
pub(super) fn counts_resolved(incident: &Incident) -> bool {
    incident.users.is_empty() && incident.devices.is_empty()
}

/// Whether what devices delivered is counted.
pub(super) fn counts_devices(incident: &Incident) -> bool {
    !incident.devices.is_empty() || incident.users.is_empty()
}

/// Counts queries that ran in the window, wherever they ended. `entries` begin no later than [`evidence_from`] and go up
/// to the head of the log.
pub(super) fn accesses(incident: &Incident, entries: &[AuditEntry]) -> Accesses {
    let mut found = Accesses {
        resolved: counts_resolved(incident).then_some(0),
        ..Accesses::default()
    };
    let since = queries_from(incident);
    let mut listed: BTreeMap<&str, &[SubjectPseudonym]> = BTreeMap::new();
    let mut open: BTreeMap<&str, Running<'_>> = BTreeMap::new();
    for entry in entries {
        if let AuditEvent::QueryStarted {
            query,
            patients,
            scope_of: None,
            ..
        } = &entry.event
        {
            listed.insert(query, patients);
        }
        match &entry.event {
            AuditEvent::QueryStarted {
                query,
                user,
                scope_of,
                ..
            } if since <= entry.at
                && entry.at < incident.to
                && (incident.users.is_empty() || incident.users.contains(user)) =>
            {
                let scope = listed.get(scope_of.as_ref().unwrap_or(query).as_str());
                let carried = entry.at < incident.from;
                let patients = scope.copied();
                open.insert(query, Running { patients, carried });
            }
            AuditEvent::QueryFinished {
                query,
                patients,
                messages,
                readings,
                first_at,
                last_at,
                identities,
                ..
            } => {
                let Some(running) = open.remove(query.as_str()) else {
                    continue;
                };
                if running.carried && entry.at < incident.from {
                    continue;
                }
                found.queries += 1;
                found.carried += u64::from(running.carried);
                found.people.extend(patients.iter().cloned());
                found.messages = found.messages.saturating_add(*messages);
                found.readings = found.readings.saturating_add(*readings);
                found.identities = found.identities.saturating_add(*identities);
                found.span.cover(*first_at, *last_at);
            }
            AuditEvent::IdentityResolved { patient } if incident.contains(entry.at) => {
                if let Some(resolved) = &mut found.resolved {
                    *resolved += 1;
                    found.people.insert(patient.clone());
                }
            }
            _ => {}
        }
    }
    found.unfinished = open.len() as u64;
    found.queries += found.unfinished;
    for running in open.into_values() {
        found.carried += u64::from(running.carried);
        found.unlisted += u64::from(running.patients.is_none());
        let patients = running.patients.unwrap_or_default();
        found.people_in_unfinished.extend(patients.iter().cloned());
    }
    found
}

/// A query whose end was not met yet.
struct Running<'a> {
    /// Whose rows it is allowed to open; `None` when the record that it names is not among those that were read.
    patients: Option<&'a [SubjectPseudonym]>,
    /// It began before the window.
    carried: bool,
}

/// Counts what devices delivered in the window: `holdings` is what the catalog says of it, `losses` what it lost.
pub(super) fn deliveries(
    incident: &Incident,
    entries: &[AuditEntry],
    holdings: &[Holding],
    losses: &[Loss],
) -> Deliveries {
    let mut found = Deliveries::default();
    // Of what was lost it is not known when it came, or from which device; not before it was measured.
    let may_be_of_it = |loss: &&Loss| loss.first_at.is_none_or(|first| first < incident.to);
    let lost = losses.iter().filter(|loss| !loss.is_of_evidence());
    found.lost = lost.filter(may_be_of_it).count() as u64;
    for holding in holdings {
        found.people.insert(holding.subject.clone());
        found.messages = found.messages.saturating_add(holding.messages);
        found.readings = found.readings.saturating_add(holding.readings);
        found.undated = found.undated.saturating_add(holding.undated);
        found
            .span
            .cover(Some(holding.first_at), Some(holding.last_at));
    }
    let concerned = |device| incident.devices.is_empty() || incident.devices.contains(device);
    for entry in entries.iter().filter(|entry| incident.contains(entry.at)) {
        match &entry.event {
            AuditEvent::MessageQuarantined { device, .. } if concerned(device) => {
                found.quarantined += 1;
            }
            AuditEvent::ForkDetected { device, .. } if concerned(device) => found.forks += 1,
            _ => {}
        }
    }
    found
}
