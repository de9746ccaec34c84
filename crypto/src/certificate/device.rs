//! The certificate that a device signs under.

use std::fmt;

use jiff::Timestamp;

use super::parsed::{self, Leaf};
use super::{CertificateError, certificate_accessors};
use crate::backend::{Backend, P256Point, default_backend};
use crate::ids::{DeviceId, Thumbprint};
use crate::pem;

/// A device's certificate. Its common name is the device id, and nothing else in it is.
///
/// Key usage, where it stands, must include `digitalSignature`, and extended key usage `clientAuth`.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceCertificate {
    leaf: Leaf,
    device: DeviceId,
    thumbprint: Thumbprint,
}

impl DeviceCertificate {
    /// Reads a certificate. This proves nothing about who issued it.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let leaf = Leaf::read(der, |may| {
            may.digital_signature.unwrap_or(true) && may.client_auth.unwrap_or(true)
        })?;
        let device = leaf
            .common_name
            .parse()
            .map_err(|_| CertificateError::Malformed("its common name is no device id"))?;
        let thumbprint = Thumbprint::from_bytes(default_backend().sha256(&[der]));
        Ok(Self {
            leaf,
            device,
            thumbprint,
        })
    }

    /// The device: the certificate's common name.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// SHA-256 of the DER, as countersignatures carry it.
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// Checks that this certificate leads up to an authority of `trusted`: issued by it, or by one of `shown` that was
    /// issued by it in turn. Every certificate on the way must be valid at `at`. Those that were only shown, beside the
    /// device's own as a rule, prove nothing by themselves. All are DER.
    ///
    /// # Errors
    /// [`CertificateError::NotValidNow`] when it leads there, but not at that time;
    /// [`CertificateError::ForeignIssuer`] when it does not.
    pub fn verify_chain(
        &self,
        trusted: &[&[u8]],
        shown: &[&[u8]],
        at: Timestamp,
        backend: &dyn Backend,
    ) -> Result<(), CertificateError> {
        let issued = |der: &[u8], issuer: &[u8]| parsed::verify_issued_by(der, issuer, at, backend);
        let mut expired = false;
        let mut holds = |link: Result<(), CertificateError>| {
            expired |= link == Err(CertificateError::NotValidNow);
            link.is_ok()
        };
        let leaf = self.der();
        let leads_up = trusted.iter().any(|top| holds(issued(leaf, top)))
            || shown.iter().any(|between| {
                holds(issued(leaf, between))
                    && trusted.iter().any(|top| holds(issued(between, top)))
            });
        match (leads_up, expired) {
            (true, _) => Ok(()),
            (false, true) => Err(CertificateError::NotValidNow),
            (false, false) => Err(CertificateError::ForeignIssuer),
        }
    }
}

certificate_accessors! { DeviceCertificate }

impl fmt::Debug for DeviceCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCertificate")
            .field("device", &self.device)
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}
