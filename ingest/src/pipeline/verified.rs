//! Third stage: the device's signature holds, so what follows is about the device and no longer about a stranger.

use std::sync::Arc;

use vitalseal_crypto::{Backend, CloneKind, Header, PatientKeys, envelope};
use vitalseal_storage::{Assignment, Fork, QuarantineReason};

use super::expected::{Expected, Known, Patient, Replay};
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
            .verify(&self.known.certificate, backend)
            .map_err(|rejection| Refusal::from(rejection).about(&header))?;
        let (keys, assignments) = self.known.signed(&header)?;
        Ok(Verified {
            envelope,
            keys,
            assignments,
        })
    }
}

impl Known {
    /// What follows once the device's signature held.
    ///
    /// # Errors
    /// `Fork`, `NotAssigned`, `PatientErased`.
    pub(super) fn signed(
        self,
        header: &Header,
    ) -> Result<(Arc<PatientKeys>, Arc<[Assignment]>), Refusal> {
        if self.replay == Replay::OtherBytes {
            let (kind, other) = (CloneKind::SameCounters, header.sequence);
            return Err(Refusal::fork(Fork { kind, other }).about(header));
        }
        let (reason, detail) = match self.patient {
            Patient::Assigned(keys, assignments) => return Ok((keys, assignments)),
            Patient::NotAssigned => (
                QuarantineReason::NotAssigned,
                "device was never assigned to the envelope's subject",
            ),
            Patient::Erased => (QuarantineReason::PatientErased, "subject was erased"),
        };
        Err(Refusal::new(reason, detail).about(header))
    }
}
