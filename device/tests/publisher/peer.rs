//! A small MQTT server of our own, which behaves on each connection as it is told to.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::bytes::BytesMut;
use vitalseal_crypto::CertificateAuthority;
use vitalseal_device::Endpoint;

use crate::clock;

const MAX_PACKET: usize = 1 << 20;

/// What the peer does with one connection.
#[derive(Clone, Copy)]
pub(crate) enum Conduct {
    /// Acknowledges everything.
    Well,
    /// Acknowledges so many publishes, reads as many more without a word, and hangs up.
    HangUpAfter(usize),
    /// Accepts TCP and says nothing.
    Silent,
    /// Answers the subscription and publishes no certificate.
    Untold,
    /// Refuses the subscription.
    Unsubscribed,
    /// Was restored from a backup: has no session, and acknowledges everything.
    Restored,
    /// Was restored too, takes the CONNECT, and its answer is lost.
    Unheard,
    /// Answers CONNECT with this.
    Refuses(ConnectReturnCode),
    /// Tells the device something on its own topic and something on that of all.
    Tells,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) published: Vec<Vec<u8>>,
    pub(crate) acked: HashSet<Vec<u8>>,
    pub(crate) clients: Vec<String>,
    /// Messages of its own that the device acknowledged, by packet id.
    pub(crate) taken: Vec<u16>,
    pub(crate) filters: Vec<String>,
    pub(crate) farewells: usize,
}

pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl Peer {
    /// Listens; connection after connection behaves as `conducts` say, all further ones well.
    pub(crate) async fn start(
        authority: &CertificateAuthority,
        recipient_pem: &str,
        conducts: &[Conduct],
    ) -> Self {
        let tls = server_config(authority, authority);
        Self::start_with(tls, recipient_pem, conducts).await
    }

    pub(crate) async fn start_with(
        tls: Arc<ServerConfig>,
        recipient_pem: &str,
        conducts: &[Conduct],
    ) -> Self {
        let tls = TlsAcceptor::from(tls);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let conducts = conducts.to_vec();
        let (record, recipient) = (Arc::clone(&seen), recipient_pem.to_owned());
        tokio::spawn(async move {
            let (mut conducts, mut held) = (conducts.into_iter(), Vec::new());
            while let Ok((stream, _)) = listener.accept().await {
                let conduct = conducts.next().unwrap_or(Conduct::Well);
                if matches!(conduct, Conduct::Silent) {
                    held.push(stream);
                    continue;
                }
                let (tls, record, recipient) =
                    (tls.clone(), Arc::clone(&record), recipient.clone());
                tokio::spawn(async move { serve(stream, tls, conduct, &record, &recipient).await });
            }
        });
        Self {
            endpoint: Endpoint {
                host: "127.0.0.1".into(),
                port,
            },
            seen,
        }
    }
}

/// A server of one authority that lets in clients of another.
pub(crate) fn server_config(
    authority: &CertificateAuthority,
    clients: &CertificateAuthority,
) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(clients.bundle_pem().as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let server = authority
        .issue_server(&["127.0.0.1", "localhost"], clock())
        .unwrap();
    let chain = CertificateDer::pem_slice_iter(server.chain_pem.as_bytes()).map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain.collect(), key);
    Arc::new(config.unwrap())
}

/// One connection. `None` when it ends, however it does.
async fn serve(
    stream: TcpStream,
    tls: TlsAcceptor,
    conduct: Conduct,
    seen: &Mutex<Seen>,
    recipient_pem: &str,
) -> Option<()> {
    let mut stream = tls.accept(stream).await.ok()?;
    let (mut input, mut acked, mut ignored) = (BytesMut::new(), 0, 0);
    loop {
        let mut output = BytesMut::new();
        while let Ok(packet) = Packet::read(&mut input, MAX_PACKET) {
            let answer = match packet {
                Packet::Connect(connect) => {
                    assert!(!connect.clean_session);
                    let mut seen = seen.lock().unwrap();
                    let present = !seen.clients.is_empty();
                    seen.clients.push(connect.client_id);
                    let (code, present) = match conduct {
                        Conduct::Unheard => return None,
                        Conduct::Restored => (ConnectReturnCode::Success, false),
                        Conduct::Refuses(code) => (code, false),
                        _ => (ConnectReturnCode::Success, present),
                    };
                    Packet::ConnAck(ConnAck::new(code, present))
                }
                Packet::Subscribe(subscribe) => {
                    assert_eq!(subscribe.filters[0].path, "v1/recipient");
                    assert_eq!(subscribe.filters[0].qos, QoS::AtMostOnce);
                    let paths = subscribe.filters.iter().map(|filter| filter.path.clone());
                    seen.lock().unwrap().filters = paths.collect();
                    let granted = match conduct {
                        Conduct::Unsubscribed => SubscribeReasonCode::Failure,
                        _ => SubscribeReasonCode::Success(QoS::AtMostOnce),
                    };
                    Packet::SubAck(SubAck::new(subscribe.pkid, vec![granted]))
                        .write(&mut output, MAX_PACKET)
                        .ok()?;
                    if matches!(conduct, Conduct::Untold | Conduct::Unsubscribed) {
                        continue;
                    }
                    if matches!(conduct, Conduct::Tells) {
                        let own = ("v1/d/monitor-001/down", &b"restart at noon"[..]);
                        let all = ("v1/notices", &b"tea is ready"[..]);
                        for (pkid, (topic, said)) in (5..).zip([own, all]) {
                            let mut publish = Publish::new(topic, QoS::AtLeastOnce, said);
                            publish.pkid = pkid;
                            Packet::Publish(publish)
                                .write(&mut output, MAX_PACKET)
                                .ok()?;
                        }
                    }
                    let mut retained = Publish::new("v1/recipient", QoS::AtMostOnce, recipient_pem);
                    retained.retain = true;
                    Packet::Publish(retained)
                }
                Packet::Publish(publish) => {
                    assert_eq!(publish.topic, "v1/d/monitor-001/vitals");
                    assert_eq!(publish.qos, QoS::AtLeastOnce);
                    let body = publish.payload.to_vec();
                    let mut seen = seen.lock().unwrap();
                    seen.published.push(body.clone());
                    if let Conduct::HangUpAfter(limit) = conduct
                        && acked >= limit
                    {
                        ignored += 1;
                        if ignored >= limit {
                            return None;
                        }
                        continue;
                    }
                    acked += 1;
                    seen.acked.insert(body);
                    Packet::PubAck(PubAck::new(publish.pkid))
                }
                Packet::PubAck(ack) => {
                    seen.lock().unwrap().taken.push(ack.pkid);
                    continue;
                }
                Packet::PingReq => Packet::PingResp,
                Packet::Disconnect => {
                    seen.lock().unwrap().farewells += 1;
                    return None;
                }
                other => panic!("a publisher does not send {other:?}"),
            };
            answer.write(&mut output, MAX_PACKET).ok()?;
        }
        stream.write_all(&output).await.ok()?;
        stream.flush().await.ok()?;
        if stream.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
    }
}
