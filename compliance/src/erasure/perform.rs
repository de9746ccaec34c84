//! Carrying an erasure out.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{PatientKeys, SubjectPseudonym};
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord};
use vitalseal_storage::{
    KeyErasure, KeyError, PatientState, RegistryError, Store, StoreError, StoredSample,
};

use super::certificate::{
    ErasureCertificate, ErasureChecks, ErasureStatement, FORMAT, KeyDestruction, completed_event,
    subject_handle,
};
use super::residual::{Residual, not_claimed};
use crate::audit::{AuditLog, AuditLogError};

/// Longest ground that is taken: a sentence with a file reference, no case history.
const MAX_REASON_CHARS: usize = 500;

/// What an erasure works on.
#[derive(Clone, Debug)]
pub struct ErasureDeps {
    /// Where the patient's data and keys are.
    pub store: Store,
    /// Where it is recorded; its key signs the certificate.
    pub audit: AuditLog,
}

/// An erasure was not carried out, or not certified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// No such patient.
    #[error("there is no patient {0}")]
    UnknownPatient(SubjectPseudonym),
    /// The patient was erased before and that was certified.
    #[error(
        "patient {patient} was erased already, at {erased_at} (erasure {erasure}, audit record {seq}); its certificate is \
         kept in the store's erasures directory"
    )]
    AlreadyErased {
        /// The patient.
        patient: SubjectPseudonym,
        /// When.
        erased_at: Timestamp,
        /// Id of that erasure.
        erasure: String,
        /// Its `ErasureCompleted` in the audit log.
        seq: u64,
    },
    /// The patient's key is gone but the old root is not yet.
    #[error(
        "erasure {0} was interrupted before the old root was destroyed: restart the server, which finishes it, then ask again"
    )]
    Unfinished(String),
    /// The ground is empty, too long or holds control characters.
    #[error("the reason of an erasure is 1 to {MAX_REASON_CHARS} characters on one line")]
    Reason,
    /// The registry failed; nothing was erased.
    #[error("looking the patient up")]
    Registry(#[from] RegistryError),
    /// The audit log failed.
    #[error("recording the erasure")]
    Audit(#[from] AuditLogError),
    /// The key store failed. It finishes or undoes a half-done erasure when the store is next opened.
    #[error("destroying the patient's key")]
    Keys(#[from] KeyError),
    /// Stored messages could not be read to try them, or not be counted.
    #[error("sampling and counting the patient's stored messages")]
    Store(#[from] StoreError),
    /// The random number generator of the system failed.
    #[error("drawing an erasure id")]
    Random(#[source] getrandom::Error),
    /// The control before the erasure failed: what does not open before proves nothing by not opening after.
    #[error(
        "only {opened} of {tried} stored messages of the patient open under the key that would be destroyed; nothing was \
         erased: find out which key the others are under, and ask again"
    )]
    ControlFailed {
        /// Messages that opened.
        opened: u64,
        /// Messages that were tried.
        tried: u64,
    },
    /// A check after the erasure failed, so nothing is certified.
    #[error(
        "erasure {erasure}: {what}; no certificate is issued: this needs to be looked into at once"
    )]
    CheckFailed {
        /// Id of the erasure.
        erasure: String,
        /// What is not as it must be.
        what: &'static str,
    },
    /// The certificate could not be written as JSON.
    #[error("writing the certificate")]
    Encode(#[from] serde_json::Error),
}

/// Erases a patient for ever and certifies it. `reason` goes into the audit log and the certificate and must not name anybody.
///
/// An erasure that was interrupted after the keys were gone is completed and certified by asking again.
///
/// # Errors
///
/// [`EraseError::UnknownPatient`], [`EraseError::AlreadyErased`], [`EraseError::ControlFailed`], or what failed. After [`EraseError::CheckFailed`] the key is
/// gone and the certificate is withheld.
pub async fn erase(
    deps: &ErasureDeps,
    subject: &SubjectPseudonym,
    reason: &str,
    actor: Actor,
    now: Timestamp,
) -> Result<ErasureCertificate, EraseError> {
    let reason = reason.trim();
    let chars = reason.chars().count();
    if chars == 0 || chars > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
        return Err(EraseError::Reason);
    }
    // Only the state is read: an identity that does not open is no reason to keep its key.
    let states = deps.store.registry.patient_states().await?;
    let patient = states
        .into_iter()
        .find(|patient| patient.subject == *subject)
        .ok_or_else(|| EraseError::UnknownPatient(subject.clone()))?;
    // A message on its way from the inbox to a file would be counted in neither.
    let _held = deps.store.hold_flushes().await;
    match patient.state {
        PatientState::Active => {
            let order = Order {
                subject,
                reason: reason.to_owned(),
                actor,
                at: now,
            };
            carry_out(deps, order).await
        }
        PatientState::Erased => {
            let (order, keys) = interrupted(deps, subject, reason, actor).await?;
            let tried = Tried::new(deps, subject).await?;
            certify(deps, order, keys, tried, None, now).await
        }
    }
}

