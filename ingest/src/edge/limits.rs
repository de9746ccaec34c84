//! The edge's numbers, each with the reason for it.

use std::time::Duration;

use vitalseal_crypto::MAX_ENVELOPE_BYTES;

/// What the edge allows a peer. `Default` is for a two-core node.
#[derive(Debug, Clone)]
pub struct EdgeLimits {
    /// TCP connections at once, handshaking ones included. Twice the devices that a node is built for, so that a
    /// reconnect storm finds room beside connections that are still timing out; 20,000 file descriptors.
    pub connections: usize,
    /// The same per peer address. Wards sit behind one address translator, so this is not small; it keeps one
    /// misbehaving host from taking every slot.
    pub connections_per_address: usize,
    /// From TCP accept to the end of the TLS handshake. Two round trips of a bad mobile link, many times over.
    pub handshake_deadline: Duration,
    /// From the end of the handshake to a whole CONNECT.
    pub connect_deadline: Duration,
    /// Size of a CONNECT: a client id of 64 bytes and properties that nobody reads.
    pub connect_bytes: usize,
    /// Size of any later packet: the largest envelope (256 KiB), topic and properties.
    pub packet_bytes: usize,
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
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 2_000,
            handshake_deadline: Duration::from_secs(10),
            connect_deadline: Duration::from_secs(10),
            connect_bytes: 8 * 1024,
            packet_bytes: MAX_ENVELOPE_BYTES + 44 * 1024,
            receive_maximum: 64,
            in_flight: 128,
            keep_alive: Duration::from_secs(20 * 60),
            write_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(5),
            takeover_deadline: Duration::from_secs(2),
        }
    }
}
