//! A client that writes what it is told to, byte by byte, for what no library would send, and what such bytes are made of.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::{Device, PATIENCE, Rig};

pub(crate) struct Raw<S = TlsStream<TcpStream>> {
    pub(crate) stream: S,
    pub(crate) buffer: BytesMut,
}

impl Raw {
    pub(crate) async fn tls(rig: &Rig, device: &Device) -> std::io::Result<Self> {
        Ok(Self::over(connect_tls(rig.addr, &device.tls).await?))
    }

    /// Connects with v3.1.1 and reads the CONNACK.
    pub(crate) async fn v4(rig: &Rig, device: &Device, clean: bool) -> (Self, v4::ConnAck) {
        let mut raw = Self::tls(rig, device).await.unwrap();
        let mut connect = v4::Connect::new(device.id.as_str());
        connect.clean_session = clean;
        raw.send4(&v4::Packet::Connect(connect)).await;
        match raw.read4().await {
            Some(v4::Packet::ConnAck(ack)) => (raw, ack),
            other => panic!("{other:?}"),
        }
    }

    /// Connects with v5 and reads the CONNACK.
    pub(crate) async fn v5(rig: &Rig, device: &Device, client_id: &str) -> (Self, v5::ConnAck) {
        let mut raw = Self::tls(rig, device).await.unwrap();
        let ack = raw.connect5(client_id, None).await;
        (raw, ack)
    }
}

/// A TLS connection to one of the rig's doors.
pub(crate) async fn connect_tls(
    addr: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Speaks over any stream.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Sends a v5 CONNECT and reads the CONNACK.
    pub(crate) async fn connect5(
        &mut self,
        client_id: &str,
        login: Option<(&str, &str)>,
    ) -> v5::ConnAck {
        let connect = v5::Connect {
            keep_alive: 30,
            client_id: client_id.to_owned(),
            clean_start: true,
            properties: None,
        };
        let login = login.map(|(username, password)| v5::Login {
            username: username.to_owned(),
            password: password.to_owned(),
        });
        self.send5(&v5::Packet::Connect(connect, None, login)).await;
        match self.read5().await {
            Some(v5::Packet::ConnAck(ack)) => ack,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server that closed already is found out by reading.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    pub(crate) async fn send4(&mut self, packet: &v4::Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, 1 << 20).unwrap();
        self.send(&out).await;
    }

    pub(crate) async fn send5(&mut self, packet: &v5::Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        self.send(&out).await;
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer));
        matches!(
            read.await.expect("the server neither answers nor closes"),
            Ok(1..)
        )
    }

    /// The next packet, as its bytes; `None` when the server closed.
    pub(crate) async fn packet(&mut self) -> Option<Vec<u8>> {
        let first = self.byte().await?;
        let mut packet = vec![first];
        let (mut left, mut shift) = (0, 0);
        loop {
            let byte = self.byte().await?;
            packet.push(byte);
            left |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        for _ in 0..left {
            packet.push(self.byte().await?);
        }
        Some(packet)
    }

    async fn byte(&mut self) -> Option<u8> {
        if self.buffer.is_empty() && !self.more().await {
            return None;
        }
        Some(self.buffer.split_to(1)[0])
    }

    /// The next packet; `None` when the server closed.
    pub(crate) async fn read4(&mut self) -> Option<v4::Packet> {
        loop {
            match v4::Packet::read(&mut self.buffer, 1 << 20) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next packet; `None` when the server closed.
    pub(crate) async fn read5(&mut self) -> Option<v5::Packet> {
        loop {
            match v5::Packet::read(&mut self.buffer, None) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if !self.more().await {
                return None;
            }
        }
    }
}

pub(crate) fn publish4(
    device: &Device,
    qos: rumqttc::QoS,
    id: u16,
    payload: Vec<u8>,
) -> v4::Packet {
    let mut publish = v4::Publish::new(device.vitals(), qos, payload);
    publish.pkid = id;
    v4::Packet::Publish(publish)
}

pub(crate) fn publish5(
    topic: &str,
    qos: rumqttc::v5::mqttbytes::QoS,
    id: u16,
    payload: Vec<u8>,
) -> v5::Packet {
    let mut publish = v5::Publish::new(topic, qos, payload, None);
    publish.pkid = id;
    v5::Packet::Publish(publish)
}

/// A control packet of `parts`, with its remaining length.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let (mut packet, mut left) = (vec![first], body.len());
    loop {
        let low = u8::try_from(left & 0x7F).unwrap();
        left >>= 7;
        packet.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// Bytes with their length in front, as every string of the protocol has; whatever they are.
pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let len = u16::try_from(text.len()).unwrap();
    [&len.to_be_bytes()[..], text].concat()
}
