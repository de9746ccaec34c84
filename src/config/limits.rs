//! `[mqtt.limits]`: what the edge allows a peer, as far as a site may want it otherwise. `vitalseal server reload` applies
//! a change to connections that stand, too.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vitalseal_ingest::EdgeLimits;
use vitalseal_ingest::edge::Rate;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[mqtt.limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections from one address (IPv6: from one /64). More than the devices behind one address translator.
    pub connections_per_address: usize,
    /// Connections that have not proven who they are; `None` is a quarter of `mqtt.connections`.
    pub strangers: Option<usize>,
    /// The same from one address.
    pub strangers_per_address: usize,
    /// TLS handshakes that begin, a second; `None` is 500 a core. One address gets half of them at most.
    pub handshakes_per_s: Option<u32>,
    /// Packets a second of one device, on average; ten seconds' worth at once.
    pub packets_per_s: u32,
    /// Bytes a second of one connection, on average; eight seconds' worth at once.
    pub bytes_per_s: u32,
    /// The longest keep-alive, in seconds: a device that is silent for one and a half of it is taken for gone.
    pub keep_alive_s: u16,
    /// How long a session may outlive its connection, in days: what is told to many waits that long for a listener.
    pub session_days: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_address: 2_000,
            strangers: None,
            strangers_per_address: 1_000,
            handshakes_per_s: None,
            packets_per_s: 200,
            bytes_per_s: 1 << 20,
            keep_alive_s: 20 * 60,
            session_days: 7,
        }
    }
}

impl Limits {
    /// # Errors
    /// A limit that nobody could live with.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Self {
            connections_per_address,
            strangers,
            strangers_per_address,
            handshakes_per_s,
            packets_per_s,
            bytes_per_s,
            keep_alive_s,
            session_days,
        } = self;
        for (name, is_zero) in [
            ("connections_per_address", *connections_per_address == 0),
            ("strangers", *strangers == Some(0)),
            ("strangers_per_address", *strangers_per_address == 0),
            ("handshakes_per_s", *handshakes_per_s == Some(0)),
            ("packets_per_s", *packets_per_s == 0),
        ] {
            anyhow::ensure!(!is_zero, "mqtt.limits.{name} must be at least 1");
        }
        anyhow::ensure!(
            *bytes_per_s >= 1024,
            "mqtt.limits.bytes_per_s must be at least 1024: a message could not arrive before its deadline"
        );
        anyhow::ensure!(
            *keep_alive_s >= 10,
            "mqtt.limits.keep_alive_s must be at least 10"
        );
        anyhow::ensure!(
            (1..=365).contains(session_days),
            "mqtt.limits.session_days must be 1 to 365"
        );
        Ok(())
    }

    /// For the edge: with `connections` in all, on so many cores.
    pub(super) fn edge(&self, connections: usize, cores: usize) -> EdgeLimits {
        let mut limits = EdgeLimits {
            connections,
            connections_per_address: self.connections_per_address,
            strangers: self.strangers.unwrap_or((connections / 4).max(1)),
            strangers_per_address: self.strangers_per_address,
            packets: Rate {
                per_s: self.packets_per_s,
                at_once: self.packets_per_s.saturating_mul(10),
            },
            bytes: Rate {
                per_s: self.bytes_per_s,
                at_once: self.bytes_per_s.saturating_mul(8),
            },
            keep_alive: Duration::from_secs(self.keep_alive_s.into()),
            longest_session: DAY * self.session_days.into(),
            ..EdgeLimits::default()
        };
        let default = EdgeLimits::handshakes_on(cores);
        limits.set_handshakes_per_s(self.handshakes_per_s.unwrap_or(default));
        limits
    }

    /// The table as it stands in the file.
    pub(super) fn commented(&self) -> String {
        let Self {
            connections_per_address,
            strangers,
            strangers_per_address,
            handshakes_per_s,
            packets_per_s,
            bytes_per_s,
            keep_alive_s,
            session_days,
        } = self;
        let strangers = strangers.map_or("# strangers = 2500".to_owned(), |n| {
            format!("strangers = {n}")
        });
        let handshakes = handshakes_per_s.map_or("# handshakes_per_s = 1000".to_owned(), |n| {
            format!("handshakes_per_s = {n}")
        });
        format!(
            r"[mqtt.limits]
# Applied while the server runs by `vitalseal server reload`, or on SIGHUP. An address is an IPv4 address or an IPv6 /64.
connections_per_address = {connections_per_address}
# Connections that have not proven yet who they are; a quarter of `connections` if not set.
{strangers}
strangers_per_address = {strangers_per_address}
# TLS handshakes that begin, a second; 500 a core if not set. One address gets half of them.
{handshakes}
# What one device may send on average; ten and eight seconds' worth at once. Too much is read later, not dropped.
packets_per_s = {packets_per_s}
bytes_per_s = {bytes_per_s}
# A device that is silent for one and a half keep-alives is taken for gone; this is the longest it may ask for.
keep_alive_s = {keep_alive_s}
# A client that was away for longer than this begins a session anew; what was told to many meanwhile it does not hear.
session_days = {session_days}
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_edge() {
        let edge = EdgeLimits::default();
        assert_eq!(Limits::default().edge(edge.connections, 2), edge);
    }

    #[test]
    fn a_limit_of_nothing_is_refused_by_its_name() {
        assert!(Limits::default().check().is_ok());
        let table: toml::Table = toml::Value::try_from(Limits::default())
            .unwrap()
            .try_into()
            .unwrap();
        let names = table.keys().map(String::as_str);
        for name in names.chain(["strangers", "handshakes_per_s"]) {
            let limits: Limits = toml::from_str(&format!("{name} = 0")).unwrap();
            let error = limits.check().unwrap_err().to_string();
            assert!(error.contains(&format!("mqtt.limits.{name} ")), "{error}");
        }
    }
}
