//! Below MQTT: what is no TLS, TLS that is too large, and certificates that prove nothing here. None of it is told more
//! than an alert.

use std::sync::Arc;

use jiff::SignedDuration;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vitalseal_crypto::{CertificateAuthority, DeviceSigner, new_device_key_and_csr};
use vitalseal_ingest::edge::Closing;
use vitalseal_storage::{Clock, SystemClock};

use super::{closed_for, unharmed};
use crate::raw::Raw;
use crate::rig::{Device, PATIENCE, Rig, client_config, new_authority};

/// What a peer is told that begins like this: nothing, or a TLS alert.
async fn told(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    // A server that has had enough may reset while we write.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, tcp.read_to_end(&mut answer))
        .await
        .expect("closed");
    answer
}

/// CWE-319: a client that speaks plainly is not heard, so nothing is sent that others could read.
#[tokio::test]
async fn plain_text_on_the_tls_port_is_not_understood() {
    let rig = Rig::start().await;
    let plain: [&[u8]; 4] = [
        b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05mon-1",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x00\x00\x04junk",                     // SSL 3
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", // SSL 2
    ];
    for bytes in plain {
        let answer = told(&rig, bytes).await;
        let is_alert = answer.len() == 7 && answer[0] == 0x15;
        assert!(answer.is_empty() || is_alert, "{answer:02x?}");
    }
    closed_for(&rig, Closing::Handshake, 4).await;
    unharmed(&rig).await;
}

/// CWE-770: a `ClientHello` as large as its length field can say, in records that are right.
#[tokio::test]
async fn an_oversized_client_hello_is_read_no_further_than_a_stranger_may_go() {
    let rig = Rig::start().await;
    let record = |body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1][..], &length, body].concat()
    };
    let mut hello = record(&[&[1, 0xFF, 0xFF, 0xFF, 3, 3][..], &[0; 8_000]].concat());
    for _ in 0..200 {
        hello.extend(record(&[0; 16_000]));
    }
    assert!(told(&rig, &hello).await.len() <= 7);
    // A record larger than any may be.
    let too_long = [&[0x16, 3, 1, 0xFF, 0xFF][..], &[0; 65_535]].concat();
    assert!(told(&rig, &too_long).await.len() <= 7);
    // Records with nothing in them, for ever.
    assert!(told(&rig, &record(&[]).repeat(20_000)).await.len() <= 7);
    closed_for(&rig, Closing::Handshake, 3).await;
    unharmed(&rig).await;
}

/// A device whose certificate was signed by `authority` so long ago.
fn certified(rig: &Rig, authority: &CertificateAuthority, ago: SignedDuration) -> Device {
    let id = "mon-1".parse().unwrap();
    let (key, csr) = new_device_key_and_csr(&id).unwrap();
    let issued = authority
        .issue_device(&csr, &id, SystemClock.now() - ago)
        .unwrap();
    let tls = client_config(&issued.pem, &key, &rig.authority.bundle_pem());
    with_tls(&key, &issued.pem, tls)
}

fn with_tls(key: &str, pem: &str, tls: Arc<ClientConfig>) -> Device {
    let certificate = vitalseal_crypto::DeviceCertificate::from_pem(pem).unwrap();
    Device {
        id: "mon-1".parse().unwrap(),
        certificate,
        signer: DeviceSigner::from_pkcs8_pem(key, pem).unwrap(),
        tls,
    }
}

async fn is_turned_away(rig: &Rig, tls: &Arc<ClientConfig>) {
    let tcp = TcpStream::connect(rig.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    // In TLS 1.3 a client learns of it with its first read.
    if let Ok(mut stream) = connector.connect(name, tcp).await {
        let _ = stream
            .write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05mon-1")
            .await;
        let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await;
        assert!(matches!(read.expect("closed"), Ok(0) | Err(_)));
    }
}

/// CWE-295; CVE-2026-33308: a certificate for another purpose was taken for a client's.
#[tokio::test]
async fn certificates_that_prove_nothing_here_end_in_the_handshake() {
    let rig = Rig::start().await;
    let bundle = rig.authority.bundle_pem();
    let foreign = certified(&rig, &new_authority(), SignedDuration::ZERO).tls;
    let expired = certified(&rig, &rig.authority, SignedDuration::from_hours(24 * 800)).tls;
    let future = certified(&rig, &rig.authority, SignedDuration::from_hours(-24 * 7)).tls;
    // The server's own: of our authority, and for servers.
    let server = rig
        .authority
        .issue_server(&["mon-1"], SystemClock.now())
        .unwrap();
    let server = client_config(&server.chain_pem, &server.key_pem, &bundle);
    // 400 certificates, most of them of no use: 200 KiB.
    let good = certified(&rig, &rig.authority, SignedDuration::ZERO);
    let (key, csr) = new_device_key_and_csr(&good.id).unwrap();
    let issued = rig
        .authority
        .issue_device(&csr, &good.id, SystemClock.now())
        .unwrap();
    let long = client_config(&issued.pem.repeat(200), &key, &bundle);
    for (times, tls) in (1..).zip([foreign, expired, future, server, long]) {
        is_turned_away(&rig, &tls).await;
        closed_for(&rig, Closing::Handshake, times).await;
    }
    is_turned_away(&rig, &rig.nobody()).await;
    closed_for(&rig, Closing::Handshake, 6).await;
    assert!(
        rig.audit.refused().is_empty(),
        "strangers do not fill the audit log"
    );
    unharmed(&rig).await;
}

/// CWE-294: what is sent before the handshake ends can be sent again by whoever heard it.
#[tokio::test]
async fn a_resumed_session_is_offered_no_early_data() {
    let rig = Rig::start().await;
    let mut device = rig.device("mon-1").await;
    let mut tls = ClientConfig::clone(&device.tls);
    tls.enable_early_data = true;
    device.tls = Arc::new(tls);
    let (raw, _) = Raw::v4(&rig, &device, true).await;
    drop(raw);
    // A ticket is here, for the next connection resumes; but not for early data.
    let name = ServerName::try_from("localhost").unwrap();
    let mut resuming = rustls::ClientConnection::new(Arc::clone(&device.tls), name).unwrap();
    assert!(resuming.early_data().is_none());
    let (raw, _) = Raw::v4(&rig, &device, true).await;
    let (_, connection) = raw.stream.get_ref();
    assert_eq!(
        connection.handshake_kind(),
        Some(rustls::HandshakeKind::Resumed)
    );
    drop(raw);
    unharmed(&rig).await;
}
