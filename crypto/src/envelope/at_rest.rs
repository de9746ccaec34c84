//! A message in storage: wrapped for its patient, still signed by its device.

use std::fmt;

use zeroize::Zeroizing;

use super::body::Body;
use super::recipient::PatientRecipient;
use super::{Header, Rejection, Rule};
use crate::backend::{Backend, BackendError};
use crate::certificate::DeviceCertificate;
use crate::ids::{Kid, Thumbprint};
use crate::keys::{Dek, Kek};

/// A message as it is stored. Anyone with the device's certificate can verify it; only the patient's KEK opens it.
#[derive(Clone)]
pub struct AtRest {
    body: Body,
    recipient: PatientRecipient,
}

impl AtRest {
    pub(super) fn wrap(
        body: &Body,
        dek: &Dek,
        kek: &Kek,
        backend: &dyn Backend,
    ) -> Result<Self, BackendError> {
        let wrapped = kek.wrap(dek, backend)?;
        let recipient = PatientRecipient {
            kid: kek.kid().clone(),
            wrapped,
        };
        let body = body.with_recipients(|writer| recipient.write(writer));
        Ok(Self { body, recipient })
    }

    /// Reads a stored envelope.
    ///
    /// # Errors
    /// [`Shape`](Rule::Shape) or [`Algorithm`](Rule::Algorithm), as for a wire envelope.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        let (body, mut reader) = Body::read(bytes)?;
        let recipient = PatientRecipient::read(&mut reader)?;
        reader.end()?;
        Ok(Self { body, recipient })
    }

    /// The envelope's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.body.as_bytes()
    }

    /// The envelope's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.body.into_bytes()
    }

    /// The protected header, as signed.
    pub fn header(&self) -> &Header {
        self.body.header()
    }

    /// The patient's KEK that the message is wrapped under.
    pub fn kek_kid(&self) -> &Kid {
        &self.recipient.kid
    }

    /// The certificate that the message was signed under.
    pub fn signer(&self) -> &Thumbprint {
        self.body.signer()
    }

    /// SHA-256 of the countersigned bytes: the same as the wire envelope's.
    pub fn signed_hash(&self, backend: &dyn Backend) -> [u8; 32] {
        self.body.countersigned().hash(backend)
    }

    /// Checks the device's signature, without any decryption key.
    ///
    /// # Errors
    /// [`Identity`](Rule::Identity) or [`Signature`](Rule::Signature).
    pub fn verify(
        &self,
        certificate: &DeviceCertificate,
        backend: &dyn Backend,
    ) -> Result<(), Rejection> {
        self.body.verify(certificate, backend)
    }

    /// Opens the payload under the patient's KEK. It does not verify the signature: that is for evidence, and was
    /// done before the message was stored.
    ///
    /// # Errors
    /// [`UnknownKey`](Rule::UnknownKey) when `kek` is another one, [`Unwrap`](Rule::Unwrap),
    /// [`Commitment`](Rule::Commitment) or [`Open`](Rule::Open).
    pub fn open(&self, kek: &Kek, backend: &dyn Backend) -> Result<Zeroizing<Vec<u8>>, Rejection> {
        if *kek.kid() != self.recipient.kid {
            return Err(Rejection::new(
                Rule::UnknownKey,
                "wrapped under another patient key",
            ));
        }
        let dek = kek
            .unwrap(&self.recipient.wrapped, backend)
            .map_err(|_| Rejection::new(Rule::Unwrap, "the content key does not unwrap"))?;
        self.body.open(&dek, backend)
    }
}

impl fmt::Debug for AtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtRest")
            .field("message", &self.header().message_id())
            .finish_non_exhaustive()
    }
}
