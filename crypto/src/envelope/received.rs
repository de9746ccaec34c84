//! A message on its way in: received, verified, opened.
//!
//! Each step consumes the one before, so that nothing can be opened that was not verified, and each type is the
//! proof of its step. None of them has a public constructor but [`Received::decode`].

use std::fmt;

use zeroize::Zeroizing;

use super::at_rest::AtRest;
use super::body::Body;
use super::recipient::WireRecipient;
use super::{Header, Rejection, SenderKeys};
use crate::backend::{Backend, BackendError, P256Point};
use crate::certificate::DeviceCertificate;
use crate::ids::{Kid, SenderKeyId, Thumbprint};
use crate::keys::{Dek, Kek, RecipientKeyRing};

/// A message whose bytes have the profile's shape and algorithms. Nothing in it is proven yet.
pub struct Received {
    body: Body,
    recipient: WireRecipient,
}

impl Received {
    /// Reads a wire envelope.
    ///
    /// # Errors
    /// [`Shape`](super::Rule::Shape) for anything but the deterministic encoding of the profile, and
    /// [`Algorithm`](super::Rule::Algorithm) for an algorithm outside the allow-list.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        let (body, mut reader) = Body::read(bytes)?;
        let recipient = WireRecipient::read(&mut reader)?;
        reader.end()?;
        Ok(Self { body, recipient })
    }

    /// The protected header, as claimed.
    pub fn header(&self) -> &Header {
        self.body.header()
    }

    /// The certificate that the message says it was signed under.
    pub fn signer(&self) -> &Thumbprint {
        self.body.signer()
    }

    /// The server key that the message is sealed for.
    pub fn recipient_kid(&self) -> &Kid {
        self.recipient.kid()
    }

    /// SHA-256 of the countersigned bytes: equal for a replay, different for a fork, and the link of a chain.
    pub fn signed_hash(&self, backend: &dyn Backend) -> [u8; 32] {
        self.body.countersigned().hash(backend)
    }

    pub(super) fn into_body(self) -> Body {
        self.body
    }

    /// Checks that `certificate` is the one named, belongs to the issuer, and signed these bytes.
    ///
    /// # Errors
    /// [`Identity`](super::Rule::Identity) or [`Signature`](super::Rule::Signature).
    ///
    /// # Security
    /// The caller vouches for the certificate: enrolled, and not revoked at the time that counts.
    pub fn verify(
        self,
        certificate: &DeviceCertificate,
        backend: &dyn Backend,
    ) -> Result<Verified, Rejection> {
        self.body.verify(certificate, backend)?;
        let signed_hash = self.signed_hash(backend);
        Ok(Verified {
            received: self,
            signed_hash,
        })
    }
}

/// A message that its device signed.
///
/// It comes from [`Received::verify`] and from nowhere else:
///
/// ```compile_fail,E0451
/// # use vitalseal_crypto::{Received, Verified};
/// fn trust_me(received: Received) -> Verified {
///     Verified { received, signed_hash: [0; 32] }
/// }
/// ```
///
/// What was not verified cannot be opened:
///
/// ```compile_fail,E0599
/// # use vitalseal_crypto::{Backend, NoSenderKeys, Received, RecipientKeyRing};
/// fn read(received: Received, ring: &RecipientKeyRing, backend: &dyn Backend) {
///     let _ = received.open(ring, &NoSenderKeys, backend);
/// }
/// ```
pub struct Verified {
    received: Received,
    signed_hash: [u8; 32],
}

impl Verified {
    /// The protected header, as signed.
    pub fn header(&self) -> &Header {
        self.received.header()
    }

    /// SHA-256 of the countersigned bytes.
    pub fn signed_hash(&self) -> &[u8; 32] {
        &self.signed_hash
    }

    /// Unwraps the content key, checks it against the device's commitment, and opens the payload. A sender key that
    /// the message only names is asked of `senders`.
    ///
    /// # Errors
    /// [`UnknownKey`](super::Rule::UnknownKey), [`Unwrap`](super::Rule::Unwrap),
    /// [`Commitment`](super::Rule::Commitment) or [`Open`](super::Rule::Open).
    pub fn open(
        self,
        keys: &RecipientKeyRing,
        senders: &dyn SenderKeys,
        backend: &dyn Backend,
    ) -> Result<Opened, Rejection> {
        let Received { body, recipient } = self.received;
        let dek = recipient.unwrap(&body.header().device, keys, senders, backend)?;
        let payload = body.open(&dek, backend)?;
        let introduced = recipient
            .carried_session()
            .map(|key| (SenderKeyId::of(key, backend), *key));
        Ok(Opened {
            body,
            dek,
            payload,
            introduced,
            signed_hash: self.signed_hash,
        })
    }
}

/// A verified message with its payload in the clear. The payload and the content key are wiped on drop.
///
/// It comes from [`Verified::open`] and from nowhere else, so neither a payload nor a stored form can be had of a
/// message that was not verified:
///
/// ```compile_fail,E0451
/// # use vitalseal_crypto::Opened;
/// fn forge(honest: Opened, payload: Vec<u8>) -> Opened {
///     Opened { payload: payload.into(), ..honest }
/// }
/// ```
///
/// ```compile_fail,E0599
/// # use vitalseal_crypto::{Backend, Kek, Verified};
/// fn store(verified: Verified, kek: &Kek, backend: &dyn Backend) {
///     let _ = verified.rewrap(kek, backend);
/// }
/// ```
pub struct Opened {
    body: Body,
    dek: Dek,
    payload: Zeroizing<Vec<u8>>,
    introduced: Option<(SenderKeyId, P256Point)>,
    signed_hash: [u8; 32],
}

impl Opened {
    /// The protected header, as signed.
    pub fn header(&self) -> &Header {
        self.body.header()
    }

    /// SHA-256 of the countersigned bytes.
    pub fn signed_hash(&self) -> &[u8; 32] {
        &self.signed_hash
    }

    /// The payload in the clear: never to be logged or written down.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The session key that the message carried in full (`-2`), and the name that later ones may give it (`-3`).
    ///
    /// Recipients are not signed, but this key unwrapped the content key that the device committed to and signed:
    /// whoever put it there knew that content key. So it may be remembered for the device, and only now.
    pub fn introduced_sender(&self) -> Option<(SenderKeyId, P256Point)> {
        self.introduced
    }

    /// Wraps the content key for the patient. Only the recipients array is replaced: header, IV, countersignature
    /// and ciphertext stay bit for bit, so the device's signature keeps verifying on what is stored.
    ///
    /// # Errors
    /// Only when the backend fails inside.
    pub fn rewrap(&self, kek: &Kek, backend: &dyn Backend) -> Result<AtRest, BackendError> {
        AtRest::wrap(&self.body, &self.dek, kek, backend)
    }
}

/// Names the message and nothing else of it.
macro_rules! debug_by_name {
    ($($step:ident)*) => {$(
        impl fmt::Debug for $step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($step))
                    .field("message", &self.header().message_id())
                    .finish_non_exhaustive()
            }
        }
    )*};
}

debug_by_name! { Received Verified Opened }
