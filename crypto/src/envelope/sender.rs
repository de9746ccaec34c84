//! Whose key agreed with the recipient's: one made for the message, or a session's, carried or named.
//!
//! ```text
//! es  {4: kid, -1: ec2}                               a fresh ephemeral key
//! ss  {4: kid, -2: ec2, -22: uint}                    a session's key in full, and the message's nonce
//! ss  {4: kid, -3: bstr .size 32, -22: uint}          the same key by its thumbprint, once it was sent in full
//! ec2 = {1: 2, -1: 1, -2: x, -3: y}                   P-256, uncompressed
//! ```
//!
//! What never stands here: how long named keys are remembered, and where.

use zeroize::Zeroizing;

use super::cbor::{Reader, Writer};
use super::profile::{
    CRV_P256, EC2_CRV, EC2_X, EC2_Y, EPHEMERAL_KEY, KID, KTY, KTY_EC2, PARTY_U_NONCE, STATIC_KEY,
    STATIC_KEY_ID,
};
use super::structures::kdf_info;
use super::{Rejection, Rule};
use crate::backend::{Backend, BackendError, P256Point};
use crate::ids::{DeviceId, Kid, SenderKeyId};

/// The protected headers of the two agreements. Nothing else is accepted, so these *are* the received bytes.
pub(super) const ES_PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x1e];
pub(super) const SS_PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x21];

/// The session keys that devices sent in full, for messages that only name one.
///
/// An implementation remembers what [`Opened::introduced_sender`](super::Opened::introduced_sender) hands out, and for
/// that device alone. The answer is checked against the thumbprint, so a mistaken one is refused and not used.
pub trait SenderKeys {
    /// The key of this thumbprint that this device sent before.
    fn find(&self, device: &DeviceId, id: &SenderKeyId) -> Option<P256Point>;
}

/// Remembers nothing: every message must carry its sender's key.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSenderKeys;

impl SenderKeys for NoSenderKeys {
    fn find(&self, _: &DeviceId, _: &SenderKeyId) -> Option<P256Point> {
        None
    }
}

impl SenderKeyId {
    /// The COSE Key Thumbprint (RFC 9679 §3) of an EC2 key: SHA-256 of `{1: 2, -1: 1, -2: x, -3: y}`.
    pub fn of(key: &P256Point, backend: &dyn Backend) -> Self {
        let mut encoded = Writer::default();
        write_point(&mut encoded, key);
        Self::from_bytes(backend.sha256(&[&encoded.into_bytes()]))
    }
}

/// The sender's part of a wire recipient.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    /// `es`: a key made for this message.
    Ephemeral(P256Point),
    /// `ss`, `-2`: a session's key, and the nonce that makes this message's wrap key its own.
    Session(P256Point, u64),
    /// `ss`, `-3`: a session's key by its thumbprint, and the nonce.
    NamedSession(SenderKeyId, u64),
}

impl Sender {
    fn protected(&self) -> &'static [u8] {
        match self {
            Self::Ephemeral(_) => ES_PROTECTED,
            Self::Session(..) | Self::NamedSession(..) => SS_PROTECTED,
        }
    }

    /// The key itself; a named one is looked up among what the device sent before.
    pub(super) fn key(
        &self,
        device: &DeviceId,
        senders: &dyn SenderKeys,
        backend: &dyn Backend,
    ) -> Result<P256Point, Rejection> {
        match self {
            Self::Ephemeral(key) | Self::Session(key, _) => Ok(*key),
            Self::NamedSession(id, _) => senders
                .find(device, id)
                .filter(|found| SenderKeyId::of(found, backend) == *id)
                .ok_or(Rejection::new(
                    Rule::UnknownKey,
                    "the sender's key is only named, and this device sent no such key before",
                )),
        }
    }

    /// The key that wraps the content key: HKDF over the shared secret, without salt (RFC 9053 §6.4).
    pub(super) fn wrap_key(
        &self,
        secret: &[u8; 32],
        backend: &dyn Backend,
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let nonce = match self {
            Self::Ephemeral(_) => None,
            Self::Session(_, nonce) | Self::NamedSession(_, nonce) => Some(*nonce),
        };
        backend.hkdf_sha256(b"", secret, &kdf_info(nonce, self.protected()))
    }

    /// The encoded recipients array for a key that was wrapped under [`Sender::wrap_key`].
    pub(super) fn write(&self, writer: &mut Writer, kid: &Kid, wrapped: &[u8; 40]) {
        writer.array(1).array(3).bytes(self.protected());
        match self {
            Self::Ephemeral(key) => {
                writer.map(2).int(KID).bytes(kid.as_bytes());
                write_point(writer.int(EPHEMERAL_KEY), key);
            }
            Self::Session(key, nonce) => {
                writer.map(3).int(KID).bytes(kid.as_bytes());
                write_point(writer.int(STATIC_KEY), key);
                writer.int(PARTY_U_NONCE).uint(*nonce);
            }
            Self::NamedSession(id, nonce) => {
                writer.map(3).int(KID).bytes(kid.as_bytes());
                writer.int(STATIC_KEY_ID).bytes(id.as_bytes());
                writer.int(PARTY_U_NONCE).uint(*nonce);
            }
        }
        writer.bytes(wrapped);
    }
}

pub(super) fn read_point(reader: &mut Reader<'_>) -> Result<P256Point, Rejection> {
    let (mut kty, mut crv, mut x, mut y) = (None, None, None, None);
    let mut labels = reader.map()?;
    while let Some(label) = labels.next(reader)? {
        match label {
            KTY => kty = Some(reader.int()?),
            EC2_CRV => crv = Some(reader.int()?),
            EC2_X => x = Some(reader.fixed()?),
            EC2_Y => y = Some(reader.fixed()?),
            _ => return Err(Rejection::shape("a key has a foreign label")),
        }
    }
    match (kty, crv, x, y) {
        (Some(KTY_EC2), Some(CRV_P256), Some(x), Some(y)) => Ok(P256Point::from_coordinates(x, y)),
        _ => Err(Rejection::shape("a key is not an uncompressed P-256 point")),
    }
}

fn write_point(writer: &mut Writer, point: &P256Point) {
    writer
        .map(4)
        .int(KTY)
        .int(KTY_EC2)
        .int(EC2_CRV)
        .int(CRV_P256);
    writer
        .int(EC2_X)
        .bytes(point.x())
        .int(EC2_Y)
        .bytes(point.y());
}
