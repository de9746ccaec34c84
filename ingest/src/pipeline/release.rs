//! A kept message taken through the pipeline again, after a person has overruled the one judgement that it was held for.
//!
//! Everything else is judged as it would have been when the message came, and a second fault keeps it where it is. What
//! the bytes, keys and signature say can not be overruled, nor an erasure. That a release was ordered, by whom and why,
//! is on record before this is called.

use std::sync::Arc;

use bytes::Bytes;
use vitalseal_crypto::{AtRest, DeviceId};
use vitalseal_storage::{QuarantineReason, QuarantineRow};

use super::expected::Known;
use super::opened::Measured;
use super::order::Order;
use super::quarantine::{Kept, Refusal};
use super::rewrapped::Rewrapped;
use super::time::Terms;
use super::{Pipeline, PipelineError, Shared, Stop};

/// What became of a message that was to be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// It is in the inbox now; a repetition finds it there.
    Stored {
        /// Readings in the message.
        readings: u32,
    },
    /// It was stored before: by an earlier release that was cut short, or because the device sent it again.
    Known,
    /// Something else is wrong with it. Nothing changed.
    Refused {
        /// What.
        reason: QuarantineReason,
        /// More words, without any content of the message.
        detail: String,
    },
}

impl Pipeline {
    /// Takes the body of a held row to the inbox. It is judged by the instant at which it came, so that it does not grow
    /// stale while it waits for its review. The row stays as it is: settle it when this says `Stored` or `Known`.
    ///
    /// # Errors
    /// [`PipelineError`]: it is not known what became of it; release it again.
    pub async fn release(
        &self,
        row: &QuarantineRow,
        body: Bytes,
    ) -> Result<Released, PipelineError> {
        let credit = self.reserve(body.len()).await?;
        let (shared, device) = (Arc::clone(&self.shared), row.device.clone());
        let terms = Terms::new(row.received_at, shared.deps.times).waiving(row.reason);
        // Runs to its end like any message.
        let work = self.spawn(async move {
            let released = shared.release(&device, &body, &terms).await;
            drop(credit);
            released
        });
        work.await?
    }
}

impl Shared {
    /// What is kept of a refused message. If all that speaks against it can be overruled, it is kept as it would be
    /// stored: the server's envelope keys end within days, and nobody could open it then.
    ///
    /// # Errors
    /// When that could not be found out.
    pub(super) async fn to_keep(
        &self,
        device: &DeviceId,
        body: Bytes,
        refusal: &Refusal,
        terms: &Terms,
    ) -> Result<Kept, PipelineError> {
        let reason = refusal.reason();
        let kept = Kept::as_it_came(body, refusal);
        if !reason.is_releasable() {
            return Ok(kept);
        }
        match self
            .stages(device, &kept.body, &terms.waiving(reason))
            .await
        {
            Ok(Some(rewrapped)) => Ok(Kept {
                signed: true,
                releasable: Some(rewrapped.signed_hash),
                body: Bytes::from(rewrapped.envelope.into_bytes()),
            }),
            // Stored meanwhile.
            Ok(None) => Ok(kept),
            // Something else is wrong with it as well.
            Err(Stop::Refused(second)) => Ok(Kept {
                signed: kept.signed || second.is_signed(),
                ..kept
            }),
            Err(Stop::Failed(PipelineError::UnknownSender)) => Ok(Kept {
                signed: true,
                ..kept
            }),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn release(
        &self,
        device: &DeviceId,
        body: &Bytes,
        terms: &Terms,
    ) -> Result<Released, PipelineError> {
        let passed = match AtRest::decode(body) {
            Ok(envelope) => self.reopen(device, envelope, terms).await,
            Err(_) => self.stages(device, body, terms).await,
        };
        let turn = Order::default().next();
        let admitted = match passed {
            Ok(Some(rewrapped)) => rewrapped.admit(&self.deps.store.inbox, turn, terms).await,
            ended => ended.map(|_| None),
        };
        match admitted {
            Ok(Some(admitted)) => Ok(Released::Stored {
                readings: admitted.readings,
            }),
            Ok(None) => Ok(Released::Known),
            Err(Stop::Refused(refusal)) => {
                let (reason, detail) = refusal.into_reason();
                let detail = detail.into_owned();
                Ok(Released::Refused { reason, detail })
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// The stages for what is wrapped for its patient already.
    async fn reopen(
        &self,
        device: &DeviceId,
        envelope: AtRest,
        terms: &Terms,
    ) -> Result<Option<Rewrapped>, Stop> {
        let backend = self.deps.backend;
        let header = envelope.header().clone();
        if header.device != *device {
            let detail = "issuer is not the device that it was kept for";
            return Err(Refusal::new(QuarantineReason::Identity, detail).into());
        }
        let signed_hash = envelope.signed_hash(backend);
        let (signer, store) = (envelope.signer(), &self.deps.store);
        let known = Known::of(&header, signer, || signed_hash, store, terms).await?;
        let Some(known) = known else { return Ok(None) };
        envelope
            .verify(&known.certificate, backend)
            .map_err(Refusal::from)?;
        let (keys, assignments) = known.signed(&header)?;
        let kek = keys.find(envelope.kek_kid()).ok_or_else(|| {
            let detail = "the patient's key that it was wrapped under is not held";
            Refusal::new(QuarantineReason::UnknownKey, detail)
        })?;
        let payload = envelope.open(kek, backend).map_err(Refusal::from)?;
        Ok(Some(Rewrapped {
            message: header.message_id(),
            subject: header.subject.clone(),
            signed_hash,
            // What it introduced was remembered when it was kept.
            introduced: None,
            measured: Measured::of(&header, &payload, &assignments, terms)?,
            envelope,
        }))
    }
}