/// What was ordered, by whom and when.
struct Order<'a> {
    subject: &'a SubjectPseudonym,
    reason: String,
    actor: Actor,
    at: Timestamp,
}

async fn carry_out(deps: &ErasureDeps, order: Order<'_>) -> Result<ErasureCertificate, EraseError> {
    let began = Instant::now();
    let subject = order.subject;
    let erasure = draw_id()?;
    let started = AuditEvent::ErasureStarted {
        patient: subject.clone(),
        reason: order.reason.clone(),
    };
    deps.audit
        .append(AuditRecord {
            at: order.at,
            actor: order.actor.clone(),
            event: started,
        })
        .await?;
    let tried = Tried::new(deps, subject).await?;
    // The control: what opens now and does not later was closed by the erasure. The key is dropped with this block.
    let opened_before = match deps.store.keys.patient_keys(subject).await? {
        Some(keys) => tried.opened_by(&keys),
        None => 0,
    };
    if opened_before != tried.count() {
        return Err(EraseError::ControlFailed {
            opened: opened_before,
            tried: tried.count(),
        });
    }
    let keys = deps.store.keys.erase(subject, &erasure, order.at).await?;
    let took = SignedDuration::try_from(began.elapsed()).unwrap_or_default();
    let completed_at = order.at.checked_add(took).unwrap_or(order.at);
    certify(deps, order, keys, tried, Some(opened_before), completed_at).await
}

/// An erasure whose keys are gone but whose completion was never recorded.
async fn interrupted<'a>(
    deps: &ErasureDeps,
    subject: &'a SubjectPseudonym,
    reason: &str,
    actor: Actor,
) -> Result<(Order<'a>, KeyErasure), EraseError> {
    let ledger = deps.store.keys.erasure_ledger().await?;
    let row = ledger
        .into_iter()
        .find(|row| row.subject == *subject)
        .ok_or_else(|| EraseError::UnknownPatient(subject.clone()))?;
    if row.completed_at.is_none() {
        return Err(EraseError::Unfinished(row.erasure_id));
    }
    let evidence = deps.audit.evidence_since(row.erased_at).await?;
    let mut order = Order {
        subject,
        reason: reason.to_owned(),
        actor,
        at: row.erased_at,
    };
    for entry in evidence.entries {
        match entry.event {
            AuditEvent::ErasureCompleted { erasure, .. } if erasure == row.erasure_id => {
                return Err(EraseError::AlreadyErased {
                    patient: subject.clone(),
                    erased_at: row.erased_at,
                    erasure,
                    seq: entry.seq,
                });
            }
            // The order that was given counts, not the one that completes it.
            AuditEvent::ErasureStarted { patient, reason } if patient == *subject => {
                order = Order {
                    subject,
                    reason,
                    actor: entry.actor,
                    at: entry.at,
                };
            }
            _ => {}
        }
    }
    let keys = deps
        .store
        .keys
        .erasure(&row.erasure_id)
        .await?
        .ok_or(EraseError::Unfinished(row.erasure_id))?;
    Ok((order, keys))
}

