//! The WebSocket door: what an upgrade needs, that packets lie anywhere in the frames, and what ends it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use rumqttc::mqttbytes::v4::{self, ConnectReturnCode, Packet};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use vitalseal_ingest::edge::Closing;

use crate::raw::{Raw, connect_tls, publish4};
use crate::rig::{PAGE, PATIENCE, Rig, eventually};

type Frames = WebSocketStream<TlsStream<TcpStream>>;

/// Upgrades as a browser on [`PAGE`] does, and speaks MQTT from there.
pub(crate) async fn browser(rig: &Rig, tls: &Arc<ClientConfig>) -> Raw<Client> {
    let upgraded = upgrade(rig, tls, "/mqtt", Some("mqtt"), Some(PAGE)).await;
    Raw::over(Client {
        frames: upgraded.unwrap(),
        unread: Bytes::new(),
    })
}

async fn upgrade(
    rig: &Rig,
    tls: &Arc<ClientConfig>,
    path: &str,
    protocols: Option<&str>,
    origin: Option<&str>,
) -> Result<Frames, Error> {
    let url = format!("wss://localhost{path}");
    let mut request = url.into_client_request().unwrap();
    for (name, value) in [
        (header::SEC_WEBSOCKET_PROTOCOL, protocols),
        (header::ORIGIN, origin),
    ] {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(name, value);
        }
    }
    let stream = connect_tls(rig.websocket, tls).await.unwrap();
    let (frames, answer) = client_async(request, stream).await?;
    assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], "mqtt");
    Ok(frames)
}

/// Bytes in binary frames, as clients send them.
#[derive(Debug)]
pub(crate) struct Client {
    frames: Frames,
    unread: Bytes,
}

