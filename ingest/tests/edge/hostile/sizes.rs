//! Sizes that are not true, or too large to be.

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use tokio::io::AsyncWriteExt;
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::edge::Closing;

use super::{closed_for, ends_v4, ends_v5, unharmed};
use crate::raw::{Raw, packet, text};
use crate::rig::Rig;

/// The largest remaining length there is, with nothing behind it.
const WHOLE_256_MIB: [u8; 4] = [0xFF, 0xFF, 0xFF, 0x7F];

/// CWE-789; CVE-2023-0809: memory was set aside for whatever a first packet announced.
#[tokio::test]
async fn an_announced_length_of_256_mib_is_refused_before_anything_of_it_comes() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    for first in [0x10, 0x30, 0x82] {
        let mut raw = Raw::tls(&rig, &device).await.unwrap();
        raw.send(&[&[first][..], &WHOLE_256_MIB].concat()).await;
        assert_eq!(raw.read4().await, None);
    }
    for (times, first) in [(4, 0x32), (6, 0x82)] {
        let bytes = [&[first][..], &WHOLE_256_MIB].concat();
        ends_v4(&rig, &device, &bytes, Closing::TooLarge).await;
        let told = ends_v5(&rig, &device, &bytes, Closing::TooLarge).await;
        assert_eq!(told, Some(DisconnectReasonCode::PacketTooLarge));
        closed_for(&rig, Closing::TooLarge, times + 1).await;
    }
    unharmed(&rig).await;
}

/// CWE-835; CVE-2019-19307: a remaining length that never ends kept a server in a loop.
#[tokio::test]
async fn a_remaining_length_of_five_bytes_is_malformed() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let endless = [0x32, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0, 0];
    let padded = [0x32, 0x83, 0x00, 0, 1, b'x'];
    for bytes in [&endless[..], &padded] {
        ends_v4(&rig, &device, bytes, Closing::Malformed).await;
        let told = ends_v5(&rig, &device, bytes, Closing::Malformed).await;
        assert_eq!(told, Some(DisconnectReasonCode::MalformedPacket));
    }
    let mut raw = Raw::tls(&rig, &device).await.unwrap();
    raw.send(&[0x10, 0x80, 0x80, 0x80, 0x80, 0x01]).await;
    assert_eq!(raw.read4().await, None);
    drop(raw);
    unharmed(&rig).await;
}

/// CWE-125; CVE-2026-25627: more was announced than came, and read all the same.
#[tokio::test]
async fn an_announced_length_that_never_comes_is_waited_for_and_not_read() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let (mut raw, _) = Raw::v5(&rig, &device, "mon-1").await;
    raw.send(&[0x32, 0x80, 0x20, 0, 3, b'a']).await;
    raw.stream.shutdown().await.unwrap();
    closed_for(&rig, Closing::Gone, 1).await;
    drop(raw);
    // The same inside a packet: strings, properties and identifiers that reach beyond its end.
    let properties = packet(
        0x32,
        &[&text(b"v1/d/mon-1/vitals")[..], &[0, 1, 0xFF, 0x7F]],
    );
    let no_identifier = packet(0x32, &[&text(b"v1/d/mon-1/vitals")]);
    let filter = packet(0x82, &[&[0, 1, 0, 0xFF, 0xFF, b'a', 0]]);
    for bytes in [
        &[0x32, 3, 0, 40, 0][..],
        &properties,
        &no_identifier,
        &filter,
    ] {
        let told = ends_v5(&rig, &device, bytes, Closing::Malformed).await;
        assert_eq!(
            told,
            Some(DisconnectReasonCode::MalformedPacket),
            "{bytes:02x?}"
        );
    }
    unharmed(&rig).await;
}

/// CWE-770: a limit that is off by a little, or held against the payload alone.
#[tokio::test]
async fn a_packet_just_above_the_limit_ends_the_connection_and_one_below_is_kept_aside() {
    let rig = Rig::start().await;
    let device = rig.device("mon-1").await;
    let topic = text(device.vitals());
    let with = |payload: usize| packet(0x32, &[&topic[..], &[0, 1], &vec![0; payload]]);
    let most = EdgeLimits::default().packet_bytes;
    let header = with(most).len() - most;
    ends_v4(&rig, &device, &with(most - header + 1), Closing::TooLarge).await;
    // Larger than an envelope, and not than the packet limit.
    let (mut raw, _) = Raw::v4(&rig, &device, true).await;
    raw.send(&with(most - header)).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
    assert_eq!(rig.metrics.quarantined(), 1);
    drop(raw);
    unharmed(&rig).await;
}
