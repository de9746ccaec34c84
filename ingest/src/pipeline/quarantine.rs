//! Refusals: what is refused is kept sealed with its reason and recorded, never dropped and never retried.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use vitalseal_crypto::{DeviceId, Header, Rejection, SubjectPseudonym};
use vitalseal_storage::{Actor, AuditEvent, AuditRecord, NewQuarantine, QuarantineReason};

use super::expected::is_erased;
use super::{Outcome, PipelineDeps, PipelineError};

/// Why a message is refused, with as much of its identity as could be read.
#[derive(Debug)]
pub(super) struct Refusal {
    reason: QuarantineReason,
    /// For operators: names structures, codes and checks; never values, keys or names of people.
    detail: Cow<'static, str>,
    counters: Option<(u64, u64)>,
    subject: Option<SubjectPseudonym>,
}

impl Refusal {
    pub(super) fn new(reason: QuarantineReason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            counters: None,
            subject: None,
        }
    }

    /// The same counters under other signed bytes, validly signed: two devices share one key.
    pub(super) fn fork() -> Self {
        Self::new(
            QuarantineReason::Fork,
            "counters were used for other signed bytes",
        )
    }

    /// Adds what the header says of the message. Unverified for the early reasons, and stored as such.
    pub(super) fn about(mut self, header: &Header) -> Self {
        self.counters = Some((header.boot, header.sequence));
        self.subject = Some(header.subject.clone());
        self
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::new(QuarantineReason::from(rejection.rule), rejection.detail())
    }
}

/// Makes the refusal durable, then records it. The body of an erased patient's message is not kept, whatever it was
/// refused for: the promise is that nothing new is stored about them.
///
/// # Errors
/// When either cannot be done; the message is then not acknowledged and comes again.
pub(super) async fn keep(
    deps: &PipelineDeps,
    device: &DeviceId,
    refusal: Refusal,
    body: &Bytes,
    received_at: Timestamp,
) -> Result<Outcome, PipelineError> {
    let Refusal {
        reason,
        detail,
        counters,
        subject,
    } = refusal;
    // A body that names no patient is most likely about the one whom the device measures: it must go with
    // that patient, and not come in after them.
    let subject = match subject {
        Some(subject) => Some(subject),
        None => {
            let record = deps.store.registry.device(device).await?;
            record.and_then(|record| record.patient)
        }
    };
    let erased = match &subject {
        _ if reason == QuarantineReason::PatientErased => true,
        Some(subject) => is_erased(&deps.store, subject).await?,
        None => false,
    };
    tracing::warn!(
        %device,
        reason = ?reason,
        detail = %detail,
        bytes = body.len(),
        "message quarantined"
    );
    let detail = detail.into_owned();
    deps.store
        .inbox
        .quarantine(NewQuarantine {
            device: device.clone(),
            message: counters,
            reason,
            detail: detail.clone(),
            received_at,
            subject,
            body: (!erased).then(|| body.to_vec()),
        })
        .await?;
    let (boot, sequence) = counters.unzip();
    if let (QuarantineReason::Fork, Some((boot, sequence))) = (reason, counters) {
        let event = AuditEvent::ForkDetected {
            device: device.clone(),
            boot,
            sequence,
        };
        record(deps, device, received_at, event).await?;
    }
    let device_id = device.clone();
    let event = AuditEvent::MessageQuarantined {
        device: device_id,
        boot,
        sequence,
        reason,
        detail,
    };
    record(deps, device, received_at, event).await?;
    Ok(Outcome::Quarantined(reason))
}

async fn record(
    deps: &PipelineDeps,
    device: &DeviceId,
    at: Timestamp,
    event: AuditEvent,
) -> Result<(), PipelineError> {
    let actor = Actor::Device(device.clone());
    Ok(deps.audit.record(AuditRecord { at, actor, event }).await?)
}
