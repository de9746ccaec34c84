//! What an erasure certificate says, and the text that is signed.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vitalseal_crypto::{KeyEpoch, Kid, SubjectPseudonym};
use vitalseal_storage::ports::{Actor, AuditEvent};

use super::residual::Residual;
use crate::audit::{AuditEntry, InclusionProof};

/// The format that this version writes; the only one so far.
pub(super) const FORMAT: &str = "vitalseal-erasure-certificate/1";

/// First line of the signed text. It holds white space, so it can not be the first line of a checkpoint.
const SIGNED_AS: &str = "vitalseal erasure certificate";

/// A signed statement that one patient's data can not be opened any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureCertificate {
    /// Everything that is signed.
    pub statement: ErasureStatement,
    /// `c2sp.org/signed-note` signature line (Ed25519, key of the audit log) over the signed text:
    ///
    /// ```text
    /// vitalseal erasure certificate
    /// <compact JSON of the statement, members in declaration order>
    /// ```
    pub signature: String,
}

/// What is certified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureStatement {
    /// Name and version of this format.
    pub format: String,
    /// Id of the erasure, in the ledger and in the audit log.
    pub erasure: String,
    /// Hash that stands for the patient; see [`subject_handle`].
    pub subject_handle: String,
    /// The ground as the operator gave it.
    pub reason: String,
    /// Who ordered it.
    pub ordered_by: Actor,
    /// When it was ordered.
    pub ordered_at: Timestamp,
    /// When it was complete: keys gone, checks made.
    pub completed_at: Timestamp,
    /// Which keys were destroyed, and what took their place.
    pub keys: KeyDestruction,
    /// What was looked at to be sure.
    pub checks: ErasureChecks,
    /// What is left, and until when.
    pub residuals: Vec<Residual>,
    /// What nobody should read into this certificate.
    pub not_claimed: Vec<String>,
    /// Proof that `ErasureCompleted` is in the audit log.
    pub log: InclusionProof,
}

/// The path of keys that was cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDestruction {
    /// Ids of the patient's key-encryption keys, those that a rotation retired among them: random, derived from
    /// nothing, destroyed.
    pub kek_kids: Vec<Kid>,
    /// The root epoch that was destroyed: every older wrap of the KEK ends in it.
    pub root_epoch_destroyed: KeyEpoch,
    /// The root epoch that took its place.
    pub root_epoch: KeyEpoch,
    /// Who holds roots: how surely the old one is gone is a property of that provider.
    pub root_provider: String,
    /// Keys of other patients that were wrapped under a new page key.
    pub keks_rewrapped: u64,
    /// Pages that were wrapped under the new root.
    pub pages_rewrapped: u64,
}

impl KeyDestruction {
    /// Wraps written anew, as the audit record counts them.
    pub(super) fn rewrapped(&self) -> u64 {
        self.keks_rewrapped.saturating_add(self.pages_rewrapped)
    }
}

/// What was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureChecks {
    /// The key store hands out no key for the patient any more.
    pub kek_absent: bool,
    /// Stored envelopes and chunks of the patient that were tried.
    pub envelopes_tried: u64,
    /// How many of them opened before. `None` when an interrupted erasure was completed later and there was no before.
    pub opened_before: Option<u64>,
    /// How many are wrapped under the destroyed key: all of them.
    pub wrapped_under_destroyed_key: u64,
    /// How many opened after: none.
    pub opened_after: u64,
    /// Messages of the patient that are still stored as ciphertext.
    pub messages_as_ciphertext: u64,
}

/// SHA-256 in hexadecimal over a fixed prefix and the pseudonym. The pseudonym is 128 random bits, so nobody finds it by
/// trying; whoever holds it (in the request's file) can tell that the certificate is about it.
pub fn subject_handle(subject: &SubjectPseudonym) -> String {
    let hash = Sha256::new()
        .chain_update(b"vitalseal erasure subject\0")
        .chain_update(subject.as_bytes())
        .finalize();
    hex::encode(hash)
}

impl ErasureStatement {
    /// The text that is signed.
    pub(super) fn signed_text(&self) -> Result<String, serde_json::Error> {
        Ok(format!("{SIGNED_AS}\n{}\n", serde_json::to_string(self)?))
    }

    /// The audit entry that `log` must prove, given the pseudonym that the certificate leaves out.
    fn entry(&self, subject: &SubjectPseudonym) -> AuditEntry {
        AuditEntry {
            seq: self.log.seq,
            at: self.completed_at,
            actor: self.ordered_by.clone(),
            event: completed_event(&self.erasure, &self.keys, subject),
        }
    }
}

/// What is recorded of a completed erasure.
pub(super) fn completed_event(
    erasure: &str,
    keys: &KeyDestruction,
    subject: &SubjectPseudonym,
) -> AuditEvent {
    AuditEvent::ErasureCompleted {
        patient: subject.clone(),
        erasure: erasure.to_owned(),
        root_epoch_destroyed: keys.root_epoch_destroyed.0,
        root_epoch: keys.root_epoch.0,
        rewrapped: keys.rewrapped(),
    }
}

impl ErasureCertificate {
    /// Whether the certificate is about this patient: the handle is theirs and the logged record names them.
    pub fn is_about(&self, subject: &SubjectPseudonym) -> bool {
        self.statement.subject_handle == subject_handle(subject)
            && self
                .statement
                .log
                .is_about(&self.statement.entry(subject))
                .unwrap_or(false)
    }

    /// The document as it is handed out.
    ///
    /// # Errors
    ///
    /// Never for a certificate that was read or issued; JSON can express all of it.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// The same for a person.
    pub fn to_text(&self) -> String {
        let s = &self.statement;
        let mut text = format!(
            "Certificate of erasure {}\n\n\
             Patient (handle)   {}\n\
             Ground             {}\n\
             Ordered            {} by {}\n\
             Completed          {}\n\
             Destroyed          patient key {}, root epoch {} (held by: {})\n\
             In their place     root epoch {}; {} other patients' keys and {} pages wrapped anew\n\
             Checked            key absent: {}; {} stored messages tried, {} opened before, {} after\n\
             Left as ciphertext {} messages\n\
             In the audit log   record {}\n\nWhat is left\n",
            s.erasure,
            s.subject_handle,
            s.reason,
            s.ordered_at,
            actor(&s.ordered_by),
            s.completed_at,
            s.keys
                .kek_kids
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            s.keys.root_epoch_destroyed,
            s.keys.root_provider,
            s.keys.root_epoch,
            s.keys.keks_rewrapped,
            s.keys.pages_rewrapped,
            if s.checks.kek_absent { "yes" } else { "no" },
            s.checks.envelopes_tried,
            s.checks
                .opened_before
                .map_or("not known how many".to_owned(), |n| n.to_string()),
            s.checks.opened_after,
            s.checks.messages_as_ciphertext,
            s.log.seq,
        );
        // Writing to a String does not fail.
        for residual in &s.residuals {
            let _ = writeln!(text, "- {residual}");
        }
        text.push_str("\nWhat this does not claim\n");
        for sentence in &s.not_claimed {
            let _ = writeln!(text, "- {sentence}");
        }
        text
    }
}

fn actor(actor: &Actor) -> String {
    match actor {
        Actor::System => "vitalseal".into(),
        Actor::Device(device) => format!("device {device}"),
        Actor::Subscriber(subscriber) => subscriber.to_string(),
        Actor::User(user) => format!("user {user}"),
        Actor::Local { uid } => format!("local administrator (uid {uid})"),
    }
}
