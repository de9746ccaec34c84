//! Peers that take their time, to hold what a server has few of (CWE-400).

use std::time::Duration;

use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet};
use rumqttc::v5::mqttbytes::v5::{self, DisconnectReasonCode, Packet as Packet5};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::edge::Closing;

use super::{closed_for, farewell, unharmed};
use crate::raw::{Raw, packet};
use crate::rig::{PATIENCE, Rig};

/// Long enough for a handshake on a busy machine, short enough to wait for.
const SHORT: Duration = Duration::from_millis(1_500);

/// Sends a byte now and then, for ever, and returns when the server has had enough of it.
async fn drip(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), begin: &[u8]) {
    let put_out = timeout(PATIENCE, async {
        for byte in begin.iter().chain(std::iter::repeat(&0)) {
            if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            let read = timeout(Duration::from_millis(20), stream.read(&mut [0; 64])).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                return;
            }
        }
    });
    put_out.await.expect("the server waits for ever");
}

#[tokio::test]
async fn a_slow_tls_handshake_is_cut_at_its_deadline() {
    let limits = EdgeLimits {
        handshake_deadline: SHORT,
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    // A ClientHello of 16,000 bytes, as far as its header goes.
    drip(&mut tcp, &[0x16, 3, 1, 0x3E, 0x80, 1, 0, 0x3E, 0x7C, 3, 3]).await;
    closed_for(&rig, Closing::Handshake, 1).await;
    drop(tcp);
    unharmed(&rig).await;
}

#[tokio::test]
async fn a_slow_connect_is_cut_at_its_deadline_and_told_nothing() {
    let limits = EdgeLimits {
        connect_deadline: SHORT,
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let device = rig.device("mon-1").await;
    let mut raw = Raw::tls(&rig, &device).await.unwrap();
    drip(
        &mut raw.stream,
        b"\x10\x80\x20\x00\x04MQTT\x04\x02\x00\x1e\x0f\xff",
    )
    .await;
    closed_for(&rig, Closing::NoConnect, 1).await;
    drop(raw);
    unharmed(&rig).await;
}

#[tokio::test]
async fn a_slow_publish_is_cut_whatever_keep_alive_was_asked_for() {
    let limits = EdgeLimits {
        packet_deadline: SHORT,
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    // Silence between packets is something else.
    for _ in 0..2 {
        tokio::time::sleep(SHORT * 2 / 3).await;
        raw.send5(&Packet5::PingReq(v5::PingReq)).await;
        assert!(matches!(raw.read5().await, Some(Packet5::PingResp(_))));
    }
    let begun = packet(0x32, &[&[0; 4_096]]);
    raw.send(&begun[..1_000]).await;
    assert_eq!(
        farewell(&mut raw).await,
        Some(DisconnectReasonCode::KeepAliveTimeout)
    );
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    drip(&mut raw.stream, &begun).await;
    closed_for(&rig, Closing::Stalled, 2).await;
    drop(raw);
    unharmed(&rig).await;
}

/// CVE-2020-13849 ("SlowITe"): a client asks for a keep-alive of 18 hours, and holds its connection for as long by saying
/// nothing.
#[tokio::test]
async fn an_endless_keep_alive_is_not_granted() {
    let limits = EdgeLimits {
        keep_alive: Duration::from_secs(1),
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let device = rig.device("mon-1").await;
    for (times, keep_alive) in [(1, 0), (2, u16::MAX)] {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        let mut connect = Connect::new("mon-1");
        connect.keep_alive = keep_alive;
        raw.send4(&Packet::Connect(connect)).await;
        assert!(matches!(raw.read4().await, Some(Packet::ConnAck(_))));
        assert_eq!(raw.read4().await, None, "put out");
        closed_for(&rig, Closing::KeepAlive, times).await;
    }
    unharmed(&rig).await;
}

/// CVE-2025-56352: a refused CONNECT was answered, and the connection left open.
#[tokio::test]
async fn whoever_is_refused_is_not_left_half_open() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        let mut connect = Connect::new("");
        connect.clean_session = false;
        raw.send4(&Packet::Connect(connect)).await;
        match raw.read4().await {
            Some(Packet::ConnAck(ack)) => assert_eq!(ack.code, ConnectReturnCode::BadClientId),
            other => panic!("{other:?}"),
        }
        held.push(raw);
    }
    // The clients neither close nor say anything.
    unharmed(&rig).await;
    drop(held);
}
