//! Second stage: what the registry, the inbox and the key store know, before any expensive arithmetic.
//!
//! A replay ends here: the same device, boot and sequence with the same signed bytes was stored before, so nothing needs
//! to be verified again. With *other* signed bytes it goes on, because only a valid signature makes it a fork; anybody
//! could otherwise accuse a device of having a twin.

use std::sync::Arc;

use vitalseal_crypto::{
    Backend, DeviceCertificate, Header, PatientKeys, SubjectPseudonym, Thumbprint, envelope,
};
use vitalseal_storage::{Assignment, DeviceState, PatientState, QuarantineReason, Store};

use super::quarantine::Refusal;
use super::received::Received;
use super::time::Terms;
use super::{PipelineError, Stop};

/// An envelope of an active device that is not stored yet, with what is needed to verify and open it.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) envelope: envelope::Received,
    pub(super) known: Known,
}

/// What is known of a message's device and patient before its signature is looked at.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) certificate: Arc<DeviceCertificate>,
    pub(super) replay: Replay,
    pub(super) patient: Patient,
}

/// Whether the message's counters were used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// No.
    New,
    /// Yes, for other signed bytes.
    OtherBytes,
}

/// How the envelope's subject stands to the device.
#[derive(Debug)]
pub(super) enum Patient {
    /// The device is or was assigned to this patient, whose key is here; when, its assignments say.
    Assigned(Arc<PatientKeys>, Arc<[Assignment]>),
    /// It never was.
    NotAssigned,
    /// The patient was erased. Late messages never make a new key.
    Erased,
}

impl Received {
    /// `None` for a replay of what is stored.
    ///
    /// # Errors
    /// `DeviceNotActive`; `Signature` when no certificate of this device has the signer's thumbprint; a failed lookup.
    pub(super) async fn expect(
        self,
        store: &Store,
        backend: &dyn Backend,
        terms: &Terms,
    ) -> Result<Option<Expected>, Stop> {
        let envelope = self.envelope;
        let (header, signer) = (envelope.header(), envelope.signer());
        let signed_hash = || envelope.signed_hash(backend);
        let known = Known::of(header, signer, signed_hash, store, terms).await?;
        Ok(known.map(|known| Expected { envelope, known }))
    }
}

impl Known {
    /// As [`Received::expect`], of an envelope in any form.
    pub(super) async fn of(
        header: &Header,
        signer: &Thumbprint,
        signed_hash: impl Fn() -> [u8; 32] + Send,
        store: &Store,
        terms: &Terms,
    ) -> Result<Option<Self>, Stop> {
        let record = store.registry.device(&header.device).await?;
        let not_active =
            |detail| Refusal::new(QuarantineReason::DeviceNotActive, detail).about(header);
        let record = record.ok_or_else(|| not_active("device is not enrolled"))?;
        match record.state {
            DeviceState::Active => {}
            _ if terms.waives(QuarantineReason::DeviceNotActive) => {}
            DeviceState::Suspended => return Err(not_active("device is suspended").into()),
            DeviceState::Revoked => return Err(not_active("device is revoked").into()),
        }
        let replay = match store.inbox.seen(&header.message_id()).await? {
            None => Replay::New,
            Some(hash) if hash == signed_hash() => return Ok(None),
            Some(_) => Replay::OtherBytes,
        };
        let Some(certificate) = store.registry.device_certificate(signer).await? else {
            let detail = "signed under a certificate that was never enrolled";
            return Err(Refusal::new(QuarantineReason::Signature, detail)
                .about(header)
                .into());
        };
        let patient = patient(store, record.assignments, &header.subject).await?;
        Ok(Some(Self {
            certificate,
            replay,
            patient,
        }))
    }
}

async fn patient(
    store: &Store,
    assignments: Arc<[Assignment]>,
    subject: &SubjectPseudonym,
) -> Result<Patient, PipelineError> {
    if assignments.iter().any(|of| of.subject == *subject)
        && let Some(keys) = store.keys.patient_keys(subject).await?
    {
        return Ok(Patient::Assigned(keys, assignments));
    }
    // A pseudonym that never existed was not erased.
    let row = store.registry.patient(subject).await?;
    let erased = row.is_some_and(|row| row.state == PatientState::Erased);
    Ok(if erased {
        Patient::Erased
    } else {
        Patient::NotAssigned
    })
}
