//! TLS of the server and of its peers, from PEM.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    rustls_pemfile::certs(&mut pem.as_bytes())
        .map(Result::unwrap)
        .collect()
}

fn private_key(pem: &str) -> PrivateKeyDer<'static> {
    rustls_pemfile::private_key(&mut pem.as_bytes())
        .unwrap()
        .unwrap()
}

fn roots(ca_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca_pem) {
        roots.add(authority).unwrap();
    }
    roots
}

/// TLS as the server sets it up: everybody is asked for a certificate of the authority; without one nobody comes in,
/// unless it is `optional`.
pub(crate) fn server_config(
    chain_pem: &str,
    key_pem: &str,
    ca_pem: &str,
    optional: bool,
) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)), Arc::clone(&provider));
    let verifier = match optional {
        true => verifier.allow_unauthenticated(),
        false => verifier,
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(certificates(chain_pem), private_key(key_pem))
        .unwrap();
    Arc::new(config)
}

pub(crate) fn client_config(chain_pem: &str, key_pem: &str, ca_pem: &str) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca_pem))
        .with_client_auth_cert(certificates(chain_pem), private_key(key_pem))
        .unwrap();
    Arc::new(config)
}

pub(crate) fn without_certificate(ca_pem: &str) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca_pem))
        .with_no_client_auth();
    Arc::new(config)
}
