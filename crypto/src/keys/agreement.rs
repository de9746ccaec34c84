//! P-256 keys, each with one duty.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use super::{KeyError, blank_debug};
use crate::backend::{
    Backend, BackendError, P256Point, P256Secret, default_backend, scalar_from_pkcs8,
};
use crate::certificate::{DeviceCertificate, RecipientCertificate};
use crate::ids::{DeviceId, Kid, Thumbprint};
use crate::pem;

/// The server's envelope key of one epoch: what devices seal for. When its epoch ends it is destroyed, or captured
/// traffic would outlive every erasure.
pub struct RecipientKey {
    kid: Kid,
    certificate: RecipientCertificate,
    key: P256Secret,
}

impl RecipientKey {
    pub(crate) fn from_parts(
        kid: Kid,
        certificate: RecipientCertificate,
        key: P256Secret,
    ) -> Result<Self, KeyError> {
        if key.public() != certificate.public_key() {
            return Err(KeyError::Mismatch);
        }
        Ok(Self {
            kid,
            certificate,
            key,
        })
    }

    /// Its identifier: the first 8 bytes of SHA-256 over its certificate's DER.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The certificate that devices check before they seal.
    pub fn certificate(&self) -> &RecipientCertificate {
        &self.certificate
    }

    pub(crate) fn key(&self) -> &P256Secret {
        &self.key
    }

    pub(crate) fn agree(
        &self,
        peer: &P256Point,
        backend: &dyn Backend,
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        backend.agree(&self.key, peer)
    }
}

/// A device's agreement key for one session of cheap messages. The device bounds the session; this counts its nonces.
pub struct SessionKey {
    key: P256Secret,
    nonce: AtomicU64,
    /// The last recipient and the secret shared with it: a session has one, until the server's epoch changes.
    shared: Mutex<Option<(P256Point, Zeroizing<[u8; 32]>)>>,
}

impl SessionKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        let key = backend.generate_p256()?;
        Ok(Self {
            key,
            nonce: AtomicU64::new(0),
            shared: Mutex::new(None),
        })
    }

    pub(crate) fn public(&self) -> &P256Point {
        self.key.public()
    }

    /// A party U nonce that was not used under this key before (RFC 9053 §5.2).
    pub(crate) fn next_nonce(&self) -> u64 {
        self.nonce.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn agree(
        &self,
        peer: &P256Point,
        backend: &dyn Backend,
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let mut shared = self
            .shared
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match shared.as_ref() {
            Some((with, secret)) if with == peer => Ok(secret.clone()),
            _ => {
                let secret = backend.agree(&self.key, peer)?;
                *shared = Some((*peer, secret.clone()));
                Ok(secret)
            }
        }
    }
}

/// A device's signing key, with the certificate that it signs under.
pub struct DeviceSigner {
    certificate: DeviceCertificate,
    key: P256Secret,
}

impl DeviceSigner {
    /// Reads a PKCS#8 private key, and the device's certificate: the first in `cert_pem`.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] for what is no P-256 key, [`KeyError::Certificate`] for what is no device
    /// certificate, [`KeyError::Mismatch`] when they do not belong together.
    pub fn from_pkcs8_pem(key_pem: &str, cert_pem: &str) -> Result<Self, KeyError> {
        let der = pem::first(key_pem, "PRIVATE KEY").ok_or(KeyError::Malformed)?;
        let scalar = scalar_from_pkcs8(&der).ok_or(KeyError::Malformed)?;
        let key = default_backend()
            .p256_from_scalar(&scalar)
            .map_err(|_| KeyError::Malformed)?;
        Self::from_parts(key, DeviceCertificate::from_pem(cert_pem)?)
    }

    pub(crate) fn from_parts(
        key: P256Secret,
        certificate: DeviceCertificate,
    ) -> Result<Self, KeyError> {
        if key.public() != certificate.public_key() {
            return Err(KeyError::Mismatch);
        }
        Ok(Self { certificate, key })
    }

    /// The device that signs.
    pub fn device(&self) -> &DeviceId {
        self.certificate.device()
    }

    /// The certificate that it signs under.
    pub fn certificate(&self) -> &DeviceCertificate {
        &self.certificate
    }

    /// That certificate's thumbprint, as countersignatures carry it.
    pub fn thumbprint(&self) -> &Thumbprint {
        self.certificate.thumbprint()
    }

    pub(crate) fn key(&self) -> &P256Secret {
        &self.key
    }
}

blank_debug! { RecipientKey SessionKey DeviceSigner }
