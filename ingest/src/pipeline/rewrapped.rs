//! Fifth stage: the content key is wrapped again, for the patient, and the plaintext is gone.

use vitalseal_crypto::{AtRest, Backend, MessageId, P256Point, SenderKeyId, SubjectPseudonym};

use super::Stop;
use super::opened::{Measured, Opened};

/// What goes into the inbox: the device's signed ciphertext, its key wrapped for the patient, and what a scan needs.
#[derive(Debug)]
pub(super) struct Rewrapped {
    pub(super) envelope: AtRest,
    pub(super) message: MessageId,
    pub(super) subject: SubjectPseudonym,
    pub(super) signed_hash: [u8; 32],
    pub(super) introduced: Option<(SenderKeyId, P256Point)>,
    pub(super) measured: Measured,
}

impl Opened {
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
            measured: self.measured,
        })
    }
}
