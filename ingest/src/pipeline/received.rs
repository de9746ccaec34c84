//! First stage: the bytes are an envelope, and the device that speaks is the one that signed, or says so.

use bytes::Bytes;
use vitalseal_crypto::{DeviceId, MAX_ENVELOPE_BYTES, envelope};
use vitalseal_storage::QuarantineReason;

use super::quarantine::Refusal;

/// A well-formed envelope whose issuer is the session's device. Nothing in it is proven yet.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) envelope: envelope::Received,
}

impl Received {
    /// # Errors
    /// `TooLarge`, `Shape`, `Algorithm`; `Identity` when the issuer is another device: a stolen outbox, or a message
    /// relayed through a foreign session.
    pub(super) fn decode(session: &DeviceId, body: &Bytes) -> Result<Self, Refusal> {
        if body.len() > MAX_ENVELOPE_BYTES {
            return Err(Refusal::new(
                QuarantineReason::TooLarge,
                "larger than an envelope may be",
            ));
        }
        let envelope = envelope::Received::decode(body).map_err(Refusal::from)?;
        if envelope.header().device != *session {
            return Err(Refusal::new(
                QuarantineReason::Identity,
                "issuer is not the device that the connection proved to be",
            )
            .about(envelope.header()));
        }
        Ok(Self { envelope })
    }
}
