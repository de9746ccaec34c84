//! The certificate that devices seal for.

use std::fmt;

use jiff::Timestamp;

use super::parsed::{self, Leaf};
use super::{CertificateError, certificate_accessors};
use crate::backend::{Backend, P256Point, default_backend};
use crate::ids::Kid;
use crate::pem;

/// The certificate of the server's envelope key of one epoch: short-lived, and for key agreement only.
///
/// A device checks it against its authority before it seals. Whoever could pass a certificate of another kind here
/// would read what is sealed, so key usage must say `keyAgreement` and must not say `digitalSignature`.
#[derive(Clone, PartialEq, Eq)]
pub struct RecipientCertificate {
    leaf: Leaf,
    kid: Kid,
}

impl RecipientCertificate {
    /// Reads a certificate. This proves nothing about who issued it.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let leaf = Leaf::read(der, |may| {
            may.key_agreement == Some(true) && may.digital_signature == Some(false)
        })?;
        let hash = default_backend().sha256(&[der]);
        let kid = Kid::from_bytes(&hash[..8])
            .map_err(|_| CertificateError::Malformed("its hash names no key"))?;
        Ok(Self { leaf, kid })
    }

    /// The first 8 bytes of SHA-256 over the DER, as recipients carry it.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }
}

certificate_accessors! { RecipientCertificate }

impl fmt::Debug for RecipientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientCertificate")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}