/// Makes the checks, records the completion and signs.
async fn certify(
    deps: &ErasureDeps,
    order: Order<'_>,
    erased: KeyErasure,
    tried: Tried,
    opened_before: Option<u64>,
    completed_at: Timestamp,
) -> Result<ErasureCertificate, EraseError> {
    let subject = order.subject;
    let left = deps.store.keys.patient_keys(subject).await?;
    let opened_after = left.as_deref().map_or(0, |keys| tried.opened_by(keys));
    let checks = ErasureChecks {
        kek_absent: left.is_none(),
        envelopes_tried: tried.count(),
        opened_before,
        wrapped_under_destroyed_key: tried.wrapped_under(&erased),
        opened_after,
        messages_as_ciphertext: stored_messages(deps, subject).await?,
    };
    let failed = |what| EraseError::CheckFailed {
        erasure: erased.erasure_id.clone(),
        what,
    };
    if !checks.kek_absent || checks.opened_after > 0 {
        return Err(failed(
            "the key store still hands out a key for the patient",
        ));
    }
    if checks.wrapped_under_destroyed_key != checks.envelopes_tried {
        return Err(failed(
            "a stored message is wrapped under another key than the destroyed one",
        ));
    }
    let keys = KeyDestruction {
        kek_kids: erased.kek_kids,
        root_epoch_destroyed: erased.root_epoch_destroyed,
        root_epoch: erased.root_epoch,
        root_provider: erased.root_provider,
        keks_rewrapped: erased.keks_rewrapped,
        pages_rewrapped: erased.pages_rewrapped,
    };
    let recipients = deps.store.keys.recipients().await?;
    let residuals = Residual::after(
        &recipients,
        completed_at,
        checks.messages_as_ciphertext,
        keys.root_epoch_destroyed,
        &keys.root_provider,
    );
    let event = completed_event(&erased.erasure_id, &keys, subject);
    let seq = deps
        .audit
        .append(AuditRecord {
            at: completed_at,
            actor: order.actor.clone(),
            event,
        })
        .await?;
    let statement = ErasureStatement {
        format: FORMAT.to_owned(),
        erasure: erased.erasure_id,
        subject_handle: subject_handle(subject),
        reason: order.reason,
        ordered_by: order.actor,
        ordered_at: order.at,
        completed_at,
        keys,
        checks,
        residuals,
        not_claimed: not_claimed(),
        log: deps.audit.prove(seq).await?,
    };
    let note = deps.audit.sign(&statement.signed_text()?)?;
    // The note is the text, an empty line, and one signature line: the text is the statement, which the document has already.
    let signature = note
        .rsplit("\n\n")
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_owned();
    Ok(ErasureCertificate {
        statement,
        signature,
    })
}

async fn stored_messages(
    deps: &ErasureDeps,
    subject: &SubjectPseudonym,
) -> Result<u64, EraseError> {
    let only = [subject.clone()].into();
    let holdings = deps
        .store
        .catalog
        .holdings(Some(&only), None, Timestamp::MIN, Timestamp::MAX)
        .await?;
    Ok(holdings.iter().map(|holding| holding.messages).sum())
}

/// Sampled messages and chunks. An envelope that does not decode is not counted; storage would not have taken it.
struct Tried(Vec<StoredSample>);

impl Tried {
    async fn new(deps: &ErasureDeps, subject: &SubjectPseudonym) -> Result<Self, EraseError> {
        Ok(Self(deps.store.sample(subject).await?))
    }

    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    fn opened_by(&self, keys: &PatientKeys) -> u64 {
        let opens = self.0.iter().filter(|sample| sample.opens_with(keys));
        opens.count() as u64
    }

    fn wrapped_under(&self, erased: &KeyErasure) -> u64 {
        let under = |sample: &&StoredSample| {
            let kid = sample.kek_kid();
            kid.is_some_and(|kid| erased.kek_kids.contains(&kid))
        };
        self.0.iter().filter(under).count() as u64
    }
}

/// 64 random bits: an id in the ledger, not a secret.
fn draw_id() -> Result<String, EraseError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(EraseError::Random)?;
    Ok(format!("erasure-{}", hex::encode(bytes)))
}
