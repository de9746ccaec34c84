//! Mutual TLS: the device shows its certificate and trusts its own authority only, no public one.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::{ClientConfig, RootCertStore};

use crate::DeviceIdentity;

/// Why the identity does not make a TLS client.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("reading a PEM text of the identity")]
    Pem(#[from] pem::Error),
    #[error("using the identity for TLS")]
    Rustls(#[from] rustls::Error),
}

/// The client's side of every connection.
///
/// The provider is named rather than taken from the process, where nobody may have installed one.
pub(super) fn client_config(identity: &DeviceIdentity) -> Result<Arc<ClientConfig>, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.authority_pem().as_bytes()) {
        authorities.add(certificate?)?;
    }
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem().as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes())?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}
