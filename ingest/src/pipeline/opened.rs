//! Fourth stage: the content opens, is a payload that we know, is physically possible, and of a time that the device
//! may speak of. What a review may waive comes last, so that it is never asked of what has another fault.

use std::cell::Cell;
use std::sync::Arc;

use jiff::Timestamp;
use vitalseal_crypto::{
    Backend, ContentType, DeviceId, Header, P256Point, PatientKeys, RecipientKeyRing, SenderKeyId,
    SenderKeys, envelope,
};
use vitalseal_storage::{Assignment, QuarantineReason, Senders};
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
    pub(super) measured: Measured,
}

/// What remains of the readings once they are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) readings: u32,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
}

impl Verified {
    /// Storage keeps the device's own bytes: of the readings, no more than [`Measured`] goes on from here.
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
        let measured = Measured::of(&header, envelope.payload(), &self.assignments, terms);
        Ok(Opened {
            measured: measured.map_err(refuse)?,
            envelope,
            keys: self.keys,
        })
    }
}

impl Measured {
    /// Judges a payload. The readings are decoded for that and counted, and dropped again.
    ///
    /// # Errors
    /// As [`Verified::open`], from `Payload` on.
    pub(super) fn of(
        header: &Header,
        payload: &[u8],
        assignments: &[Assignment],
        terms: &Terms,
    ) -> Result<Self, Refusal> {
        let readings = plausible(header.content_type, payload)?;
        let first_at = readings.iter().map(|reading| reading.at).min();
        let last_at = readings.iter().map(|reading| reading.at).max();
        let count = u32::try_from(readings.len()).ok();
        let (Some(first_at), Some(last_at), Some(readings)) = (first_at, last_at, count) else {
            return Err(Refusal::new(QuarantineReason::Payload, "no readings"));
        };
        terms.judge_issued(header, last_at)?;
        terms.judge_measured(assignments, &header.subject, first_at, last_at)?;
        Ok(Self {
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
