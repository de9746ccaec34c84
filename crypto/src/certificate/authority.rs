//! Issuing.

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{CertificateError, DeviceCertificate};
use crate::backend::Backend;
use crate::ids::{DeviceId, KeyEpoch};
use crate::keys::RecipientKey;

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Placeholder.
    #[error("certificate")]
    Certificate(#[source] CertificateError),
}

/// The issuing authority.
pub struct CertificateAuthority {
    bundle: String,
}
impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").finish_non_exhaustive()
    }
}
impl CertificateAuthority {
    /// Root and issuing CA.
    ///
    /// # Errors
    /// rcgen.
    pub fn create(now: Timestamp) -> Result<NewAuthority, AuthorityError> {
        todo!()
    }
    /// Opens.
    ///
    /// # Errors
    /// Malformed.
    pub fn open(
        issuing_key_pem: &str,
        issuing_cert_pem: &str,
        root_cert_pem: &str,
    ) -> Result<Self, AuthorityError> {
        todo!()
    }
    /// Issuing and root: what clients trust.
    pub fn bundle_pem(&self) -> String {
        todo!()
    }
    /// The issuing certificate's DER.
    pub fn issuing_der(&self) -> &[u8] {
        todo!()
    }
    /// A device's certificate.
    ///
    /// # Errors
    /// Bad CSR.
    pub fn issue_device(
        &self,
        csr_pem: &str,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<IssuedCertificate, AuthorityError> {
        todo!()
    }
    /// A TLS server's certificate.
    ///
    /// # Errors
    /// Bad names.
    pub fn issue_server(
        &self,
        names: &[&str],
        now: Timestamp,
    ) -> Result<ServerIdentity, AuthorityError> {
        todo!()
    }
    /// An envelope key.
    ///
    /// # Errors
    /// rcgen.
    pub fn issue_recipient(
        &self,
        epoch: KeyEpoch,
        not_before: Timestamp,
        not_after: Timestamp,
        backend: &dyn Backend,
    ) -> Result<RecipientKey, AuthorityError> {
        todo!()
    }
}
/// A new authority.
pub struct NewAuthority {
    /// PKCS#8; to be kept offline.
    pub root_key_pem: Zeroizing<String>,
    /// The root.
    pub root_cert_pem: String,
    /// PKCS#8.
    pub issuing_key_pem: Zeroizing<String>,
    /// The issuing CA.
    pub issuing_cert_pem: String,
}
impl std::fmt::Debug for NewAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAuthority").finish_non_exhaustive()
    }
}
/// A device's new certificate.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// Leaf and issuing.
    pub pem: String,
    /// The leaf.
    pub certificate: DeviceCertificate,
}
/// A TLS server's key and chain.
pub struct ServerIdentity {
    /// Leaf and issuing.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
}
impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerIdentity").finish_non_exhaustive()
    }
}
/// A key for a new device, and its request: (key PEM, CSR PEM).
///
/// # Errors
/// rcgen.
pub fn new_device_key_and_csr(
    device: &DeviceId,
) -> Result<(Zeroizing<String>, String), AuthorityError> {
    todo!()
}
