//! Fourth stage: the content opens, is a payload that we know, and is physically possible.

use std::sync::Arc;

use jiff::Timestamp;
use vitalseal_crypto::{Backend, ContentType, PatientKeys, RecipientKeyRing, envelope};
use vitalseal_storage::{QuarantineReason, Senders};
use vitalseal_vitals::{Reading, check_hard, senml, waveform};

use super::quarantine::Refusal;
use super::verified::Verified;

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
    /// value is outside its hard range.
    pub(super) fn open(
        self,
        ring: &RecipientKeyRing,
        senders: &Senders,
        backend: &dyn Backend,
    ) -> Result<Opened, Refusal> {
        let header = self.envelope.header().clone();
        let envelope = self
            .envelope
            .open(ring, senders, backend)
            .map_err(|rejection| Refusal::from(rejection).about(&header))?;
        let readings = plausible(header.content_type, envelope.payload())
            .map_err(|refusal| refusal.about(&header))?;
        let first_at = readings.iter().map(|reading| reading.at).min();
        let last_at = readings.iter().map(|reading| reading.at).max();
        let count = u32::try_from(readings.len()).ok();
        let (Some(first_at), Some(last_at), Some(readings)) = (first_at, last_at, count) else {
            return Err(Refusal::new(QuarantineReason::Payload, "no readings").about(&header));
        };
        Ok(Opened {
            envelope,
            keys: self.keys,
            readings,
            first_at,
            last_at,
        })
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
