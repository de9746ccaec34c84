//! TLS for all doors: one provider, TLS 1.2 and 1.3, one server certificate that is replaced while they are open.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use vitalseal_crypto::{RevocationList, ServerIdentity};

/// What the doors show of this server. A new one is for the connections to come; those that stand go on.
pub struct ServerCertificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    /// Shows `first`, as [`certified`] makes it.
    #[must_use]
    pub fn new(first: Arc<CertifiedKey>) -> Self {
        Self {
            current: RwLock::new(first),
        }
    }

    /// Shows `next` from now on.
    pub fn show(&self, next: Arc<CertifiedKey>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

/// A certificate and its key, found to belong together.
///
/// # Errors
/// A PEM cannot be read, or they do not.
pub fn certified(identity: &ServerIdentity) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = certificates(&identity.chain_pem).context("reading the server certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .context("reading the server certificate's key")?;
    let certified = CertifiedKey::from_der(chain, key, &provider())
        .context("pairing the server certificate with its key")?;
    Ok(Arc::new(certified))
}

/// The MQTT edge: a client certificate of `authorities` is required in the handshake, and refused when it stands in the
/// list. Each list makes a configuration of its own, which resumes no TLS session of the one before: a revoked device
/// cannot come back by one.
///
/// A list that ran out is believed all the same. It still names everybody that it named; whoever was revoked since is
/// refused at CONNECT, where the registry is asked. Refusing every device because a list could not be signed for a week
/// would harm patients and keep out nobody else. That it runs out is told days before, in the log and as an alert.
///
/// # Errors
/// The certificates or the list cannot be read.
pub fn mutual(
    certificate: &Arc<ServerCertificate>,
    authorities: &str,
    list: &RevocationList,
) -> anyhow::Result<Arc<ServerConfig>> {
    asking(certificate, authorities, list, true)
}

/// MQTT over WebSocket: as [`mutual`], but a client may show no certificate, and then says inside TLS who it is.
///
/// # Errors
/// As [`mutual`].
pub fn optional(
    certificate: &Arc<ServerCertificate>,
    authorities: &str,
    list: &RevocationList,
) -> anyhow::Result<Arc<ServerConfig>> {
    asking(certificate, authorities, list, false)
}

fn asking(
    certificate: &Arc<ServerCertificate>,
    authorities: &str,
    list: &RevocationList,
    required: bool,
) -> anyhow::Result<Arc<ServerConfig>> {
    let list = CertificateRevocationListDer::from(list.der().to_vec());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider())
            .with_crls([list])
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    let verifier = match required {
        true => verifier,
        false => verifier.allow_unauthenticated(),
    };
    let verifier = verifier
        .build()
        .context("building the client certificate verifier")?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(certificate) as _);
    Ok(Arc::new(config))
}

/// A door whose clients authenticate inside TLS.
///
/// # Errors
/// The provider does not speak these versions.
pub fn server(certificate: &Arc<ServerCertificate>) -> anyhow::Result<Arc<ServerConfig>> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificate) as _);
    Ok(Arc::new(config))
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
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    anyhow::ensure!(!certificates.is_empty(), "there is no certificate in it");
    Ok(certificates)
}

