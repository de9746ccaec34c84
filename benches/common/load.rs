//! MQTT clients that cost as little as a client can: packets made beforehand, written many at a time, and only the
//! acknowledgements read. What they still cost is measured and told.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Messages that one connection leaves unacknowledged.
pub const WINDOW: usize = 64;

/// A connected MQTT 3.1.1 session over TLS.
pub struct Client {
    stream: TlsStream<TcpStream>,
    read: BytesMut,
}

/// When each message was sent and acknowledged.
#[derive(Default)]
pub struct Ran {
    pub acked: usize,
    pub latencies: Vec<Duration>,
}

impl Client {
    pub async fn connect(port: u16, client_id: &str, tls: &Arc<rustls::ClientConfig>) -> Self {
        let connected = Self::connect_from(Ipv4Addr::LOCALHOST, port, client_id, tls).await;
        connected.unwrap()
    }

    /// From one of the addresses of the loopback network.
    pub async fn connect_from(
        from: Ipv4Addr,
        port: u16,
        client_id: &str,
        tls: &Arc<rustls::ClientConfig>,
    ) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let tcp = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::clone(tls));
        let mut stream = connector.connect(name, tcp).await?;
        let length = u8::try_from(12 + client_id.len()).unwrap();
        let mut connect = BytesMut::new();
        connect.put_slice(&[0x10, length]);
        // Level 4, clean session, keep-alive 20 minutes.
        connect.put_slice(b"\x00\x04MQTT\x04\x02\x04\xB0\x00");
        connect.put_u8(length - 12);
        connect.put_slice(client_id.as_bytes());
        stream.write_all(&connect).await?;
        stream.flush().await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK of {client_id}");
        Ok(Self {
            stream,
            read: BytesMut::new(),
        })
    }

    /// Publishes everything as fast as it is acknowledged, or one message each `pause`.
    pub async fn publish(&mut self, packets: &[Bytes], pause: Option<Duration>) -> Ran {
        let started = Instant::now();
        let mut sent_at: Vec<Instant> = Vec::with_capacity(packets.len());
        let mut ran = Ran::default();
        let mut out = BytesMut::new();
        while ran.acked < packets.len() {
            let room = (sent_at.len() - ran.acked) < WINDOW && sent_at.len() < packets.len();
            let due = pause.map(|pause| started + pause * u32::try_from(sent_at.len()).unwrap());
            let now = Instant::now();
            if room && due.is_none_or(|due| due <= now) {
                while sent_at.len() < packets.len()
                    && sent_at.len() - ran.acked < WINDOW
                    && out.len() < 64 * 1024
                    && pause.is_none_or(|pause| {
                        started + pause * u32::try_from(sent_at.len()).unwrap() <= now
                    })
                {
                    out.put_slice(&packets[sent_at.len()]);
                    // A message that could not leave on time waited for the server: that counts.
                    sent_at.push(due.unwrap_or(now));
                }
                self.stream.write_all(&out).await.unwrap();
                self.stream.flush().await.unwrap();
                out.clear();
                continue;
            }
            let wait = due.filter(|_| room).map(tokio::time::Instant::from_std);
            tokio::select! {
                read = self.stream.read_buf(&mut self.read) => {
                    assert!(read.unwrap() > 0, "the server closed");
                    let now = Instant::now();
                    while self.read.len() >= 4 {
                        assert_eq!(self.read[..2], [0x40, 2], "PUBACK");
                        self.read.advance(4);
                        ran.latencies.push(now - sent_at[ran.acked]);
                        ran.acked += 1;
                    }
                }
                () = async { tokio::time::sleep_until(wait.unwrap()).await }, if wait.is_some() => {}
            }
        }
        ran
    }

    /// Resolves when the server closes.
    pub async fn closed(&mut self) {
        while matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {}
    }
}

/// A PUBLISH at `QoS` 1. Acknowledgements come in order, so packet ids only need to differ within the window.
pub fn publish_packet(topic: &str, number: usize, payload: &[u8]) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x32);
    let mut length = 2 + topic.len() + 2 + payload.len();
    while length > 0x7F {
        packet.put_u8(u8::try_from(length & 0x7F).unwrap() | 0x80);
        length >>= 7;
    }
    packet.put_u8(u8::try_from(length).unwrap());
    packet.put_u16(u16::try_from(topic.len()).unwrap());
    packet.put_slice(topic.as_bytes());
    packet.put_u16(u16::try_from(number % 60_000 + 1).unwrap());
    packet.put_slice(payload);
    packet.freeze()
}

/// The `q`-quantile, `q` in per mille.
pub fn quantile(sorted: &[Duration], q: usize) -> Duration {
    let at = (sorted.len().saturating_sub(1)) * q / 1_000;
    sorted.get(at).copied().unwrap_or_default()
}
