//! Last stage: durable.

use jiff::Timestamp;
use vitalseal_storage::{Admission, Admitted, Inbox, InboxError, QuarantineReason};

use super::opened::Rewrapped;
use super::quarantine::Refusal;
use super::{Outcome, Stop};

impl Rewrapped {
    /// Resolves when the row is fsynced. Two copies of one message may both get this far; the inbox stores one.
    ///
    /// # Errors
    /// `Fork` when other signed bytes with the same counters won the race, `PatientErased` when the erasure did;
    /// a failed write.
    pub(super) async fn admit(
        self,
        inbox: &Inbox,
        received_at: Timestamp,
    ) -> Result<Outcome, Stop> {
        let readings = self.readings;
        let header = self.envelope.header().clone();
        let admission = Admission {
            message: self.message,
            signed_hash: self.signed_hash,
            subject: self.subject,
            received_at,
            first_at: self.first_at,
            last_at: self.last_at,
            readings,
            envelope: self.envelope.into_bytes(),
        };
        let refused = match inbox.admit(admission).await {
            Ok(Admitted::Stored) => return Ok(Outcome::Stored { readings }),
            Ok(Admitted::Duplicate) => return Ok(Outcome::Duplicate),
            Ok(Admitted::Fork) => Refusal::fork(),
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
        Err(refused.about(&header).into())
    }
}
