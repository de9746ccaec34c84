//! An incident as it is kept.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::DeviceId;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, UserName};
use vitalseal_storage::{KeyError, RegistryError, Store, StoreError};

use super::awareness::{AwarenessMoment, aware_at};
use super::deadline::utc_date;
use super::kind::{IncidentKind, KeyExposure};
use super::report::ReportKind;
use crate::audit::{AuditLog, AuditLogError};

/// What incidents work on.
#[derive(Clone, Debug)]
pub struct IncidentDeps {
    /// Registry, catalog and key tree.
    pub store: Store,
    /// Where counts come from and where opening and reporting are recorded.
    pub audit: AuditLog,
    /// Who reports; from the configuration.
    pub parties: Parties,
}

/// Who reports. What is not known is said so in the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parties {
    /// The controller's name.
    pub controller: Option<String>,
    /// The data protection officer or another contact point, GDPR 33(3)(b).
    pub contact: Option<Contact>,
}

/// Somebody whom an authority can call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Name or function.
    pub name: String,
    /// Electronic mail.
    pub email: Option<String>,
    /// Telephone.
    pub phone: Option<String>,
}

/// An incident to be opened.
#[derive(Clone, Debug)]
pub struct NewIncident {
    /// What happened and what suffered.
    pub kind: IncidentKind,
    /// Beginning of the window, inclusive.
    pub from: Timestamp,
    /// End of the window, exclusive. It may lie ahead: the incident goes on.
    pub to: Timestamp,
    /// Devices concerned.
    pub devices: Vec<DeviceId>,
    /// Users whose access is in question. With neither devices nor users, everything in the window counts.
    pub users: Vec<UserName>,
    /// When the controller became aware: the 72 hours run from here.
    pub aware_at: Timestamp,
    /// Why that is the instant.
    pub aware_reason: String,
    /// The moments on the way there, as far as they are recorded. If any, `aware_at` must be what follows from them.
    pub moments: Vec<AwarenessMoment>,
    /// What is known about the keys.
    pub keys: KeyExposure,
    /// Who opens it.
    pub opened_by: Actor,
}

impl NewIncident {
    /// An incident with nothing but a kind, a window and an awareness.
    pub fn new(
        kind: IncidentKind,
        from: Timestamp,
        to: Timestamp,
        aware_at: Timestamp,
        opened_by: Actor,
    ) -> Self {
        Self {
            kind,
            from,
            to,
            devices: Vec::new(),
            users: Vec::new(),
            aware_at,
            aware_reason: String::new(),
            moments: Vec::new(),
            keys: KeyExposure::Unknown,
            opened_by,
        }
    }
}

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Its id.
    pub id: String,
    /// What happened and what suffered.
    pub kind: IncidentKind,
    /// Beginning of the window, inclusive.
    pub from: Timestamp,
    /// End of the window, exclusive.
    pub to: Timestamp,
    /// Devices concerned.
    pub devices: BTreeSet<DeviceId>,
    /// Users whose access is in question.
    pub users: BTreeSet<UserName>,
    /// When the controller became aware. Never changes: a supplementary report keeps it.
    pub aware_at: Timestamp,
    /// Why that is the instant; empty if nobody said.
    pub aware_reason: String,
    /// The moments on the way there.
    pub moments: Vec<AwarenessMoment>,
    /// What is known about the keys.
    pub keys: KeyExposure,
    /// Who opened it.
    pub opened_by: Actor,
    /// When.
    pub opened_at: Timestamp,
    /// The reports so far, oldest first.
    pub reports: Vec<ReportVersion>,
}

/// A version of the report. Drafting again with the same findings makes no new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportVersion {
    /// From 1.
    pub version: u32,
    /// Initial or supplementary (GDPR 33(4)).
    pub kind: ReportKind,
    /// When it was first drafted.
    pub drafted_at: Timestamp,
    /// SHA-256 over its findings, in hexadecimal.
    pub findings_sha256: String,
}

