//! Last stage: durable.

use vitalseal_storage::{Admission, Inbox, InboxError, Judgement, QuarantineReason};

use super::order::Turn;
use super::quarantine::Refusal;
use super::rewrapped::Rewrapped;
use super::time::Terms;
use super::{Outcome, Stop};

/// A message that is on disk now, and was not before. Only [`Rewrapped::admit`] makes one.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) readings: u32,
    gap: bool,
}

impl From<Admitted> for Outcome {
    fn from(Admitted { readings, gap }: Admitted) -> Self {
        Self::Stored { readings, gap }
    }
}

impl Rewrapped {
    /// Resolves when the row is fsynced; the turn ends before, when the row has its place in the queue. Two copies of one
    /// message may both get this far; the inbox stores one, and `None` is the other.
    ///
    /// # Errors
    /// `Fork` and `BootsOverlap` when it contradicts stored messages, `Stale` when it is old and nothing proves its order, `PatientErased` when the erasure won the race; a failed write.
    pub(super) async fn admit(
        self,
        inbox: &Inbox,
        turn: Turn,
        terms: &Terms,
    ) -> Result<Option<Admitted>, Stop> {
        let (measured, introduced) = (self.measured, self.introduced);
        let readings = measured.readings;
        let header = self.envelope.header().clone();
        let admission = Admission {
            message: self.message,
            signed_hash: self.signed_hash,
            previous: header.previous,
            introduced,
            subject: self.subject,
            issued_at: header.issued_at,
            required: terms.required(&header),
            received_at: terms.received_at,
            first_at: measured.first_at,
            last_at: measured.last_at,
            readings,
            envelope: self.envelope.into_bytes(),
        };
        let queued = inbox.enqueue(admission).await;
        drop(turn);
        let judged = match queued {
            Ok(queued) => queued.await,
            Err(error) => Err(error),
        };
        let admitted = |gap| Ok(Some(Admitted { readings, gap }));
        let refused = match judged {
            Ok(Judgement::Stored) => return admitted(false),
            Ok(Judgement::StoredAfterGap) => {
                tracing::warn!(
                    device = %header.device, boot = header.boot, sequence = header.sequence,
                    "the message before this one is missing"
                );
                return admitted(true);
            }
            Ok(Judgement::Duplicate) => return Ok(None),
            Ok(Judgement::Fork(fork)) => Refusal::fork(fork),
            Ok(Judgement::BootsOverlap { other }) => Refusal::new(
                QuarantineReason::BootsOverlap,
                format!("sealed while boot {other} of the device ran"),
            ),
            Ok(Judgement::Stale) => Refusal::new(
                QuarantineReason::Stale,
                "old, and the chain does not prove its order",
            ),
            // The erasure came between the key and the row.
            Err(InboxError::Erased(_)) => {
                Refusal::new(QuarantineReason::PatientErased, "subject was erased")
            }
            // It never can be stored, so it must not come back for ever.
            Err(InboxError::OutOfRange(what)) => {
                Refusal::new(QuarantineReason::Payload, format!("{what} is out of range"))
            }
            Err(error) => return Err(error.into()),
        };
        Err(refused.about(&header).introducing(introduced).into())
    }
}
