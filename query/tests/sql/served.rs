//! A ward behind its PostgreSQL door, and the clients that stand before it: `psql` and a driver.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tokio_util::sync::CancellationToken;
use vitalseal_query::SqlServer;

use crate::ward::{START_US, Ward};

/// A served ward.
pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    ca_pem: tempfile::NamedTempFile,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<()>,
    /// Notices that drivers heard.
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
}

impl Door {
    pub(crate) async fn open(ward: &Ward) -> Self {
        let now = vitalseal_storage::ports::Clock::now(&*ward.clock);
        let server = ward.ca.issue_server(&["localhost"], now).unwrap();
        let chain = CertificateDer::pem_slice_iter(server.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let server = SqlServer::bind(any, Arc::new(tls), Arc::clone(&ward.service))
            .await
            .unwrap();
        let ca_pem = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_pem.path(), ward.ca.bundle_pem()).unwrap();
        let (addr, shutdown) = (server.local_addr(), CancellationToken::new());
        let served = tokio::spawn(server.serve(shutdown.clone()));
        Self {
            addr,
            ca_pem,
            shutdown,
            served,
            heard: Arc::default(),
        }
    }

    /// `psql`, if this machine has one. Its server certificate check needs the ward's clock to be near
    /// the machine's, so it only asks for encryption.
    pub(crate) async fn psql(&self, user: &str, token: &str, sql: &[&str]) -> Option<Output> {
        if !Path::new("/usr/bin/psql").exists() {
            return None;
        }
        let mut psql = Command::new("psql");
        psql.env_clear()
            .env("PGPASSWORD", token)
            .env("PGSSLMODE", "require")
            .env("PGCONNECT_TIMEOUT", "10");
        psql.args([
            "-X",
            "-A",
            "-t",
            "-h",
            "127.0.0.1",
            "-p",
            &self.addr.port().to_string(),
        ]);
        psql.args(["-U", user, "-d", "vitalseal", "-v", "ON_ERROR_STOP=1"]);
        for statement in sql {
            psql.args(["-c", statement]);
        }
        Some(psql.output().await.unwrap())
    }

    /// A driver's connection, by direct TLS with ALPN.
    pub(crate) async fn connect(
        &self,
        user: &str,
        token: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        Ok(self.connect_with_task(user, token).await?.0)
    }

    /// The same, with the task that owns the socket: a client that is only dropped waits for its answer.
    pub(crate) async fn connect_with_task(
        &self,
        user: &str,
        token: &str,
    ) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
        let tcp = TcpStream::connect(self.addr).await.unwrap();
        let tls = self
            .client_tls()
            .connect(ServerName::try_from("localhost").unwrap(), tcp)
            .await
            .unwrap();
        let mut config = tokio_postgres::Config::new();
        config
            .user(user)
            .password(token)
            .dbname("vitalseal")
            .ssl_mode(SslMode::Disable);
        let (client, mut connection) = config.connect_raw(tls, NoTls).await?;
        let heard = Arc::clone(&self.heard);
        let messages = async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message {
                    assert_eq!(
                        (notice.severity(), notice.code().code()),
                        ("NOTICE", "01000")
                    );
                    heard.lock().unwrap().push(notice.message().to_owned());
                }
            }
        };
        Ok((client, tokio::spawn(messages).abort_handle()))
    }

    pub(crate) fn client_tls(&self) -> tokio_rustls::TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        for pem in CertificateDer::pem_file_iter(self.ca_pem.path()).unwrap() {
            roots.add(pem.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_details(provider, Arc::new(WardTime))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"postgresql".to_vec()];
        tokio_rustls::TlsConnector::from(Arc::new(tls))
    }
}

/// The ward's hour, for checking its certificates.
#[derive(Debug)]
struct WardTime;

impl rustls::time_provider::TimeProvider for WardTime {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let seconds = u64::try_from(START_US / 1_000_000).unwrap() + 3_600;
        Some(rustls::pki_types::UnixTime::since_unix_epoch(
            Duration::from_secs(seconds),
        ))
    }
}
