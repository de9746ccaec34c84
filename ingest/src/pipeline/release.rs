//! A kept message taken through the pipeline again, after a person has overruled the one judgement that it was held for.
//!
//! Everything else is judged as it would have been when the message came, and a second fault keeps it where it is. What
//! the bytes, keys and signature say can not be overruled, nor an erasure. That a release was ordered, by whom and why,
//! is on record before this is called.

use bytes::Bytes;
use vitalseal_crypto::DeviceId;
use vitalseal_storage::{QuarantineReason, QuarantineRow};

use super::order::Order;
use super::time::Terms;
use super::{Pipeline, PipelineError, Stop};

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
        let (shared, device) = (self.shared.clone(), row.device.clone());
        let terms = Terms::new(row.received_at, shared.deps.times).waiving(row.reason);
        // Runs to its end like any message.
        let work = tokio::spawn(async move {
            let released = shared.release(&device, &body, &terms).await;
            drop(credit);
            released
        });
        work.await.map_err(|_| PipelineError::Stopped)?
    }
}

impl super::Shared {
    async fn release(
        &self,
        device: &DeviceId,
        body: &Bytes,
        terms: &Terms,
    ) -> Result<Released, PipelineError> {
        let turn = Order::default().next();
        let admitted = match self.stages(device, body, terms).await {
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
}
