//! Too much of something (CWE-770). What a device sends too fast is read later and not lost; what a stranger takes is
//! bounded.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use rumqttc::mqttbytes::v4::{Packet, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::v5::{Packet as Packet5, PubAckReason};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::edge::{Closing, Rate};

use super::{closed_for, unharmed};
use crate::raw::{Raw, packet, text};
use crate::rig::{Rig, eventually};

/// One empty user property.
const PROPERTY: [u8; 5] = [0x26, 0, 0, 0, 0];

/// CVE-2021-34431, CVE-2023-3592: what came with a v5 CONNECT was kept.
#[tokio::test]
async fn a_flood_of_user_properties_is_bounded_before_connect_and_forgotten_after() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let properties = |count: usize| {
        let all = PROPERTY.repeat(count);
        // A property length of three bytes.
        let [low, middle, high] = [all.len(), all.len() >> 7, all.len() >> 14]
            .map(|part| u8::try_from(part & 0x7F).unwrap());
        [&[low | 0x80, middle | 0x80, high][..], &all].concat()
    };
    let mut raw = Raw::tls(&rig, &device).await.unwrap();
    let connect = [
        b"\0\x04MQTT\x05\x02\0\x1e",
        &properties(20_000)[..],
        &text(b"mon-1"),
    ]
    .concat();
    raw.send(&packet(0x10, &[&connect])).await;
    assert_eq!(raw.read5().await, None);
    closed_for(&rig, Closing::TooLarge, 1).await;

    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    let head = [&text(b"v1/d/mon-1/vitals")[..], &[0, 1]].concat();
    let body = [head, properties(20_000), rig.seal(&device, 1)].concat();
    raw.send(&packet(0x32, &[&body])).await;
    match raw.read5().await {
        Some(Packet5::PubAck(ack)) => assert_eq!(ack.reason, PubAckReason::Success),
        other => panic!("{other:?}"),
    }
    drop(raw);
    unharmed(&rig).await;
}

#[tokio::test]
async fn a_flood_of_subscriptions_leaves_none_and_its_packets_are_bounded() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    let filters = |count| [&text(b"x")[..], &[0]].concat().repeat(count);
    let subscribe = |count| packet(0x82, &[&[0, 1][..], &filters(count)]);
    for _ in 0..10 {
        raw.send(&subscribe(256)).await;
        match raw.read4().await {
            Some(Packet::SubAck(ack)) => {
                assert_eq!(ack.return_codes, vec![SubscribeReasonCode::Failure; 256]);
            }
            other => panic!("{other:?}"),
        }
    }
    // Its own topic, again and again, is one subscription: one copy of what is retained a time.
    let own = [&[0, 1], &text(b"v1/recipient")[..], &[0]].concat();
    for _ in 0..50 {
        raw.send(&packet(0x82, &[&own])).await;
        assert!(matches!(raw.read4().await, Some(Packet::SubAck(_))));
        assert!(matches!(raw.read4().await, Some(Packet::Publish(_))));
    }
    raw.send(&[0xC0, 0]).await;
    assert_eq!(raw.read4().await, Some(Packet::PingResp));
    // More than one may have is more than one may name, whether or not the packet has room for it.
    for (times, count) in [(1, 257), (2, 50_000)] {
        let (mut raw, _) = Raw::v4(&rig, &device, true).await;
        raw.send(&subscribe(count)).await;
        assert_eq!(raw.read4().await, None);
        closed_for(&rig, Closing::TooLarge, times).await;
    }
    unharmed(&rig).await;
}

#[tokio::test]
async fn a_flood_of_packets_is_read_later_and_none_is_dropped() {
    let limits = EdgeLimits {
        packets: Rate {
            per_s: 100,
            at_once: 50,
        },
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let (device, other) = (rig.device("mon-1").await, rig.device("mon-2").await);
    let begin = Instant::now();
    let (mut v4, _) = Raw::v4(&rig, &device, true).await;
    let (mut v5, _) = Raw::v5(&rig, &other, "mon-2").await;
    for raw in [&mut v4, &mut v5] {
        raw.send(&[0xC0, 0].repeat(250)).await;
    }
    for _ in 0..250 {
        assert_eq!(v4.read4().await, Some(Packet::PingResp));
        assert!(matches!(v5.read5().await, Some(Packet5::PingResp(_))));
    }
    // 50 at once, 200 at 100 a second: less the last one's own time.
    assert!(begin.elapsed() >= Duration::from_millis(1_950));
    drop((v4, v5));
    unharmed(&rig).await;
}

#[tokio::test]
async fn a_changed_limit_reaches_the_connections_that_stand() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    let mut limits = EdgeLimits::clone(&rig.limits.get());
    limits.packets = Rate {
        per_s: 20,
        at_once: 1,
    };
    limits.packet_bytes = 1_000;
    rig.limits.set(limits);
    let begin = Instant::now();
    raw.send(&[0xC0, 0].repeat(11)).await;
    for _ in 0..11 {
        assert_eq!(raw.read4().await, Some(Packet::PingResp));
    }
    // The one that the connection was waiting for was let through by the limits of before.
    assert!(begin.elapsed() >= Duration::from_millis(440));
    raw.send(&[0x32, 0x80, 0x20]).await;
    assert_eq!(raw.read4().await, None);
    closed_for(&rig, Closing::TooLarge, 1).await;
    drop(raw);
    unharmed(&rig).await;
}