fn broken(error: Error) -> io::Error {
    io::Error::other(error)
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let now = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(broken)?;
        let frame = Message::Binary(Bytes::copy_from_slice(buf));
        let sent = Pin::new(&mut self.frames).start_send(frame);
        Poll::Ready(sent.map(|()| buf.len()).map_err(broken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_close(cx).map_err(broken)
    }
}

/// [MQTT-6.0.0-3], [MQTT-6.0.0-4], and pages that are not listed.
#[tokio::test]
async fn an_upgrade_needs_the_path_the_subprotocol_and_a_listed_page() {
    let rig = Rig::start().await;
    let nobody = rig.nobody();
    for (path, protocols, origin, status) in [
        ("/", Some("mqtt"), None, StatusCode::NOT_FOUND),
        ("/mqtt/", Some("mqtt"), None, StatusCode::NOT_FOUND),
        ("/mqtt", None, None, StatusCode::BAD_REQUEST),
        (
            "/mqtt",
            Some("mqttv3.1, chat"),
            None,
            StatusCode::BAD_REQUEST,
        ),
        (
            "/mqtt",
            Some("mqtt"),
            Some("https://evil.example"),
            StatusCode::FORBIDDEN,
        ),
        (
            "/mqtt",
            Some("mqtt"),
            Some("https://ward.example.org.evil.example"),
            StatusCode::FORBIDDEN,
        ),
        (
            "/mqtt",
            Some("mqtt"),
            Some("http://ward.example.org"),
            StatusCode::FORBIDDEN,
        ),
        ("/mqtt", Some("mqtt"), Some("null"), StatusCode::FORBIDDEN),
    ] {
        match upgrade(&rig, &nobody, path, protocols, origin).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), status, "{path} {origin:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.metrics.closed(Closing::Upgrade), 8);
    for (protocols, origin) in [("mqtt", None), ("chat, mqtt", Some(PAGE))] {
        upgrade(&rig, &nobody, "/mqtt", Some(protocols), origin)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_closed_and_its_bytes_are_bounded() {
    let rig = Rig::start().await;
    let endless = format!("GET /mqtt HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    let crumbs = "GET /mqtt HTTP/1.1\r\n".repeat(5_000);
    for bytes in [
        "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\x10\x0d\x00\x04MQTT\x04\x02\x00\x1e\x00\x01a",
        endless.as_str(),
        crumbs.as_str(),
    ] {
        let mut stream = connect_tls(rig.websocket, &rig.nobody()).await.unwrap();
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut told = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut told)).await;
        let _ = ended.expect("it is closed");
        assert!(!told.starts_with(b"HTTP/1.1 101"), "{bytes:.40}");
    }
    eventually("all are counted", || {
        rig.metrics.closed(Closing::Upgrade) == 4
    })
    .await;
}

/// [MQTT-6.0.0-2]: a packet in many frames, many packets in one, pings in between.
#[tokio::test]
async fn a_device_publishes_through_frames_cut_anywhere() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let mut bytes = bytes::BytesMut::new();
    let mut connect = v4::Connect::new("mon-1");
    connect.clean_session = true;
    Packet::Connect(connect).write(&mut bytes, 1 << 20).unwrap();
    for sequence in 1..=3_u16 {
        let message = rig.seal(&device, u64::from(sequence));
        let publish = publish4(&device, rumqttc::QoS::AtLeastOnce, sequence, message);
        publish.write(&mut bytes, 1 << 20).unwrap();
    }
    let mut frames = upgrade(&rig, &device.tls, "/mqtt", Some("mqtt"), None)
        .await
        .unwrap();
    let (cut, whole) = bytes.split_at(bytes.len() / 2);
    for part in cut.chunks(7) {
        let part = Bytes::copy_from_slice(part);
        frames.send(Message::Binary(part)).await.unwrap();
        frames
            .send(Message::Ping(Bytes::from("there?")))
            .await
            .unwrap();
    }
    frames.send(Message::Binary(Bytes::new())).await.unwrap();
    frames
        .send(Message::Binary(Bytes::copy_from_slice(whole)))
        .await
        .unwrap();
    let mut told = bytes::BytesMut::new();
    let mut acked = Vec::new();
    let mut pongs = 0;
    while acked.len() < 3 {
        match timeout(PATIENCE, frames.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            Message::Binary(bytes) => told.extend_from_slice(&bytes),
            Message::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
        while let Ok(packet) = Packet::read(&mut told, 1 << 20) {
            match packet {
                Packet::ConnAck(ack) => assert_eq!(ack.code, ConnectReturnCode::Success),
                Packet::PubAck(ack) => acked.push(ack.pkid),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(acked, [1, 2, 3]);
    assert!(pongs > 0);
    assert_eq!(rig.rows().await, 3);

    // A goodbye in MQTT is one in WebSocket, too.
    frames
        .send(Message::Binary(Bytes::from_static(b"\xe0\x00")))
        .await
        .unwrap();
    assert_eq!(closing_code(&mut frames).await, Some(CloseCode::Normal));
}

/// Six bytes make the server write a pong, and no packet is counted for them.
#[tokio::test]
async fn pings_and_empty_frames_are_held_to_the_rate_of_packets() {
    let limits = vitalseal_ingest::EdgeLimits {
        packets: vitalseal_ingest::edge::Rate {
            per_s: 1,
            at_once: 100,
        },
        ..Default::default()
    };
    let rig = Rig::with_limits(limits).await;
    let device = rig.device("mon-1").await;
    for idle in [
        Message::Ping(Bytes::new()),
        Message::Pong(Bytes::new()),
        Message::Binary(Bytes::new()),
    ] {
        let mut frames = upgrade(&rig, &device.tls, "/mqtt", Some("mqtt"), None)
            .await
            .unwrap();
        let mut connect = bytes::BytesMut::new();
        let packet = Packet::Connect(v4::Connect::new("mon-1"));
        packet.write(&mut connect, 1 << 20).unwrap();
        let connect = Message::Binary(connect.freeze());
        frames.send(connect).await.unwrap();
        let answer = frames.next().await;
        assert!(matches!(answer, Some(Ok(Message::Binary(_)))), "CONNACK");
        for _ in 0..1_000 {
            // The server may be gone before the last.
            let _ = frames.send(idle.clone()).await;
        }
        assert_eq!(closing_code(&mut frames).await, Some(CloseCode::Policy));
    }
}

/// The code of the closing frame; `None` when the connection ended without one.
async fn closing_code(frames: &mut Frames) -> Option<CloseCode> {
    loop {
        match timeout(PATIENCE, frames.next())
            .await
            .expect("it is closed")
        {
            Some(Ok(Message::Close(goodbye))) => return goodbye.map(|goodbye| goodbye.code),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

/// [MQTT-6.0.0-1], and frames that are too large, declared or sent.
#[tokio::test]
async fn what_does_not_belong_in_a_frame_ends_the_connection_and_says_so() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let huge = Message::Binary(vec![0; (512 << 10) + 1].into());
    for (wrong, code) in [
        (Message::Text("CONNECT".into()), CloseCode::Unsupported),
        (huge, CloseCode::Size),
    ] {
        let mut frames = upgrade(&rig, &device.tls, "/mqtt", Some("mqtt"), None)
            .await
            .unwrap();
        let mut connect = bytes::BytesMut::new();
        let packet = Packet::Connect(v4::Connect::new("mon-1"));
        packet.write(&mut connect, 1 << 20).unwrap();
        frames
            .send(Message::Binary(connect.freeze()))
            .await
            .unwrap();
        assert!(
            matches!(frames.next().await, Some(Ok(Message::Binary(_)))),
            "CONNACK"
        );
        let _ = frames.send(wrong).await;
        assert_eq!(closing_code(&mut frames).await, Some(code));
    }
    eventually("nobody is left", || rig.metrics.connections() == 0).await;
}

#[tokio::test]
async fn a_peer_that_upgrades_and_falls_silent_holds_nothing_for_long() {
    let limits = vitalseal_ingest::EdgeLimits {
        handshake_deadline: std::time::Duration::from_millis(300),
        connect_deadline: std::time::Duration::from_millis(300),
        ..Default::default()
    };
    let rig = Rig::with_limits(limits).await;
    let _no_request = connect_tls(rig.websocket, &rig.nobody()).await.unwrap();
    let _no_connect = upgrade(&rig, &rig.nobody(), "/mqtt", Some("mqtt"), None)
        .await
        .unwrap();
    eventually("both are gone", || {
        rig.metrics.closed(Closing::Handshake) == 1 && rig.metrics.closed(Closing::NoConnect) == 1
    })
    .await;
}
