//! A world of one edge and one device, a peer that speaks bytes, and the bytes that it speaks.

use std::ops::Deref;
use std::time::Duration;

use vitalseal_ingest::EdgeLimits;

use crate::raw::Raw;
pub(crate) use crate::raw::{packet, text};
use crate::rig::{Device, PATIENCE, Rig};

/// The protocol level of CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum V {
    Four = 4,
    Five = 5,
}

pub(crate) use V::{Five, Four};

pub(crate) const ID: &str = "mon-1";
pub(crate) const VITALS: &str = "v1/d/mon-1/vitals";
pub(crate) const DOWN: &str = "v1/d/mon-1/down";
pub(crate) const RECIPIENT: &str = "v1/recipient";

/// Flags of CONNECT.
pub(crate) const CLEAN: u8 = 2;
pub(crate) const WILL: u8 = 4;

/// An edge, and the device [`ID`], enrolled.
pub(crate) struct World {
    rig: Rig,
    pub(crate) device: Device,
}

impl Deref for World {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_limits(EdgeLimits::default()).await
    }

    pub(crate) async fn with_limits(limits: EdgeLimits) -> Self {
        let rig = Rig::with_limits(limits).await;
        let device = rig.device(ID).await;
        Self { rig, device }
    }

    /// TLS, and no CONNECT yet.
    pub(crate) async fn dial(&self) -> Peer {
        Peer::over(Raw::tls(&self.rig, &self.device).await.unwrap())
    }

    /// Connected in a session of its own, CONNACK read.
    pub(crate) async fn connected(&self, v: V) -> Peer {
        let (mut peer, connack) = self.connects(v, CLEAN, &[], &[]).await;
        assert_eq!(connack[2..4], [0, 0], "accepted, no session");
        peer.v = v;
        peer
    }

    /// Connected in a session that is kept for an hour; whether one was there.
    pub(crate) async fn kept(&self, v: V) -> (Peer, bool) {
        let (peer, connack) = self.connects(v, 0, &KEPT, &[]).await;
        assert_eq!(connack[3], 0, "accepted");
        (peer, connack[2] == 1)
    }

    /// Sends a CONNECT and reads the CONNACK.
    pub(crate) async fn connects(
        &self,
        v: V,
        flags: u8,
        properties: &[u8],
        rest: &[u8],
    ) -> (Peer, Vec<u8>) {
        let mut peer = self.dial().await;
        peer.v = v;
        peer.send(&connect(v, flags, properties, rest)).await;
        let connack = peer.packet().await.expect("an answer");
        assert_eq!(connack[0], 0x20);
        (peer, connack)
    }

    /// Sends a first packet that must get no answer.
    pub(crate) async fn is_cut(&self, first: &[u8]) {
        let mut peer = self.dial().await;
        peer.send(first).await;
        assert_eq!(peer.packet().await, None, "{first:02x?}");
    }

    /// Sends a packet in a session, which must end it: v5 is told why.
    pub(crate) async fn is_refused(&self, v: V, packet: &[u8], reason: u8) {
        let mut peer = self.connected(v).await;
        peer.send(packet).await;
        peer.is_told(reason).await;
    }

    /// Stops the server. What it was still to do is done then: wills that are due, messages that are under way.
    pub(crate) async fn stop(&mut self) {
        self.rig.shutdown.cancel();
        (&mut self.rig.serving).await.unwrap();
    }

    /// Queues a message for the device; the bytes that it comes in, by identifier.
    pub(crate) async fn tells(&self, text: &str) {
        use vitalseal_storage::{Clock, SystemClock};
        let now = SystemClock.now();
        let until = now + jiff::SignedDuration::from_hours(1);
        let (inbox, id) = (&self.store.inbox, &self.device.id);
        inbox.tell(id, text.as_bytes(), now, until).await.unwrap();
    }
}

/// v5: a session expiry of an hour.
pub(crate) const KEPT: [u8; 5] = [0x11, 0, 0, 0x0E, 0x10];

pub(crate) struct Peer {
    raw: Raw,
    pub(crate) v: V,
}

impl Peer {
    pub(crate) fn over(raw: Raw) -> Self {
        Self { raw, v: Four }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.raw.send(bytes).await;
    }

    /// The next packet, whole; `None` when the server closed.
    pub(crate) async fn packet(&mut self) -> Option<Vec<u8>> {
        self.raw.packet().await
    }

    /// The next packet is this one.
    pub(crate) async fn hears(&mut self, expected: &[u8]) {
        let packet = self.packet().await;
        assert_eq!(packet.as_deref(), Some(expected), "{packet:02x?}");
    }

    pub(crate) async fn asks(&mut self, question: &[u8], answer: &[u8]) {
        self.send(question).await;
        self.hears(answer).await;
    }

