//! Third stage: the device's signature holds, so what follows is about the device and no longer about a stranger.

use std::sync::Arc;

use vitalseal_crypto::{Backend, CloneKind, PatientKeys, envelope};
use vitalseal_storage::{Assignment, Fork, QuarantineReason};

use super::expected::{Expected, Patient, Replay};
use super::quarantine::Refusal;

/// A signed envelope of an active device about a patient that it is or was assigned to.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) envelope: envelope::Verified,
    pub(super) keys: Arc<PatientKeys>,
    pub(super) assignments: Arc<[Assignment]>,
}

impl Expected {
    /// # Errors
    /// `Signature`, `Identity`; `Fork` for counters that were used for other signed bytes; `NotAssigned`;
    /// `PatientErased`.
    pub(super) fn verify(self, backend: &dyn Backend) -> Result<Verified, Refusal> {
        let header = self.envelope.header().clone();
        let envelope = self
            .envelope
            .verify(&self.certificate, backend)
            .map_err(|rejection| Refusal::from(rejection).about(&header))?;
        if self.replay == Replay::OtherBytes {
            let (kind, other) = (CloneKind::SameCounters, header.sequence);
            return Err(Refusal::fork(Fork { kind, other }).about(&header));
        }
        match self.patient {
            Patient::Assigned(keys, assignments) => Ok(Verified {
                envelope,
                keys,
                assignments,
            }),
            Patient::NotAssigned => Err(Refusal::new(
                QuarantineReason::NotAssigned,
                "device was never assigned to the envelope's subject",
            )
            .about(&header)),
            Patient::Erased => Err(Refusal::new(
                QuarantineReason::PatientErased,
                "subject was erased",
            )
            .about(&header)),
        }
    }
}
