//! Incidents, their clocks, and the breach report.
//!
//! ```text
//! open ─▶ Incident (window, devices, users, awareness)   recorded: IncidentOpened
//! report ─▶ audit log + catalog + key tree ─▶ BreachReport (JSON, Markdown)   recorded: IncidentReported with its SHA-256
//! ```
//!
//! The report answers GDPR Art. 33(3)(a)–(d). Every number in it names the query that produced it and the signed head of
//! the log that was counted, so that it can be counted again. What the evidence does not tell is listed as unknown.
//! A report holds no names and no readings, and not even pseudonyms: an authority asks for numbers.

mod awareness;
mod counting;
mod deadline;
mod draft;
mod evidence;
mod kind;
mod markdown;
mod record;
mod report;
mod wording;

#[cfg(test)]
mod tests;

pub use awareness::{AwarenessEvent, AwarenessMoment, aware_at};
pub use deadline::{Hhs, HipaaClock, NotificationClock, NotificationRule};
pub use draft::report;
pub use kind::{Cause, Effect, IncidentKind, KeyExposure};
pub use record::{
    Contact, Incident, IncidentDeps, IncidentError, NewIncident, Parties, ReportVersion, find, open,
};
pub use report::{
    BreachReport, Evidence, EvidenceQuery, Figure, KeyState, LogRange, Nature, Precision,
    ReportKind,
};
