//! Refusals: what is refused is kept sealed with its reason and recorded, never dropped and never retried.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use vitalseal_crypto::{
    CloneKind, DeviceId, Header, MessageId, P256Point, Rejection, SenderKeyId, SubjectPseudonym,
};
use vitalseal_storage::{
    Actor, AuditEvent, AuditRecord, Fork, NewQuarantine, Place, QuarantineReason,
};

use super::{PipelineDeps, PipelineError, evidence};
use crate::clones::CloneSignal;

/// Why a message is refused, with as much of its identity as could be read.
#[derive(Debug)]
pub(super) struct Refusal {
    reason: QuarantineReason,
    /// For operators: names structures, codes and checks; never values, keys or names of people.
    detail: Cow<'static, str>,
    counters: Option<(u64, u64)>,
    subject: Option<SubjectPseudonym>,
    /// The session key that it carried in full, if it opened. Boxed, since few do and a refusal is passed on by value.
    introduced: Option<Box<(SenderKeyId, P256Point)>>,
    /// The stored message that it contradicts, if that is why.
    fork: Option<Fork>,
    /// What the message after it may name, if its device signed it and its place is not what is wrong with it.
    place: Option<Box<Place>>,
}

impl Refusal {
    pub(super) fn new(reason: QuarantineReason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            counters: None,
            subject: None,
            introduced: None,
            fork: None,
            place: None,
        }
    }

    /// Validly signed, and contradicting a stored message: two devices share one key.
    pub(super) fn fork(fork: Fork) -> Self {
        let detail = match fork.kind {
            CloneKind::SameCounters => "counters were used for other signed bytes",
            CloneKind::BrokenLink => "the chain has another message in the place beside this one",
        };
        Self {
            fork: Some(fork),
            ..Self::new(QuarantineReason::Fork, detail)
        }
    }

    /// Adds what the header says of the message. Unverified for the early reasons, and stored as such.
    pub(super) fn about(mut self, header: &Header) -> Self {
        self.counters = Some((header.boot, header.sequence));
        self.subject = Some(header.subject.clone());
        self
    }

    /// Adds its place in the chain. One that is stale proves no order itself.
    pub(super) fn placed(mut self, place: Place) -> Self {
        self.place = (self.reason != QuarantineReason::Stale).then(|| Box::new(place));
        self
    }

    /// Why.
    pub(super) fn reason(&self) -> QuarantineReason {
        self.reason
    }

    /// Whether the device's signature held: other reasons are given before anybody looks at it, or are about it.
    pub(super) fn is_signed(&self) -> bool {
        !matches!(
            self.reason,
            QuarantineReason::TooLarge
                | QuarantineReason::Shape
                | QuarantineReason::Algorithm
                | QuarantineReason::Identity
                | QuarantineReason::DeviceNotActive
                | QuarantineReason::Signature
        )
    }

    /// Why, and more words.
    pub(super) fn into_reason(self) -> (QuarantineReason, Cow<'static, str>) {
        (self.reason, self.detail)
    }

    /// Whether evidence of it is to be looked for.
    pub(super) fn is_fork(&self) -> bool {
        self.fork.is_some()
    }

    /// Adds the session key of a message that opened: the device may name it once this refusal is acknowledged.
    pub(super) fn introducing(mut self, key: Option<(SenderKeyId, P256Point)>) -> Self {
        self.introduced = key.map(Box::new);
        self
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::new(QuarantineReason::from(rejection.rule), rejection.detail())
    }
}

/// What is kept of a refused message.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) body: Bytes,
    /// Whether its device signed it, as far as that was found out.
    pub(super) signed: bool,
    /// As [`NewQuarantine::releasable`].
    pub(super) releasable: Option<[u8; 32]>,
}

impl Kept {
    pub(super) fn as_it_came(body: Bytes, refusal: &Refusal) -> Self {
        Self {
            body,
            signed: refusal.is_signed(),
            releasable: None,
        }
    }
}

/// Makes the refusal durable, then records it; of a fork the proof too. The store keeps no body about an erased patient.
///
/// # Errors
/// When either cannot be done; the message is then not acknowledged and comes again.
pub(super) async fn keep(
    deps: &PipelineDeps,
    device: &DeviceId,
    refusal: Refusal,
    kept: Kept,
    received_at: Timestamp,
) -> Result<(), PipelineError> {
    let Kept {
        body, releasable, ..
    } = kept;
    let Refusal {
        reason,
        detail,
        counters,
        subject,
        introduced,
        fork,
        place,
    } = refusal;
    // A body that names no patient is most likely about the one whom the device measures: it must go with
    // that patient, and not come in after them.
    let subject = match subject {
        Some(subject) => Some(subject),
        None => {
            let record = deps.store.registry.device(device).await?;
            record.and_then(|record| record.patient().cloned())
        }
    };
    tracing::warn!(
        %device,
        reason = ?reason,
        detail = %detail,
        bytes = body.len(),
        "message quarantined"
    );
    let detail = detail.into_owned();
    let clone_proof = match (fork, counters) {
        (Some(fork), Some((boot, sequence))) => {
            let device = device.clone();
            let message = MessageId {
                device,
                boot,
                sequence,
            };
            let proof = evidence::of_fork(deps, &message, fork, &body).await;
            proof.unwrap_or_else(|error| {
                // Sent again it would be the same: what was refused stays refused, and both messages stay where they are.
                let error = &error as &dyn std::error::Error;
                tracing::error!(%message, error, "no proof could be made of a fork");
                None
            })
        }
        _ => None,
    };
    deps.store
        .quarantine(NewQuarantine {
            device: device.clone(),
            message: counters,
            reason,
            detail: detail.clone(),
            received_at,
            subject,
            body: Some(body.to_vec()),
            releasable,
            introduced: introduced.map(|key| *key),
            place: place.map(|place| *place),
            clone_proof,
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
    if let Some(signal) = CloneSignal::of_refusal(reason) {
        deps.clones.suspect(device, signal).await?;
    }
    Ok(())
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