/// Libraries that are not told which cryptography to use take this: the S3 client.
pub(crate) fn install_provider() {
    // Refused when there is one already, and then it is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use rustls::pki_types::ServerName;
    use rustls::{AlertDescription, ClientConnection, Error, HandshakeKind, ServerConnection};
    use vitalseal_crypto::{
        CertificateAuthority, DeviceId, RevocationReason, RevokedCertificate,
        new_device_key_and_csr,
    };
    use vitalseal_storage::ports::{Clock as _, SystemClock};

    use super::*;

    struct Site {
        authority: CertificateAuthority,
        certificate: Arc<ServerCertificate>,
        now: Timestamp,
    }

    impl Site {
        fn new() -> Self {
            let now = SystemClock.now();
            let new = CertificateAuthority::create(now).unwrap();
            let (key, issuing, root) = (
                &new.issuing_key_pem,
                &new.issuing_cert_pem,
                &new.root_cert_pem,
            );
            let authority = CertificateAuthority::open(key, issuing, root).unwrap();
            let first = authority.issue_server(&["localhost"], now).unwrap();
            Self {
                authority,
                certificate: Arc::new(ServerCertificate::new(certified(&first).unwrap())),
                now,
            }
        }

        /// A device, and what a list that names it holds.
        fn device(&self) -> (Arc<ClientConfig>, RevokedCertificate) {
            let id: DeviceId = "monitor-1".parse().unwrap();
            let (key, csr) = new_device_key_and_csr(&id).unwrap();
            let issued = self.authority.issue_device(&csr, &id, self.now).unwrap();
            let client = device(&self.authority.bundle_pem(), &issued.pem, &key).unwrap();
            let revoked = RevokedCertificate {
                serial: issued.certificate.serial().into(),
                at: self.now,
                reason: RevocationReason::Revoked,
            };
            (Arc::new(client), revoked)
        }

        /// The edge, with a list of so many days ago.
        fn edge(&self, revoked: &[RevokedCertificate], days: i64) -> Arc<ServerConfig> {
            let then = self.now - SignedDuration::from_hours(24 * days);
            let list = self.authority.revocation_list(revoked, 1, then).unwrap();
            mutual(&self.certificate, &self.authority.bundle_pem(), &list).unwrap()
        }
    }

    /// Both sides without a socket; what the server found, and the certificate that the client saw.
    fn handshake(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> Result<(HandshakeKind, Vec<u8>), Error> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name)?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        let mut bytes = Vec::new();
        // Beyond the handshake itself, so that the client has its tickets and hears of a late refusal.
        for _ in 0..8 {
            bytes.clear();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            let found = server.process_new_packets();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
            found?;
        }
        let seen = client.peer_certificates().unwrap()[0].to_vec();
        Ok((server.handshake_kind().unwrap(), seen))
    }

    const REVOKED: Error = Error::AlertReceived(AlertDescription::CertificateRevoked);

    #[test]
    fn whoever_is_listed_is_refused_and_nobody_else_also_when_the_list_ran_out() {
        let site = Site::new();
        let ((lost, named), (kept, _)) = (site.device(), site.device());
        for days in [0, 8, 100] {
            let edge = site.edge(std::slice::from_ref(&named), days);
            assert_eq!(handshake(&lost, &edge).unwrap_err(), REVOKED, "{days} days");
            assert!(handshake(&kept, &edge).is_ok(), "{days} days");
        }
        let on_hold = RevokedCertificate {
            reason: RevocationReason::OnHold,
            ..named
        };
        let edge = site.edge(&[on_hold], 0);
        assert_eq!(handshake(&lost, &edge).unwrap_err(), REVOKED);
        assert!(handshake(&lost, &site.edge(&[], 0)).is_ok());
    }

    #[test]
    fn no_session_is_resumed_past_a_new_list() {
        let site = Site::new();
        let (lost, named) = site.device();
        let before = site.edge(&[], 0);
        let kind = |edge| handshake(&lost, edge).map(|(kind, _)| kind);
        assert_eq!(kind(&before), Ok(HandshakeKind::Full));
        assert_eq!(kind(&before), Ok(HandshakeKind::Resumed));
        assert_eq!(kind(&site.edge(&[named], 0)), Err(REVOKED));
    }

    #[test]
    fn a_new_certificate_is_shown_at_every_door() {
        let site = Site::new();
        let (client, _) = site.device();
        let doors = [site.edge(&[], 0), server(&site.certificate).unwrap()];
        let seen = || {
            doors
                .each_ref()
                .map(|door| handshake(&client, door).unwrap().1)
        };
        let before = seen();
        assert_eq!(before[0], before[1]);
        let next = site
            .authority
            .issue_server(&["localhost"], site.now)
            .unwrap();
        site.certificate.show(certified(&next).unwrap());
        // A client that resumes remembers what it saw; another one asks anew.
        let (client, _) = site.device();
        let after = doors
            .each_ref()
            .map(|door| handshake(&client, door).unwrap().1);
        assert!(after[0] != before[0] && after[0] == after[1]);
    }
}
