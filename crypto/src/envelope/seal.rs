//! Sealing: what a device does.

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::body::write_signer;
use super::cbor::Writer;
use super::profile::{COUNTERSIGNATURE, IV, MAX_ENVELOPE_BYTES, TAG};
use super::sender::Sender;
use super::structures::{Countersigned, content_aad, key_thumbprint};
use super::{ContentType, Header, Received, Rejection};
use crate::backend::{Backend, BackendError};
use crate::certificate::RecipientCertificate;
use crate::ids::{DeviceId, SenderKeyId, SubjectPseudonym};
use crate::keys::{Dek, DeviceSigner, SessionKey};

/// What the device says about a payload. All of it is signed, and none of it is secret.
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
    /// The device's boot counter, never used before with another content under the same sequence.
    pub boot: u64,
    /// The sequence within the boot.
    pub sequence: u64,
    /// The previous message's [`SealedMessage::signed_hash`], when messages are chained.
    pub previous: Option<[u8; 32]>,
}

/// How the content key reaches the server.
#[derive(Clone, Copy, Debug)]
pub enum Agreement<'a> {
    /// ECDH-ES+A256KW (-31): a fresh key for every message, which must not be used twice (RFC 9053 §6.3).
    Ephemeral,
    /// ECDH-SS+A256KW (-34): one key for a bounded session, and a nonce for every message. The server agrees once.
    /// The key travels in full (`-2`).
    Session(&'a SessionKey),
    /// The same, and 41 bytes shorter: the key is only named (`-3`). For a server that acknowledged a message of this
    /// device that carried the key in full.
    NamedSession(&'a SessionKey),
}

/// A sealed message, and the hash that the next one may chain to.
#[derive(Debug)]
pub struct SealedMessage {
    /// The wire envelope.
    pub bytes: Vec<u8>,
    /// SHA-256 of the countersigned bytes.
    pub signed_hash: [u8; 32],
    /// The content key. It opens this message, and [`readdress`] needs it: whoever keeps it wraps it
    /// ([`OutboxKey`](crate::OutboxKey)), and everyone else drops it, which wipes it.
    pub content_key: Dek,
}

/// Why a payload could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The request names another device than the signer's certificate.
    #[error("the sealing device is not the one that the signer's certificate names")]
    ForeignDevice,
    /// A counter is above [`crate::MAX_COUNTER`], or the time is before 1970.
    #[error("a counter or the time does not fit the envelope")]
    OutOfRange,
    /// The envelope would exceed [`MAX_ENVELOPE_BYTES`].
    #[error("the sealed payload would exceed the largest envelope; split it")]
    TooLarge,
    /// What was to be addressed anew is not a wire envelope, or not one of this content key.
    #[error("addressing a sealed message anew")]
    Readdress(#[source] Rejection),
    /// A primitive failed.
    #[error("sealing the payload")]
    Backend(#[from] BackendError),
}

/// Seals a payload for the server and signs it.
///
/// The content key and the IV are drawn anew for every message.
///
/// # Errors
/// See [`SealError`].
///
/// # Security
/// The caller has checked the recipient's certificate against its authority and the present time
/// ([`RecipientCertificate::verify_issued_by`]).
pub fn seal(
    request: &SealRequest<'_>,
    payload: &[u8],
    recipient: &RecipientCertificate,
    agreement: Agreement<'_>,
    signer: &DeviceSigner,
    backend: &dyn Backend,
) -> Result<SealedMessage, SealError> {
    if request.device != signer.device() {
        return Err(SealError::ForeignDevice);
    }
    if payload.len() > MAX_ENVELOPE_BYTES {
        return Err(SealError::TooLarge);
    }
    let dek = Dek::generate(backend)?;
    let protected = header_of(request, key_thumbprint(&dek, backend))
        .encode()
        .ok_or(SealError::OutOfRange)?;

    let mut iv = [0; 12];
    backend.fill_random(&mut iv)?;
    let ciphertext = backend.seal(dek.bytes(), &iv, &content_aad(&protected), payload)?;

    let sign_protected = write_signer(signer.thumbprint());
    let countersigned = Countersigned::new(&protected, &sign_protected, &ciphertext);
    let signature = backend.sign(signer.key(), &countersigned.parts())?;
    let signed_hash = countersigned.hash(backend);

    let mut writer = Writer::default();
    writer.tag(TAG).array(4).bytes(&protected);
    writer.map(2).int(IV).bytes(&iv).int(COUNTERSIGNATURE);
    writer
        .array(3)
        .bytes(&sign_protected)
        .map(0)
        .bytes(&signature);
    writer.bytes(&ciphertext);
    address(&mut writer, &dek, recipient, agreement, backend)?;
    Ok(SealedMessage {
        bytes: bounded(writer)?,
        signed_hash,
        content_key: dek,
    })
}

/// Addresses a sealed message to another of the server's keys: what an outbox needs when the epoch that it sealed for
/// ended before it could send.
///
/// Only the recipients array is replaced: header, IV, countersignature and ciphertext stay bit for bit, so it is the
/// same message, with the same [signed hash](SealedMessage::signed_hash), and the server takes it once.
///
/// # Errors
/// [`SealError::Readdress`] when `wire` is not a wire envelope, or `content_key` is not the one that its header commits
/// to; [`SealError::TooLarge`]; [`SealError::Backend`].
///
/// # Security
/// As for [`seal`]: the caller has checked the recipient's certificate.
pub fn readdress(
    wire: &[u8],
    content_key: &Dek,
    recipient: &RecipientCertificate,
    agreement: Agreement<'_>,
    backend: &dyn Backend,
) -> Result<Vec<u8>, SealError> {
    let body = Received::decode(wire)
        .map_err(SealError::Readdress)?
        .into_body();
    body.check_commitment(content_key, backend)
        .map_err(SealError::Readdress)?;
    let mut writer = body.before_recipients();
    address(&mut writer, content_key, recipient, agreement, backend)?;
    bounded(writer)
}

/// Wraps the content key for the recipient, and writes the recipients array.
fn address(
    writer: &mut Writer,
    dek: &Dek,
    recipient: &RecipientCertificate,
    agreement: Agreement<'_>,
    backend: &dyn Backend,
) -> Result<(), BackendError> {
    let (secret, sender) = agree(agreement, recipient, backend)?;
    let wrapped = backend.wrap(&*sender.wrap_key(&secret, backend)?, dek.bytes())?;
    sender.write(writer, recipient.kid(), &wrapped);
    Ok(())
}

fn bounded(writer: Writer) -> Result<Vec<u8>, SealError> {
    let bytes = writer.into_bytes();
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return Err(SealError::TooLarge);
    }
    Ok(bytes)
}

fn header_of(request: &SealRequest<'_>, key_thumbprint: [u8; 32]) -> Header {
    Header {
        content_type: request.content_type,
        key_thumbprint,
        device: request.device.clone(),
        subject: request.subject.clone(),
        issued_at: request.issued_at,
        boot: request.boot,
        sequence: request.sequence,
        previous: request.previous,
    }
}

fn agree(
    agreement: Agreement<'_>,
    recipient: &RecipientCertificate,
    backend: &dyn Backend,
) -> Result<(Zeroizing<[u8; 32]>, Sender), BackendError> {
    let peer = recipient.public_key();
    match agreement {
        Agreement::Ephemeral => {
            let ephemeral = backend.generate_p256()?;
            Ok((
                backend.agree(&ephemeral, peer)?,
                Sender::Ephemeral(*ephemeral.public()),
            ))
        }
        Agreement::Session(session) => Ok((
            session.agree(peer, backend)?,
            Sender::Session(*session.public(), session.next_nonce()),
        )),
        Agreement::NamedSession(session) => Ok((
            session.agree(peer, backend)?,
            Sender::NamedSession(
                SenderKeyId::of(session.public(), backend),
                session.next_nonce(),
            ),
        )),
    }
}
