//! The protected header: what the device's signature binds to the readings.

use jiff::Timestamp;

use crate::ids::{DeviceId, MessageId, SubjectPseudonym};

/// What the sealed bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// SenML in CBOR (RFC 8428), `CoAP` content format 112.
    SenmlCbor,
    /// Sampled waveforms, `application/vnd.vitalseal.waveform+cbor`.
    Waveform,
}

/// The protected header of an envelope. It is public to whoever holds the envelope, and signed by the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the sealed bytes are.
    pub content_type: ContentType,
    /// SHA-256 thumbprint of the content key as a `COSE_Key` (RFC 9679): the key commitment.
    pub key_thumbprint: [u8; 32],
    /// The device that signed (`iss`).
    pub device: DeviceId,
    /// The person measured (`sub`).
    pub subject: SubjectPseudonym,
    /// When the device sealed, in whole seconds (`iat`).
    pub issued_at: Timestamp,
    /// The device's boot counter.
    pub boot: u64,
    /// The message's sequence within the boot.
    pub sequence: u64,
    /// The signed hash of the device's previous message, when it chains them.
    pub previous: Option<[u8; 32]>,
}

impl Header {
    /// The name of this message.
    pub fn message_id(&self) -> MessageId {
        MessageId { device: self.device.clone(), boot: self.boot, sequence: self.sequence }
    }
}
