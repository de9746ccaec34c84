//! The edge's numbers, each with the reason for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use vitalseal_crypto::MAX_ENVELOPE_BYTES;

use super::rate::Rate;

/// What the edge allows a peer. `Default` is for a two-core node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeLimits {
    /// TCP connections at once, handshaking ones included. Twice the devices that a node is built for, so that a
    /// reconnect storm finds room beside connections that are still timing out; 20,000 file descriptors.
    pub connections: usize,
    /// The same per peer address (IPv6: per /64). Wards sit behind one address translator, so this is not small; it
    /// keeps one misbehaving host from taking every slot.
    pub connections_per_address: usize,
    /// Of the connections, how many may be of peers that have not proven who they are: waiting for their handshake, in
    /// it, or before the end of CONNECT. A quarter: half-open strangers never take what devices stand on.
    pub strangers: usize,
    /// The same per peer address: silent hosts have to be many to take the strangers' part.
    pub strangers_per_address: usize,
    /// TLS handshakes that begin, a second. See [`EdgeLimits::handshakes_on`].
    pub handshakes: Rate,
    /// The same per peer address: half of it, so that no host takes the rate alone.
    pub handshakes_per_address: Rate,
    /// How long a connection may wait for its handshake to begin; one that would wait longer is closed at once, and
    /// its client backs off. Less than the 20 s after which our device gives up.
    pub handshake_patience: Duration,
    /// From there to the end of the TLS handshake. Two round trips of a bad mobile link, many times over.
    pub handshake_deadline: Duration,
    /// From the end of the handshake to a whole CONNECT.
    pub connect_deadline: Duration,
    /// Size of a CONNECT: a client id of 64 bytes, properties that nobody reads, and a will, which is an envelope of a few
    /// readings. Wills are kept for each connection, so this is their bound, too.
    pub connect_bytes: usize,
    /// All that is read of a stranger, TLS included: a hello of 2 KiB, a chain of three certificates, a CONNECT, with
    /// room. Within the two deadlines this is also its bandwidth.
    pub stranger_bytes: usize,
    /// Size of any later packet: the largest envelope (256 KiB), topic and properties.
    pub packet_bytes: usize,
    /// From the first byte of a packet to its last. The largest one over the slowest mobile link (40 kbit/s).
    pub packet_deadline: Duration,
    /// Bytes that are read of one connection. A monitor with twelve leads of ECG sends 12 KiB a second; a backlog of hours
    /// goes eighty times as fast. A burst is the largest packet many times over. It begins anew with each connection:
    /// whoever connects again and again for it is held to the rates of handshakes and of packets.
    pub bytes: Rate,
    /// Packets that are read of one device, counted on over its connections. Devices send one message a second or less;
    /// a day's backlog at one a second is through in seven minutes. Of WebSocket frames that carry none, as pings, a
    /// connection may send as many again; beyond that it is closed.
    pub packets: Rate,
    /// v5 receive maximum. With 1 ms to durability, 64 in flight are far beyond what one device can produce.
    pub receive_maximum: u16,
    /// Messages of one connection between arrival and acknowledgement, QoS 0 included; then it is not read further.
    pub in_flight: usize,
    /// The longest keep-alive granted. A v5 client that asks for more, or none, is told; a v3.1.1 client that asks for
    /// none is closed after one and a half of these in silence, as v3.1.1 3.1.2.10 permits for inactive clients.
    pub keep_alive: Duration,
    /// A peer that does not take our bytes for this long is gone.
    pub write_deadline: Duration,
    /// At shutdown: how long acknowledgements on their way may take.
    pub drain_deadline: Duration,
    /// At a takeover: how long the old connection may take to let go.
    pub takeover_deadline: Duration,
    /// How long a session may outlive its connection, whatever the client asks for. A week: a device that was longer away
    /// begins anew, and loses nothing of its own by that.
    pub longest_session: Duration,
}

impl EdgeLimits {
    /// Handshakes a second on so many cores.
    ///
    /// One costs a core 0.16 ms (P-256 throughout), and 0.57 ms until its session stands. So 500 a core leave more than
    /// two thirds of it to the devices that are connected, and 10,000 devices are back in ten seconds on two cores.
    #[must_use]
    pub fn handshakes_on(cores: usize) -> u32 {
        u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(500)
    }

    /// The seconds that a session outlives its connection, of those that the client asked for.
    #[must_use]
    pub(crate) fn session_expiry(&self, asked: u32) -> u32 {
        let longest = u32::try_from(self.longest_session.as_secs()).unwrap_or(u32::MAX);
        asked.min(longest)
    }

    /// Sets the rate at which handshakes begin, and what one address may take of it.
    pub fn set_handshakes_per_s(&mut self, per_s: u32) {
        // A tenth of a second's worth at once: enough that nobody waits who need not.
        let rate = |per_s: u32| Rate {
            per_s: per_s.max(1),
            at_once: (per_s / 10).max(1),
        };
        self.handshakes = rate(per_s);
        self.handshakes_per_address = rate(per_s / 2);
    }
}

impl Default for EdgeLimits {
    fn default() -> Self {
        let unset = Rate {
            per_s: 1,
            at_once: 1,
        };
        let mut limits = Self {
            connections: 20_000,
            connections_per_address: 2_000,
            strangers: 5_000,
            strangers_per_address: 1_000,
            handshakes: unset,
            handshakes_per_address: unset,
            handshake_patience: Duration::from_secs(10),
            handshake_deadline: Duration::from_secs(10),
            connect_deadline: Duration::from_secs(10),
            connect_bytes: 8 * 1024,
            stranger_bytes: 32 * 1024,
            packet_bytes: MAX_ENVELOPE_BYTES + 44 * 1024,
            packet_deadline: Duration::from_secs(60),
            bytes: Rate {
                per_s: 1 << 20,
                at_once: 8 << 20,
            },
            packets: Rate {
                per_s: 200,
                at_once: 2_000,
            },
            receive_maximum: 64,
            in_flight: 128,
            keep_alive: Duration::from_secs(20 * 60),
            write_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(5),
            takeover_deadline: Duration::from_secs(2),
            longest_session: Duration::from_secs(7 * 24 * 60 * 60),
        };
        limits.set_handshakes_per_s(Self::handshakes_on(2));
        limits
    }
}

/// The limits as they are now: whoever holds this sees a change at once.
#[derive(Debug, Clone)]
pub struct Limits(watch::Sender<Arc<EdgeLimits>>);

impl Limits {
    pub(crate) fn new(limits: EdgeLimits) -> Self {
        Self(watch::Sender::new(Arc::new(limits)))
    }

    /// Those of now.
    #[must_use]
    pub fn get(&self) -> Arc<EdgeLimits> {
        Arc::clone(&self.0.borrow())
    }

    /// Puts others in their place, for connections that stand and those to come.
    pub fn set(&self, limits: EdgeLimits) {
        self.0.send_replace(Arc::new(limits));
    }
}
