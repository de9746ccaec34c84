//! What administrative answers show, field by field: nothing is shown because a row happens to hold it.

pub(super) mod quarantine;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use vitalseal_compliance::audit::AuditVerification;
use vitalseal_compliance::incident::BreachReport;
use vitalseal_crypto::DeviceId;

#[derive(Serialize)]
pub(super) struct CaView {
    pub(super) pem: String,
}

#[derive(Serialize)]
pub(super) struct RecipientView {
    pub(super) kid: String,
    pub(super) not_after: Timestamp,
    pub(super) pem: String,
}

#[derive(Serialize)]
pub(super) struct PatientView<'a> {
    pub(super) patient: &'a str,
}

#[derive(Serialize)]
pub(super) struct PatientStateView<'a> {
    pub(super) patient: &'a str,
    pub(super) state: &'a str,
    pub(super) created_at: Timestamp,
}

#[derive(Serialize)]
pub(super) struct PatientIdentityView<'a> {
    pub(super) patient: &'a str,
    pub(super) state: &'a str,
    pub(super) created_at: Timestamp,
    pub(super) name: Option<&'a str>,
    pub(super) mrn: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct EnrolledView<'a> {
    pub(super) device: &'a DeviceId,
    pub(super) certificate: String,
    pub(super) not_after: Timestamp,
    pub(super) pem: String,
    pub(super) ca_pem: String,
}

#[derive(Serialize)]
pub(super) struct CertificateView<'a> {
    pub(super) device: &'a DeviceId,
    pub(super) certificate: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) pem: String,
}

#[derive(Serialize)]
pub(super) struct AssignedView<'a> {
    pub(super) device: &'a DeviceId,
    pub(super) patient: &'a str,
    pub(super) since: Timestamp,
}

#[derive(Serialize)]
pub(super) struct AssignmentView<'a> {
    pub(super) patient: &'a str,
    pub(super) since: Timestamp,
    pub(super) until: Option<Timestamp>,
}

#[derive(Serialize)]
pub(super) struct DeviceView<'a> {
    pub(super) device: &'a DeviceId,
    pub(super) state: &'a str,
    pub(super) patient: Option<&'a str>,
    pub(super) enrolled_at: Timestamp,
    pub(super) state_since: Timestamp,
    pub(super) state_reason: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct StandingView<'a> {
    pub(super) device: &'a DeviceId,
    pub(super) state: &'a str,
    /// Number of the newest list.
    pub(super) revocation_list: u64,
    /// Why that one does not say so yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revocation_list_fault: Option<String>,
}

#[derive(Serialize)]
pub(super) struct RevocationListView {
    pub(super) number: u64,
    pub(super) next_update: Timestamp,
    pub(super) certificates: usize,
    pub(super) pem: String,
}

#[derive(Serialize)]
pub(super) struct BootView {
    pub(super) boot: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) messages: u64,
    pub(super) missing: u64,
    /// Ranges of sequences, both ends missing.
    pub(super) gaps: Vec<String>,
    pub(super) forks: u64,
}

#[derive(Serialize)]
pub(super) struct CloneProofView<'a> {
    pub(super) device: &'a DeviceId,
    pub(super) boot: u64,
    pub(super) found_at: Timestamp,
    /// The proof's bytes.
    pub(super) proof: &'a [u8],
}

#[derive(Serialize)]
pub(super) struct GrantView<'a> {
    pub(super) user: &'a str,
    pub(super) patient: &'a str,
}

#[derive(Serialize)]
pub(super) struct UserView<'a> {
    pub(super) user: &'a str,
    pub(super) role: &'a str,
}

#[derive(Serialize)]
pub(super) struct KeysView<'a> {
    pub(super) root_provider: &'a str,
    pub(super) root_epoch: u64,
    pub(super) root_since: Timestamp,
    pub(super) roots_retiring: u64,
    pub(super) pages: u64,
    pub(super) keks: u64,
    pub(super) keks_retired: u64,
    pub(super) erasures: u64,
    pub(super) erasures_unfinished: u64,
    pub(super) envelope_keys: Vec<RecipientKeyView>,
    pub(super) snapshots: Vec<SnapshotView>,
    pub(super) memory_locked: bool,
    pub(super) memory_dumpable: bool,
}

#[derive(Serialize)]
pub(super) struct RecipientKeyView {
    pub(super) epoch: u64,
    pub(super) kid: String,
    pub(super) not_after: Timestamp,
}

#[derive(Serialize)]
pub(super) struct SnapshotView {
    pub(super) place: PathBuf,
    pub(super) root_epoch: Option<u64>,
    pub(super) taken_at: Option<Timestamp>,
    pub(super) fault: Option<String>,
}

#[derive(Serialize)]
pub(super) struct RootRotatedView {
    pub(super) root_epoch_destroyed: u64,
    pub(super) root_epoch: u64,
    pub(super) pages_rewrapped: u64,
}

#[derive(Serialize)]
pub(super) struct KekRotatedView<'a> {
    pub(super) patient: &'a str,
    pub(super) retired: String,
    pub(super) current: String,
}

#[derive(Serialize)]
pub(super) struct BackupView<'a> {
    pub(super) backup: &'a Path,
    pub(super) id: &'a str,
    pub(super) taken_at: Timestamp,
    pub(super) root_epoch: u64,
    pub(super) files: usize,
    pub(super) bytes: u64,
    /// Where the key snapshots are.
    pub(super) keys: &'a [PathBuf],
}

#[derive(Serialize)]
pub(super) struct TokenView<'a> {
    pub(super) token: &'a str,
    pub(super) expires_at: Timestamp,
}

#[derive(Serialize)]
pub(super) struct IncidentView<'a> {
    pub(super) incident: &'a str,
    pub(super) kind: String,
    pub(super) aware_at: Timestamp,
    pub(super) due_at: Timestamp,
    pub(super) late: bool,
    pub(super) reports: usize,
}

#[derive(Serialize)]
pub(super) struct VerifiedView {
    pub(super) ok: bool,
    #[serde(flatten)]
    pub(super) verified: AuditVerification,
    /// The signed note, to be kept elsewhere.
    pub(super) checkpoint: String,
}

#[derive(Serialize)]
pub(super) struct ReportView {
    pub(super) markdown: String,
    pub(super) report: BreachReport,
}
