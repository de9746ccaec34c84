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