/// A peer at another address of this machine.
async fn silent_peer(rig: &Rig, host: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from = IpAddr::from(Ipv4Addr::new(127, 0, 0, host));
    socket.bind((from, 0).into()).unwrap();
    socket.connect(rig.addr).await.unwrap()
}

async fn is_closed(peer: &mut TcpStream) -> bool {
    matches!(peer.read(&mut [0]).await, Ok(0) | Err(_))
}

/// CWE-400: strangers say nothing, from more than one host, and as many of them as find a place.
#[tokio::test]
async fn strangers_take_their_own_part_of_the_places_and_devices_keep_theirs() {
    let limits = EdgeLimits {
        connections: 100,
        strangers: 10,
        strangers_per_address: 4,
        handshake_deadline: Duration::from_secs(3_600),
        ..EdgeLimits::default()
    };
    let rig = Rig::with_limits(limits).await;
    let mut standing = Vec::new();
    for n in 0..12 {
        // More devices than strangers may be: whoever is admitted is no stranger.
        let device = rig.device(&format!("mon-{n}")).await;
        standing.push(Raw::v4(&rig, &device, true).await.0);
    }
    let mut silent = Vec::new();
    for host in [2, 3] {
        for _ in 0..4 {
            silent.push(silent_peer(&rig, host).await);
        }
        let mut fifth = silent_peer(&rig, host).await;
        assert!(is_closed(&mut fifth).await, "four from one place");
    }
    eventually("eight are there", || rig.metrics.strangers() == 8).await;
    let good = rig.device("late").await;
    standing.push(Raw::v4(&rig, &good, true).await.0);
    eventually("the late one is admitted", || rig.metrics.strangers() == 8).await;
    silent.push(silent_peer(&rig, 4).await);
    silent.push(silent_peer(&rig, 4).await);
    let mut eleventh = silent_peer(&rig, 5).await;
    assert!(is_closed(&mut eleventh).await, "ten in all");
    for raw in &mut standing {
        raw.send(&[0xC0, 0]).await;
        assert_eq!(raw.read4().await, Some(Packet::PingResp));
    }
    assert_eq!(rig.metrics.closed(Closing::Limit), 3);
    drop((standing, silent));
    unharmed(&rig).await;
}

#[tokio::test]
async fn a_flood_of_handshakes_from_one_place_is_let_go_and_another_place_is_served() {
    let mut limits = EdgeLimits {
        handshake_patience: Duration::from_millis(200),
        ..EdgeLimits::default()
    };
    limits.handshakes_per_address = Rate {
        per_s: 1,
        at_once: 5,
    };
    let rig = Rig::with_limits(limits).await;
    let mut flood = Vec::new();
    for _ in 0..50 {
        flood.push(silent_peer(&rig, 2).await);
    }
    // One more may have come into its turn while the others were let go.
    eventually("the rest is let go", || {
        rig.metrics.closed(Closing::Busy) >= 40
    })
    .await;
    assert!(rig.metrics.handshakes() >= 5);
    let device = rig.device("mon-1").await;
    Raw::v4(&rig, &device, true).await;
    drop(flood);
    unharmed(&rig).await;
}

/// One identity, many connections at once (CWE-362): each takes the session from the one before, and one is left.
#[tokio::test]
async fn colliding_client_ids_leave_one_session() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let connecting = (0..20).map(|_| async {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        raw.send(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05mon-1")
            .await;
        raw
    });
    let mut held = futures::future::join_all(connecting).await;
    eventually("one session", || {
        let taken_over = rig.metrics.closed(Closing::TakenOver);
        taken_over == 19 && rig.metrics.sessions() == 1
    })
    .await;
    let mut alive = 0;
    for raw in &mut held {
        raw.send(&[0xC0, 0]).await;
        while let Some(packet) = raw.read4().await {
            if packet == Packet::PingResp {
                alive += 1;
                break;
            }
        }
    }
    assert_eq!(alive, 1);
    drop(held);
    unharmed(&rig).await;
}
