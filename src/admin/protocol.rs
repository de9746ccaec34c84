//! What goes over `DIR/admin.sock`: one JSON line asks, one JSON line answers, then the socket closes. Before the answer
//! to something that takes long come lines that say how far it is.
//!
//! Only the operating system's word for who asks is believed (peer credentials), never a field in a
//! request. Passwords travel here and nowhere else, and `Debug` of a request never shows one.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::{DeviceId, SubjectPseudonym, Subscriber};
use vitalseal_storage::ports::{Role, UserName, Ward};
use zeroize::Zeroizing;

/// A line longer than this is refused before it is read: no request needs more than a notice, whose bytes are numbers.
pub const MAX_REQUEST_BYTES: u64 = 320 * 1024;

/// One administrative act.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "each variant is the subcommand of the same name"
)]
pub enum Request {
    ServerStatus,
    ServerReload,
    CaShow,
    CaCrl,
    RecipientShow,
    PatientAdd {
        name: Option<Private>,
        mrn: Option<Private>,
    },
    PatientList,
    PatientShow {
        patient: SubjectPseudonym,
    },
    DeviceEnroll {
        device: DeviceId,
        csr_pem: String,
    },
    DeviceAssign {
        device: DeviceId,
        patient: SubjectPseudonym,
        since: Option<Timestamp>,
    },
    DeviceAssignments {
        device: DeviceId,
    },
    DeviceList,
    DeviceRevoke {
        device: DeviceId,
        reason: String,
    },
    DeviceSuspend {
        device: DeviceId,
        reason: String,
    },
    DeviceReinstate {
        device: DeviceId,
        reason: String,
    },
    DeviceCertificates,
    DeviceChain {
        device: DeviceId,
    },
    DeviceSend {
        device: DeviceId,
        content: Content,
        expires_s: i64,
    },
    DeviceDownlink {
        device: DeviceId,
    },
    DeviceCloneProof {
        device: DeviceId,
        boot: Option<u64>,
    },
    DisplayEnroll {
        subscriber: Subscriber,
        wards: Option<Vec<Ward>>,
        csr_pem: String,
    },
    DisplayList,
    DisplayRevoke {
        subscriber: Subscriber,
        reason: String,
    },
    NoticeSend {
        notice: Content,
    },
    AlertTest {
        ward: Option<Ward>,
    },
    UserAdd {
        user: UserName,
        role: Role,
    },
    UserGrant {
        user: UserName,
        patient: SubjectPseudonym,
    },
    UserGrantWard {
        user: UserName,
        ward: Ward,
    },
    UserList,
    TokenIssue {
        user: UserName,
        password: Private,
        totp: Private,
    },
    QuarantineList {
        limit: u32,
        device: Option<DeviceId>,
        reason: Option<String>,
        state: Option<String>,
    },
    QuarantineShow {
        id: i64,
    },
    QuarantineRelease {
        id: i64,
        reason: String,
    },
    QuarantineDrop {
        id: i64,
        reason: String,
    },
    AuditTail {
        limit: u32,
    },
    AuditVerify {
        checkpoint: Option<String>,
    },
    KeysStatus,
    KeysRotate {
        patient: Option<SubjectPseudonym>,
    },
    Flush,
    StoreStatus,
    StoreCheck {
        keys: bool,
        repair: Option<Repair>,
    },
    StoreCompact {
        force: bool,
    },
    StoreVacuum,
    Backup {
        out: PathBuf,
    },
    Erase {
        patient: SubjectPseudonym,
        reason: String,
    },
    IncidentOpen {
        kind: String,
        from: Timestamp,
        to: Timestamp,
        devices: Vec<DeviceId>,
        users: Vec<UserName>,
        aware_at: Timestamp,
        aware_reason: String,
    },
    IncidentReport {
        incident: String,
    },
    IncidentList,
}

/// Sets aside what a check found damaged.
#[derive(Debug, Serialize, Deserialize)]
pub struct Repair {
    /// Files to be given up if they are not there.
    pub give_up: BTreeSet<String>,
}

/// The answer: a value that the command prints, or the chain of reasons why not. Any number of steps may come before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is under way.
    Step(Step),
    /// It was done.
    Ok(serde_json::Value),
    /// It was not done; the text is for the operator.
    Failed(String),
}

/// How far something is that takes long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Steps that are done.
    pub done: u64,
    /// Steps that there are, as far as that is known.
    pub of: u64,
    /// What comes next.
    pub what: String,
}

/// Bytes that no log may show: what a device is told.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(Vec<u8>);

impl Content {
    /// Wraps some bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(..)")
    }
}

/// Text that no log may show: a name, a record number, a password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Private(Zeroizing<String>);

impl Private {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Private(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_private_text_debugs_without_it() {
        let request = Request::PatientAdd {
            name: Some(Private::new("Ada Lovelace".into())),
            mrn: Some(Private::new("MRN-77".into())),
        };
        let shown = format!("{request:?}");
        assert!(
            !shown.contains("Lovelace") && !shown.contains("MRN-77"),
            "{shown}"
        );
    }

    #[test]
    fn an_unknown_request_or_field_is_refused() {
        assert!(serde_json::from_str::<Request>(r#"{"do":"shell"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"do":"audit_tail","limit":1,"x":1}"#).is_err());
    }
}
