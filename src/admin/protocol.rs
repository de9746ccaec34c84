//! What goes over `DIR/admin.sock`: one JSON line asks, one JSON line answers, then the socket closes.
//!
//! Only the operating system's word for who asks is believed (peer credentials), never a field in a
//! request. Passwords travel here and nowhere else, and `Debug` of a request never shows one.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::{DeviceId, SubjectPseudonym};
use vitalseal_storage::ports::{Role, UserName};
use zeroize::Zeroizing;

/// A line longer than this is refused before it is read: no request needs more.
pub const MAX_REQUEST_BYTES: u64 = 256 * 1024;

/// One administrative act.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "each variant is the subcommand of the same name"
)]
pub enum Request {
    ServerStatus,
    CaShow,
    RecipientShow,
    CaCrl,
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
    DeviceChain {
    DeviceSuspend {
        device: DeviceId,
        reason: String,
    },
    DeviceReinstate {
        device: DeviceId,
        reason: String,
    },
        device: DeviceId,
    },
    DeviceCloneProof {
        device: DeviceId,
        boot: Option<u64>,
    },
    UserAdd {
        user: UserName,
        role: Role,
    },
    UserGrant {
        user: UserName,
        patient: SubjectPseudonym,
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
        lines: u32,
    },
    AuditVerify {
        checkpoint: Option<String>,
    },
    KeysStatus,
    KeysRotate {
        patient: Option<SubjectPseudonym>,
    },
    Flush,
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

/// The answer: a value that the command prints, or the chain of reasons why not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It was done.
    Ok(serde_json::Value),
    /// It was not done; the text is for the operator.
    Failed(String),
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
        assert!(serde_json::from_str::<Request>(r#"{"do":"audit_tail","lines":1,"x":1}"#).is_err());
    }
}
