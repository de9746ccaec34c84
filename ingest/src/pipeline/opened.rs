//! Fourth stage: the content opens, is a payload that we know, and is physically possible. Then the content key is
//! wrapped again, for the patient, and the plaintext is gone.

use std::sync::Arc;

use jiff::Timestamp;
use vitalseal_crypto::{
    AtRest, Backend, ContentType, MessageId, Opened, P256Point, PatientKeys, RecipientKeyRing,
    SenderKeyId, SubjectPseudonym,
};
use vitalseal_storage::{QuarantineReason, Senders};
use vitalseal_vitals::{Reading, check_hard, senml, waveform};

use super::Stop;
use super::quarantine::Refusal;
use super::verified::Proven;

/// An opened envelope: the plaintext is in memory from here to [`Checked::rewrap`].
#[derive(Debug)]
pub(super) struct Unsealed {
    envelope: Opened,
    keys: Arc<PatientKeys>,
}

/// An opened envelope whose payload is understood and plausible.
#[derive(Debug)]
pub(super) struct Checked {
    envelope: Opened,
    keys: Arc<PatientKeys>,
    readings: u32,
    first_at: Timestamp,
    last_at: Timestamp,
}

/// What goes into the inbox: the device's signed ciphertext, its key wrapped for the patient, and what a scan needs.
#[derive(Debug)]
pub(super) struct Rewrapped {
    pub(super) envelope: AtRest,
    pub(super) message: MessageId,
    pub(super) subject: SubjectPseudonym,
    pub(super) signed_hash: [u8; 32],
    pub(super) introduced: Option<(SenderKeyId, P256Point)>,
    pub(super) readings: u32,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
}

impl Proven {
    /// # Errors
    /// `UnknownKey`, `Unwrap`, `Commitment`, `Open`.
    pub(super) fn open(
        self,
        ring: &RecipientKeyRing,
        senders: &Senders,
        backend: &dyn Backend,
    ) -> Result<Unsealed, Refusal> {
        let header = self.envelope.header().clone();
        match self.envelope.open(ring, senders, backend) {
            Ok(envelope) => Ok(Unsealed {
                envelope,
                keys: self.keys,
            }),
            Err(rejection) => Err(Refusal::from(rejection).about(&header)),
        }
    }
}

impl Unsealed {
    /// The readings are decoded to be judged and counted, and dropped again: storage keeps the device's own bytes.
    ///
    /// # Errors
    /// `Payload` when it does not decode or is empty, `Implausible` when a value is outside its hard range.
    pub(super) fn check(self) -> Result<Checked, Refusal> {
        let header = self.envelope.header();
        let readings: Vec<Reading> = match header.content_type {
            ContentType::SenmlCbor => senml::decode(self.envelope.payload()),
            ContentType::Waveform => waveform::decode(self.envelope.payload()),
        }
        // The decoder's text is about structure, never about a value.
        .map_err(|cause| {
            Refusal::new(QuarantineReason::Payload, cause.to_string()).about(header)
        })?;
        check_hard(&readings).map_err(|cause| {
            Refusal::new(QuarantineReason::Implausible, cause.to_string()).about(header)
        })?;
        let first_at = readings.iter().map(|reading| reading.at).min();
        let last_at = readings.iter().map(|reading| reading.at).max();
        let count = u32::try_from(readings.len()).ok();
        let (Some(first_at), Some(last_at), Some(readings)) = (first_at, last_at, count) else {
            return Err(Refusal::new(QuarantineReason::Payload, "no readings").about(header));
        };
        Ok(Checked {
            envelope: self.envelope,
            keys: self.keys,
            readings,
            first_at,
            last_at,
        })
    }
}

impl Checked {
    /// # Errors
    /// When the primitives fail: not the message's fault.
    pub(super) fn rewrap(self, backend: &dyn Backend) -> Result<Rewrapped, Stop> {
        let header = self.envelope.header();
        Ok(Rewrapped {
            envelope: self.envelope.rewrap(self.keys.current(), backend)?,
            message: header.message_id(),
            subject: header.subject.clone(),
            signed_hash: *self.envelope.signed_hash(),
            introduced: self.envelope.introduced_sender(),
            readings: self.readings,
            first_at: self.first_at,
            last_at: self.last_at,
        })
    }
}