    /// Nothing is on its way to it: its pings are what is answered next. Two, because the first answer may overtake what
    /// the server is about to say, and the second is only heard after that.
    pub(crate) async fn hears_nothing(&mut self) {
        self.asks(&PINGREQ, &PINGRESP).await;
        self.asks(&PINGREQ, &PINGRESP).await;
    }

    /// The server ends it, in words if it has any.
    pub(crate) async fn is_told(&mut self, reason: u8) {
        if self.v == Five {
            self.hears(&[0xE0, 2, reason, 0]).await;
        }
        assert_eq!(self.packet().await, None);
    }

    /// Publishes an envelope and reads the acknowledgement.
    pub(crate) async fn publishes(&mut self, first: u8, id: u16, payload: &[u8]) -> Vec<u8> {
        self.send(&publish(self.v, first, VITALS, Some(id), payload))
            .await;
        self.packet().await.expect("an acknowledgement")
    }

    /// Subscribes, and reads the SUBACK that grants it.
    pub(crate) async fn subscribes(&mut self, filter: &str, options: u8) {
        let suback = suback(self.v, 77, &[options & 1 | (options & 2) >> 1]);
        self.asks(&subscribe(self.v, 77, &[(filter, options)]), &suback)
            .await;
    }
}

/// Waits until the inbox has so many rows.
pub(crate) async fn rows(rig: &Rig, expected: u64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while rig.rows().await != expected {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} rows",
            rig.rows().await
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const PINGRESP: [u8; 2] = [0xD0, 0];
pub(crate) const BYE: [u8; 2] = [0xE0, 0];

/// v5: properties with their length in front; v3.1.1: nothing.
pub(crate) fn properties(v: V, properties: &[u8]) -> Vec<u8> {
    match v {
        Four => Vec::new(),
        Five => packet(0, &[properties]).split_off(1),
    }
}

/// A CONNECT of [`ID`] with a keep-alive of 30 s; `rest` follows the client identifier.
pub(crate) fn connect(v: V, flags: u8, props: &[u8], rest: &[u8]) -> Vec<u8> {
    connect_as(v, flags, props, &[&text(ID)[..], rest].concat())
}

/// The same, with `payload` in place of all that follows the properties.
pub(crate) fn connect_as(v: V, flags: u8, props: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = [v as u8, flags, 0, 30];
    packet(
        0x10,
        &[b"\x00\x04MQTT", &header, &properties(v, props), payload],
    )
}

/// What follows the client identifier when there is a will.
pub(crate) fn will(v: V, props: &[u8], topic: &str, payload: &[u8]) -> Vec<u8> {
    [properties(v, props), text(topic), text(payload)].concat()
}

/// `first` is the first byte: 0x30 for QoS 0, 0x32 for 1, 0x34 for 2.
pub(crate) fn publish(v: V, first: u8, topic: &str, id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let id = id.map(u16::to_be_bytes);
    let id = id.as_ref().map_or(&[][..], |id| id);
    packet(first, &[&text(topic), id, &properties(v, &[]), payload])
}

pub(crate) fn subscribe(v: V, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let entry = |(filter, options): &(&str, u8)| [text(filter), vec![*options]].concat();
    let filters = filters.iter().flat_map(entry).collect::<Vec<u8>>();
    packet(0x82, &[&id.to_be_bytes(), &properties(v, &[]), &filters])
}

pub(crate) fn suback(v: V, id: u16, codes: &[u8]) -> Vec<u8> {
    packet(0x90, &[&id.to_be_bytes(), &properties(v, &[]), codes])
}

pub(crate) fn unsubscribe(v: V, id: u16, filters: &[&str]) -> Vec<u8> {
    let filters = filters.iter().flat_map(text).collect::<Vec<u8>>();
    packet(0xA2, &[&id.to_be_bytes(), &properties(v, &[]), &filters])
}

pub(crate) fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &[&id.to_be_bytes()])
}

/// Two tests of one body: a statement of each version, which say the same.
macro_rules! both {
    ($($(#[$doc:meta])* $four:ident, $five:ident: $body:expr;)*) => {$(
        $(#[$doc])*
        #[tokio::test]
        async fn $four() {
            let body: fn($crate::peer::World, $crate::peer::V) -> _ = $body;
            body($crate::peer::World::new().await, $crate::peer::Four).await;
        }

        $(#[$doc])*
        #[tokio::test]
        async fn $five() {
            let body: fn($crate::peer::World, $crate::peer::V) -> _ = $body;
            body($crate::peer::World::new().await, $crate::peer::Five).await;
        }
    )*};
}

/// Tests whose first packets are closed without an answer.
macro_rules! cut {
    ($($name:ident: $packet:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            $crate::peer::World::new().await.is_cut(&$packet).await;
        }
    )*};
}

/// Tests whose packets end a session, and what v5 is told.
macro_rules! refused {
    ($($name:ident: $v:expr, $packet:expr => $reason:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            $crate::peer::World::new().await.is_refused($v, &$packet, $reason).await;
        }
    )*};
}

pub(crate) use {both, cut, refused};
