//! A message cut down to what its device signed: evidence, with no way to the content key.

use std::fmt;

use super::body::Body;
use super::{Header, Rejection};
use crate::backend::Backend;
use crate::certificate::DeviceCertificate;
use crate::ids::Thumbprint;

/// What a device signed, and its signature, without any recipient.
///
/// ```text
/// 16([bstr protected, {5: iv, 11: countersignature}, bstr ciphertext])    COSE_Encrypt0 (RFC 9052 §5.2)
/// ```
///
/// Recipients are not signed, and a kept one would defeat an erasure, so evidence is kept without them. The countersigned
/// bytes are made of the two headers and the ciphertext alone (RFC 9338 §3.3), whichever COSE message they stand in, so
/// the device's countersignature verifies over this form as it does over the wire's.
#[derive(Clone)]
pub struct Signed(Body);

impl Signed {
    /// Reads a wire envelope, a stored one, or this form itself. Of the first two, what follows the ciphertext is
    /// neither signed nor looked at.
    ///
    /// # Errors
    /// [`Shape`](super::Rule::Shape) or [`Algorithm`](super::Rule::Algorithm), as for a wire envelope.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        // Both tags have one encoding: d8 60 for 96, and d0 for 16.
        if bytes.first() == Some(&0xd8) {
            let (with_recipients, _) = Body::read(bytes)?;
            Body::read_bare(&with_recipients.bare()).map(Self)
        } else {
            Body::read_bare(bytes).map(Self)
        }
    }

    /// The message without recipients.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The protected header, as signed.
    pub fn header(&self) -> &Header {
        self.0.header()
    }

    /// The certificate that the message says it was signed under.
    pub fn signer(&self) -> &Thumbprint {
        self.0.signer()
    }

    /// SHA-256 of the countersigned bytes: the same as the wire envelope's.
    pub fn signed_hash(&self, backend: &dyn Backend) -> [u8; 32] {
        self.0.countersigned().hash(backend)
    }

    /// Checks that `certificate` is the one named, belongs to the issuer, and signed this.
    ///
    /// # Errors
    /// [`Identity`](super::Rule::Identity) or [`Signature`](super::Rule::Signature).
    pub fn verify(
        &self,
        certificate: &DeviceCertificate,
        backend: &dyn Backend,
    ) -> Result<(), Rejection> {
        self.0.verify(certificate, backend)
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("message", &self.header().message_id())
            .finish_non_exhaustive()
    }
}
