//! TLS for both front doors: one provider, TLS 1.2 and 1.3, server certificate from the store.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The certificates and the key of this server.
pub struct ServerPems<'a> {
    /// Server certificate, then the issuing CA's.
    pub chain: &'a str,
    /// Its private key, PKCS#8.
    pub key: &'a str,
    /// Issuing and root CA certificates.
    pub authorities: &'a str,
}

impl std::fmt::Debug for ServerPems<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerPems").finish_non_exhaustive()
    }
}

/// The MQTT edge: a client certificate from our CA is required in the handshake.
///
/// # Errors
/// A PEM cannot be read, or key and certificate do not belong together.
pub fn mutual(pems: &ServerPems<'_>) -> anyhow::Result<Arc<ServerConfig>> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pems.authorities)?), provider())
            .build()
            .context("building the client certificate verifier")?;
    finish(
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier),
        pems,
    )
}

/// The SQL door: the client authenticates inside TLS, with a token.
///
/// # Errors
/// As [`mutual`].
pub fn server(pems: &ServerPems<'_>) -> anyhow::Result<Arc<ServerConfig>> {
    finish(
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth(),
        pems,
    )
}

/// A client that trusts these authorities and has no certificate of its own.
///
/// # Errors
/// A PEM cannot be read.
pub fn client(authorities: &str) -> anyhow::Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authorities)?)
        .with_no_client_auth())
}

/// A device: trusts `authorities`, shows its own certificate.
///
/// # Errors
/// A PEM cannot be read, or key and certificate do not belong together.
pub fn device(authorities: &str, chain: &str, key: &str) -> anyhow::Result<ClientConfig> {
    let chain = certificates(chain).context("reading the device's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("reading the device's key")?;
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authorities)?)
        .with_client_auth_cert(chain, key)
        .context("pairing the device's certificate with its key")
}

fn finish(
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    pems: &ServerPems<'_>,
) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = certificates(pems.chain).context("reading the server certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pems.key.as_bytes())
        .context("reading the server certificate's key")?;
    let config = builder
        .with_single_cert(chain, key)
        .context("pairing the server certificate with its key")?;
    Ok(Arc::new(config))
}

fn roots(pem: &str) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem).context("reading the certificate authorities")? {
        store
            .add(certificate)
            .context("trusting a certificate authority")?;
    }
    Ok(store)
}

fn certificates(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
