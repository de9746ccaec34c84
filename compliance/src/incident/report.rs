//! What a breach report says: GDPR Art. 33(3), number by number.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::{DeviceId, KeyEpoch};
use vitalseal_storage::ports::UserName;

use super::awareness::AwarenessMoment;
use super::deadline::{HipaaClock, NotificationClock};
use super::kind::{IncidentKind, KeyExposure};
use super::record::Parties;

/// The format that this version writes.
pub(super) const FORMAT: &str = "vitalseal-breach-report/1";

/// A draft of the notification to the authority, with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreachReport {
    /// Name and version of this format.
    pub format: String,
    /// The incident.
    pub incident: String,
    /// Version of the report, from 1.
    pub version: u32,
    /// Initial or supplementary.
    pub kind: ReportKind,
    /// When this was drafted.
    pub drafted_at: Timestamp,
    /// Who reports, and whom the authority can call: Art. 33(3)(b).
    pub parties: Parties,
    /// The clocks.
    pub clock: NotificationClock,
    /// Why the clock started when it did; empty if nobody said.
    pub aware_reason: String,
    /// The moments on the way to awareness.
    pub moments: Vec<AwarenessMoment>,
    /// The clocks of HIPAA, for whoever is under it.
    pub hipaa: HipaaClock,
    /// HIPAA "unsecured" data: `Some(false)` only where queries were looked at and read nothing, no device is
    /// compromised, and the keys are recorded as safe.
    pub hipaa_unsecured: Option<bool>,
    /// Art. 33(3)(a).
    pub nature: Nature,
    /// Art. 33(3)(c): what such a breach usually leads to; to be judged by the data protection officer.
    pub likely_consequences: Vec<String>,
    /// Art. 33(3)(d): what was in place and what the evidence shows was done.
    pub measures: Vec<String>,
    /// State of the keys.
    pub keys: KeyState,
    /// What the evidence does not tell.
    pub unknowns: Vec<String>,
    /// What was counted.
    pub evidence: Evidence,
}

/// GDPR 33(4): what is not known yet may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// The first.
    Initial,
    /// A later one whose findings differ.
    Supplementary,
}

/// Art. 33(3)(a).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nature {
    /// What happened and what suffered.
    pub kind: IncidentKind,
    /// Beginning of the window, inclusive.
    pub from: Timestamp,
    /// End of the window, exclusive.
    pub to: Timestamp,
    /// Devices that the counts are limited to.
    pub devices: BTreeSet<DeviceId>,
    /// Users that the counts are limited to.
    pub users: BTreeSet<UserName>,
    /// Categories of data subjects.
    pub categories_of_people: Vec<String>,
    /// Categories of records.
    pub categories_of_records: Vec<String>,
    /// Data subjects.
    pub people: Figure,
    /// Readings: the records concerned.
    pub records: Figure,
    /// Sealed messages that they were in.
    pub messages: Figure,
    /// Names and medical record numbers that were handed out, each time counted.
    pub identities: Option<Figure>,
    /// Queries whose answers are in question.
    pub queries: Option<Figure>,
    /// Messages that were refused and kept aside.
    pub quarantined: Option<Figure>,
    /// Proofs that a device was cloned.
    pub forks: Option<Figure>,
    /// Instant of the earliest reading concerned.
    pub vitals_from: Option<Timestamp>,
    /// Instant of the latest reading concerned.
    pub vitals_to: Option<Timestamp>,
}

/// A number and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The number.
    pub value: u64,
    /// How it bounds the truth.
    pub precision: Precision,
    /// Ids of the queries in [`Evidence::queries`] that produced it.
    pub queries: Vec<String>,
}

/// How a number bounds the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Counted.
    Exact,
    /// Something may be counted twice, or have happened before the window.
    AtMost,
    /// Something may be missing.
    AtLeast,
    /// Both: the truth may be more or fewer.
    Estimate,
}

impl Precision {
    /// From what may be wrong with a number.
    pub(super) fn of(counted_too_much: bool, counted_too_little: bool) -> Self {
        match (counted_too_much, counted_too_little) {
            (false, false) => Self::Exact,
            (true, false) => Self::AtMost,
            (false, true) => Self::AtLeast,
            (true, true) => Self::Estimate,
        }
    }

    /// Whether the truth is not above the number.
    pub fn is_upper_bound(self) -> bool {
        matches!(self, Self::Exact | Self::AtMost)
    }
}

/// State of the keys that protect the data concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyState {
    /// What readings are sealed with.
    pub encryption: String,
    /// Whether keys were exposed, as recorded by a person.
    pub exposure: KeyExposure,
    /// Present root epoch.
    pub root_epoch: KeyEpoch,
    /// Who holds it, apart from the data.
    pub root_provider: String,
    /// Envelope keys of the server that exist now: recorded network traffic opens under them.
    pub envelope_keys_alive: u64,
    /// Of the people concerned, how many were erased since: their data opens for nobody.
    pub people_erased_since: Figure,
}

/// What was counted, so that it can be counted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Name of the audit log.
    pub log: String,
    /// The records that were read.
    pub range: LogRange,
    /// The signed head over them.
    pub checkpoint: String,
    /// The queries, by id.
    pub queries: Vec<EvidenceQuery>,
}

/// A stretch of the audit log below a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRange {
    /// First record, inclusive.
    pub first: u64,
    /// Last record, exclusive; also the size of the tree.
    pub end: u64,
    /// Root hash at that size, in hexadecimal.
    pub root: String,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceQuery {
    /// `A…` over the audit log, `C…` over the catalog, `K…` over the key tree.
    pub id: String,
    /// What was asked.
    pub statement: String,
}

impl BreachReport {
    /// The document as it is handed out; its SHA-256 is what the audit log records.
    ///
    /// # Errors
    ///
    /// Never for a report that was drafted or read; JSON can express all of it.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }
}
