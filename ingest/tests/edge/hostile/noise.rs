//! Packets at random, and sessions that were right before something happened to them: whatever nobody thought of, above
//! all panics (CWE-248), endless loops (CWE-835) and reading beyond the end (CWE-125).

use std::time::Duration;

use proptest::collection::vec;
use proptest::num::u8::ANY as BYTE;
use proptest::sample::{Index, select};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::unharmed;
use crate::raw::{Raw, packet, text};
use crate::rig::{Device, Rig};

/// What is done to a stream of bytes.
#[derive(Debug, Clone)]
enum Damage {
    /// Another byte in the place of one.
    Change(Index, u8),
    /// Bytes that were not there.
    Insert(Index, Vec<u8>),
    /// Some bytes fewer.
    Remove(Index, usize),
    /// A part once more.
    Repeat(Index, usize),
    /// The end.
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || proptest::arbitrary::any::<Index>();
    proptest::prop_oneof![
        4 => (at(), BYTE).prop_map(|(at, byte)| Damage::Change(at, byte)),
        2 => (at(), vec(BYTE, 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (at(), 1_usize..40).prop_map(|(at, bytes)| Damage::Remove(at, bytes)),
        2 => (at(), 1_usize..400).prop_map(|(at, bytes)| Damage::Repeat(at, bytes)),
        1 => at().prop_map(Damage::Cut),
    ]
}

impl Damage {
    fn apply(self, stream: &mut Vec<u8>) {
        if stream.is_empty() {
            return;
        }
        let length = stream.len();
        match self {
            Self::Change(at, byte) => stream[at.index(length)] = byte,
            Self::Insert(at, bytes) => {
                let at = at.index(length);
                stream.splice(at..at, bytes);
            }
            Self::Remove(at, bytes) => {
                let at = at.index(length);
                stream.drain(at..length.min(at + bytes));
            }
            Self::Repeat(at, bytes) => {
                let at = at.index(length);
                let part = stream[at..length.min(at + bytes)].to_vec();
                stream.splice(at..at, part);
            }
            Self::Cut(at) => stream.truncate(at.index(length)),
        }
    }
}

/// A whole session, CONNECT to DISCONNECT, with every packet that a client may send.
fn session(rig: &Rig, device: &Device, v5: bool) -> Vec<u8> {
    let none: &[u8] = if v5 { &[0] } else { &[] };
    let topic = text(device.vitals().as_bytes());
    let publish = |first, id: &[u8], sequence| {
        let sealed = rig.seal(device, sequence);
        packet(first, &[&topic[..], id, none, &sealed])
    };
    let level = if v5 { 5 } else { 4 };
    let mut connect = [b"\0\x04MQTT", &[level, 0x02, 0, 30][..]].concat();
    if v5 {
        connect.extend([5, 0x11, 0, 0, 0, 60]); // session expiry
    }
    connect.extend(text(device.id.as_str().as_bytes()));
    let down = text(format!("v1/d/{}/down", device.id).as_bytes());
    [
        packet(0x10, &[&connect]),
        packet(
            0x82,
            &[&[0, 1], none, &text(b"v1/recipient"), &[0], &down, &[0]],
        ),
        publish(0x30, &[], 1),
        publish(0x32, &[0, 2], 2),
        publish(0x34, &[0, 3], 3),
        vec![0x62, 2, 0, 3],
        vec![0xC0, 0],
        packet(0xA2, &[&[0, 4], none, &down]),
        vec![0xE0, 0],
    ]
    .concat()
}

/// Reads whatever the server says until it closes or says no more.
async fn listen(raw: &mut Raw) {
    let mut unread = [0; 4_096];
    while let Ok(Ok(1..)) = timeout(Duration::from_millis(5), raw.stream.read(&mut unread)).await {}
}

#[tokio::test]
async fn packets_at_random_take_nothing_down() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let mut runner = TestRunner::deterministic();
    let first = select(vec![
        0x10_u8, 0x30, 0x32, 0x34, 0x40, 0x62, 0x82, 0xA2, 0xC0, 0xE0,
    ]);
    let packets = vec((first, vec(BYTE, 0..60)), 1..8);
    for round in 0..90 {
        let mut stream = Vec::new();
        for (first, body) in packets.new_tree(&mut runner).unwrap().current() {
            stream.extend(packet(first, &[&body]));
        }
        let mut raw = match round % 3 {
            0 => Raw::tls(&rig, &device).await.unwrap(),
            1 => Raw::v4(&rig, &device, false).await.0,
            _ => Raw::v5(&rig, &device, "mon-1").await.0,
        };
        raw.send(&stream).await;
        listen(&mut raw).await;
    }
    unharmed(&rig).await;
}

#[tokio::test]
async fn damaged_sessions_take_nothing_down_and_store_nothing_that_was_not_sealed() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let sessions = [false, true].map(|v5| session(&rig, &device, v5));
    let mut runner = TestRunner::deterministic();
    let damages = vec(damage(), 1..6);
    for round in 0..200 {
        let mut stream = sessions[round % 2].clone();
        for damage in damages.new_tree(&mut runner).unwrap().current() {
            damage.apply(&mut stream);
        }
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        raw.send(&stream).await;
        listen(&mut raw).await;
    }
    // Of each version three messages were sealed: whatever became of the others, no more than those are rows.
    assert!(rig.rows().await <= 6);
    unharmed(&rig).await;
}
