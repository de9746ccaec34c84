//! Certificates.

#[cfg(feature = "authority")]
pub mod authority;

use jiff::Timestamp;

use crate::backend::{Backend, P256Point};
use crate::ids::{DeviceId, Kid, Thumbprint};

/// Why a certificate was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not a certificate.
    #[error("the bytes are not a certificate of this profile: {0}")]
    Malformed(&'static str),
    /// Not signed by the issuer.
    #[error("the certificate was not issued by this authority")]
    ForeignIssuer,
    /// Not yet or no longer valid.
    #[error("the certificate is not valid at this time")]
    NotValidNow,
}

/// A device's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCertificate {
    device: DeviceId,
}
impl DeviceCertificate {
    /// From DER.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        todo!()
    }
    /// The first certificate of a PEM text.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        todo!()
    }
    /// The common name.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }
    /// SHA-256 of the DER.
    pub fn thumbprint(&self) -> &Thumbprint {
        todo!()
    }
    /// The signing key.
    pub fn public_key(&self) -> &P256Point {
        todo!()
    }
    /// Valid from.
    pub fn not_before(&self) -> Timestamp {
        todo!()
    }
    /// Valid to.
    pub fn not_after(&self) -> Timestamp {
        todo!()
    }
    /// DER.
    pub fn der(&self) -> &[u8] {
        todo!()
    }
    /// PEM.
    pub fn to_pem(&self) -> String {
        todo!()
    }
    /// Checks issuer and window.
    ///
    /// # Errors
    /// Foreign issuer, not valid now.
    pub fn verify_issued_by(
        &self,
        issuer_der: &[u8],
        now: Timestamp,
        backend: &dyn Backend,
    ) -> Result<(), CertificateError> {
        todo!()
    }
}

/// The server's envelope certificate of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientCertificate {
    kid: Kid,
}
impl RecipientCertificate {
    /// From DER.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        todo!()
    }
    /// The first certificate of a PEM text.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        todo!()
    }
    /// First 8 bytes of SHA-256 of the DER.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }
    /// The agreement key.
    pub fn public_key(&self) -> &P256Point {
        todo!()
    }
    /// Valid from.
    pub fn not_before(&self) -> Timestamp {
        todo!()
    }
    /// Valid to.
    pub fn not_after(&self) -> Timestamp {
        todo!()
    }
    /// DER.
    pub fn der(&self) -> &[u8] {
        todo!()
    }
    /// PEM.
    pub fn to_pem(&self) -> String {
        todo!()
    }
    /// Checks issuer and window.
    ///
    /// # Errors
    /// Foreign issuer, not valid now.
    pub fn verify_issued_by(
        &self,
        issuer_der: &[u8],
        now: Timestamp,
        backend: &dyn Backend,
    ) -> Result<(), CertificateError> {
        todo!()
    }
}

/// The DER of every certificate in a PEM bundle, in order.
///
/// # Errors
/// [`CertificateError::Malformed`] when there is none or one is damaged.
pub fn certificates_in_pem(pem: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    todo!()
}
