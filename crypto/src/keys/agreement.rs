//! P-256 keys with a duty.

use std::fmt;

use super::KeyError;
use crate::backend::{Backend, P256Secret};
use crate::certificate::RecipientCertificate;
use crate::ids::{DeviceId, Kid, Thumbprint};

/// The server's envelope key of one epoch.
pub struct RecipientKey {
    certificate: RecipientCertificate,
    key: P256Secret,
}
impl RecipientKey {
    /// First 8 bytes of SHA-256 of its certificate.
    pub fn kid(&self) -> &Kid {
        self.certificate.kid()
    }
    /// Its certificate.
    pub fn certificate(&self) -> &RecipientCertificate {
        &self.certificate
    }
}
/// Recipient keys still held.
pub struct RecipientKeyRing {
    keys: Vec<RecipientKey>,
}
impl RecipientKeyRing {
    /// Of these keys.
    pub fn new(keys: Vec<RecipientKey>) -> Self {
        Self { keys }
    }
    /// Finds.
    pub fn find(&self, kid: &Kid) -> Option<&RecipientKey> {
        todo!()
    }
}
/// A device's sealing key for one session.
pub struct SessionKey(P256Secret);
impl SessionKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        todo!()
    }
}
/// The device's signing key.
pub struct DeviceSigner {
    device: DeviceId,
    thumbprint: Thumbprint,
    key: P256Secret,
}
impl DeviceSigner {
    /// Reads a PKCS#8 key and the certificate it belongs to (the first of `cert_pem`).
    ///
    /// # Errors
    /// Malformed, mismatch.
    pub fn from_pkcs8_pem(key_pem: &str, cert_pem: &str) -> Result<Self, KeyError> {
        todo!()
    }
    /// Its device.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }
    /// Its certificate's thumbprint.
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }
}
macro_rules! blank_debug {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
blank_debug! { RecipientKey RecipientKeyRing SessionKey DeviceSigner }