impl Incident {
    /// Whether an instant lies in the window.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

/// An incident could not be opened, found or reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncidentError {
    /// The window is empty or upside down.
    #[error("the incident's window is empty: it must end after it begins")]
    EmptyWindow,
    /// The window begins in the future.
    #[error("the incident would begin in the future, at {0}")]
    BeginsInFuture(Timestamp),
    /// Awareness in the future would start the clock late.
    #[error("awareness can not lie in the future ({0}): the 72 hours run from when somebody knew")]
    AwareInFuture(Timestamp),
    /// Nobody is aware of what has not begun.
    #[error(
        "awareness ({aware_at}) can not precede the beginning of the incident ({from}); correct the one that is wrong"
    )]
    AwareBeforeBeginning {
        /// As given.
        aware_at: Timestamp,
        /// As given.
        from: Timestamp,
    },
    /// The moments say something else.
    #[error("the recorded moments do not lead to awareness at {0}")]
    AwarenessDiffers(Timestamp),
    /// A device that was never enrolled.
    #[error("there is no device {0}")]
    UnknownDevice(DeviceId),
    /// A user who was never added.
    #[error("there is no user {0}")]
    UnknownUser(UserName),
    /// No such incident.
    #[error("there is no incident {0}")]
    Unknown(String),
    /// The registry failed.
    #[error("using the register of incidents")]
    Registry(#[from] RegistryError),
    /// The stored incident can not be read or written.
    #[error("reading or writing an incident or its report")]
    Json(#[from] serde_json::Error),
    /// The audit log failed.
    #[error("using the audit log as evidence")]
    Audit(#[from] AuditLogError),
    /// The catalog failed.
    #[error("counting what is stored")]
    Store(#[from] StoreError),
    /// The key store failed.
    #[error("reading the state of the keys")]
    Keys(#[from] KeyError),
    /// The random number generator of the system failed.
    #[error("drawing an incident id")]
    Random(#[source] getrandom::Error),
}

/// Opens an incident and records it. From then on it is in the register that GDPR 33(5) asks for.
///
/// # Errors
///
/// When the times contradict each other, a device or user is not known, or something fails.
pub async fn open(
    deps: &IncidentDeps,
    new: NewIncident,
    now: Timestamp,
) -> Result<Incident, IncidentError> {
    check_times(&new, now)?;
    for device in &new.devices {
        if deps.store.registry.device(device).await?.is_none() {
            return Err(IncidentError::UnknownDevice(device.clone()));
        }
    }
    for user in &new.users {
        if deps.store.registry.user(user).await?.is_none() {
            return Err(IncidentError::UnknownUser(user.clone()));
        }
    }
    let incident = Incident {
        id: draw_id(now)?,
        kind: new.kind,
        from: new.from,
        to: new.to,
        devices: new.devices.into_iter().collect(),
        users: new.users.into_iter().collect(),
        aware_at: new.aware_at,
        aware_reason: new.aware_reason.trim().to_owned(),
        moments: new.moments,
        keys: new.keys,
        opened_by: new.opened_by,
        opened_at: now,
        reports: Vec::new(),
    };
    let event = AuditEvent::IncidentOpened {
        incident: incident.id.clone(),
        kind: incident.kind.to_string(),
        aware_at: incident.aware_at,
    };
    deps.audit
        .append(AuditRecord {
            at: now,
            actor: incident.opened_by.clone(),
            event,
        })
        .await?;
    keep(deps, &incident, now).await?;
    Ok(incident)
}

/// Finds an incident.
///
/// # Errors
///
/// [`IncidentError::Unknown`], or when the registry fails.
pub async fn find(deps: &IncidentDeps, id: &str) -> Result<Incident, IncidentError> {
    let json = deps.store.registry.incident(id).await?;
    let json = json.ok_or_else(|| IncidentError::Unknown(id.to_owned()))?;
    Ok(serde_json::from_str(&json)?)
}

pub(super) async fn keep(
    deps: &IncidentDeps,
    incident: &Incident,
    now: Timestamp,
) -> Result<(), IncidentError> {
    let json = serde_json::to_string(incident)?;
    Ok(deps
        .store
        .registry
        .put_incident(&incident.id, &json, now)
        .await?)
}

pub(super) fn check_times(new: &NewIncident, now: Timestamp) -> Result<(), IncidentError> {
    if new.from >= new.to {
        return Err(IncidentError::EmptyWindow);
    }
    if new.from > now {
        return Err(IncidentError::BeginsInFuture(new.from));
    }
    if new.aware_at > now {
        return Err(IncidentError::AwareInFuture(new.aware_at));
    }
    if new.aware_at < new.from {
        return Err(IncidentError::AwareBeforeBeginning {
            aware_at: new.aware_at,
            from: new.from,
        });
    }
    if !new.moments.is_empty() && aware_at(&new.moments) != Some(new.aware_at) {
        return Err(IncidentError::AwarenessDiffers(new.aware_at));
    }
    Ok(())
}

/// The day, for people, and 32 random bits.
fn draw_id(now: Timestamp) -> Result<String, IncidentError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(IncidentError::Random)?;
    Ok(format!(
        "inc-{}-{}",
        utc_date(now).strftime("%Y%m%d"),
        hex::encode(bytes)
    ))
}
