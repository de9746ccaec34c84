//! Sealing, on the device.

use jiff::Timestamp;

use crate::backend::{Backend, BackendError};
use crate::certificate::RecipientCertificate;
use crate::envelope::ContentType;
use crate::ids::{DeviceId, SubjectPseudonym};
use crate::keys::{DeviceSigner, SessionKey};

/// What the device says about a payload.
#[derive(Clone, Copy, Debug)]
pub struct SealRequest<'a> {
    /// What the payload is.
    pub content_type: ContentType,
    /// The sealing device; must be the signer's.
    pub device: &'a DeviceId,
    /// The person measured.
    pub subject: &'a SubjectPseudonym,
    /// When; carried in whole seconds.
    pub issued_at: Timestamp,
    /// The device's boot counter.
    pub boot: u64,
    /// The sequence within the boot.
    pub sequence: u64,
    /// The previous message's [`SealedMessage::signed_hash`], when messages are chained.
    pub previous: Option<[u8; 32]>,
}

/// How the content key reaches the server.
#[derive(Clone, Copy, Debug)]
pub enum Agreement<'a> {
    /// ECDH-ES+A256KW (-31).
    Ephemeral,
    /// ECDH-SS+A256KW (-34).
    Session(&'a SessionKey),
}

/// A sealed message and the hash that the next one may chain to.
#[derive(Clone, Debug)]
pub struct SealedMessage {
    /// The wire envelope.
    pub bytes: Vec<u8>,
    /// SHA-256 of the countersigned bytes.
    pub signed_hash: [u8; 32],
}

/// Why a payload could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The request names another device than the signer's certificate.
    #[error("the sealing device is not the one that the signer's certificate names")]
    ForeignDevice,
    /// A counter is above [`crate::MAX_COUNTER`] or the time is before 1970.
    #[error("a counter or the time does not fit the envelope")]
    OutOfRange,
    /// The envelope would exceed [`crate::MAX_ENVELOPE_BYTES`].
    #[error("the sealed payload would exceed the largest envelope; split it")]
    TooLarge,
    /// A primitive failed.
    #[error("sealing the payload")]
    Backend(#[source] BackendError),
}

/// Seals.
///
/// # Errors
/// See [`SealError`].
pub fn seal(
    request: &SealRequest<'_>,
    payload: &[u8],
    recipient: &RecipientCertificate,
    agreement: Agreement<'_>,
    signer: &DeviceSigner,
    backend: &dyn Backend,
) -> Result<SealedMessage, SealError> {
    todo!()
}
