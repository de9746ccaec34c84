//! Fourth stage: the content opens, is a payload that we know, is physically possible, and of a time that the device
//! may speak of. What a review may waive comes last, so that it is never asked of what has another fault.

use std::cell::Cell;
use std::sync::Arc;

use jiff::Timestamp;
use vitalseal_crypto::{
    Backend, ContentType, DeviceId, P256Point, PatientKeys, RecipientKeyRing, SenderKeyId,
    SenderKeys, envelope,
};
use vitalseal_storage::{QuarantineReason, Senders};
use vitalseal_vitals::{Reading, check_hard, senml, waveform};

use super::quarantine::Refusal;
use super::time::Terms;
use super::verified::Verified;
use super::{PipelineError, Stop};

/// An opened envelope whose payload is understood and plausible: the plaintext is in memory from here to
/// [`Opened::rewrap`].
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) envelope: envelope::Opened,
    pub(super) keys: Arc<PatientKeys>,
    pub(super) readings: u32,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
}

impl Verified {
    /// The readings are decoded to be judged and counted, and dropped again: storage keeps the device's own bytes.
    ///
    /// # Errors
    /// `UnknownKey`, `Unwrap`, `Commitment`, `Open`; `Payload` when it does not decode or is empty, `Implausible` when a
    /// value is outside its hard range or measured after it was sealed; `NotYet`, `Stale`; `NotAssigned` when the patient
    /// was another's at the time. [`PipelineError::UnknownSender`] is no refusal: in full, it opens.
    pub(super) fn open(
        self,
        ring: &RecipientKeyRing,
        senders: &Senders,
        backend: &dyn Backend,
        terms: &Terms,
    ) -> Result<Opened, Stop> {
        let header = self.envelope.header().clone();
        let place = terms.place(&header, *self.envelope.signed_hash());
        let asked = Asked {
            senders,
            in_vain: Cell::new(false),
        };
        let envelope = match self.envelope.open(ring, &asked, backend) {
            Ok(envelope) => envelope,
            Err(_) if asked.in_vain.get() => return Err(PipelineError::UnknownSender.into()),
            Err(rejection) => {
                return Err(Refusal::from(rejection).about(&header).placed(place).into());
            }
        };
        let introduced = envelope.introduced_sender();
        let refuse =
            |refusal: Refusal| refusal.about(&header).introducing(introduced).placed(place);
        let readings = plausible(header.content_type, envelope.payload()).map_err(refuse)?;
        let first_at = readings.iter().map(|reading| reading.at).min();
        let last_at = readings.iter().map(|reading| reading.at).max();
        let count = u32::try_from(readings.len()).ok();
        let (Some(first_at), Some(last_at), Some(readings)) = (first_at, last_at, count) else {
            return Err(refuse(Refusal::new(QuarantineReason::Payload, "no readings")).into());
        };
        terms
            .judge_issued(&header, last_at)
            .and_then(|()| {
                terms.judge_measured(&self.assignments, &header.subject, first_at, last_at)
            })
            .map_err(refuse)?;
        Ok(Opened {
            envelope,
            keys: self.keys,
            readings,
            first_at,
            last_at,
        })
    }
}

/// The remembered keys, and whether one that is not among them was asked for: then it was for a message which only names
/// its sender's key, and for a recipient's key that is held.
struct Asked<'a> {
    senders: &'a Senders,
    in_vain: Cell<bool>,
}

impl SenderKeys for Asked<'_> {
    fn find(&self, device: &DeviceId, id: &SenderKeyId) -> Option<P256Point> {
        let found = self.senders.find(device, id);
        self.in_vain.set(found.is_none());
        found
    }
}

/// The refusals name structures and codes, never a value.
fn plausible(content_type: ContentType, payload: &[u8]) -> Result<Vec<Reading>, Refusal> {
    let readings = match content_type {
        ContentType::SenmlCbor => senml::decode(payload),
        ContentType::Waveform => waveform::decode(payload),
    }
    .map_err(|cause| Refusal::new(QuarantineReason::Payload, cause.to_string()))?;
    check_hard(&readings)
        .map_err(|cause| Refusal::new(QuarantineReason::Implausible, cause.to_string()))?;
    Ok(readings)
}
