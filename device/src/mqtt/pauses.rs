//! How long to wait before the next connection.
//!
//! Pauses double, with jitter, so that ten thousand devices that lost one server do not come back at one instant. What a
//! server said when it closed the door counts: one that has too much to do is left alone for longer, one that knows the
//! device and does not want it is asked as rarely as can be, for it changes its mind at a person's word at the earliest.

use std::time::Duration;

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError};

use super::PublisherSettings;
use crate::prng::Prng;

/// Exponentially growing pauses with jitter.
pub(super) struct Pauses {
    prng: Prng,
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pauses {
    pub(super) fn new(device: &str, settings: &PublisherSettings) -> Self {
        let first = settings.first_pause.max(Duration::from_millis(1));
        let longest = settings.longest_pause.max(first);
        Self {
            prng: Prng::from_text(device),
            first,
            longest,
            next: first,
        }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The pause after a connection that ended so.
    pub(super) fn after(&mut self, error: &ConnectionError) -> Duration {
        match Answer::of(error) {
            Answer::None => {}
            Answer::Busy => self.next = self.next.saturating_mul(8).min(self.longest),
            Answer::Unwanted => self.next = self.longest,
        }
        let pause = self.next.mul_f64(0.5 + self.prng.unit() / 2.0);
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }
}

/// What a server said about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing: it is away, or the network is.
    None,
    /// Not now.
    Busy,
    /// Not this device.
    Unwanted,
}

impl Answer {
    fn of(error: &ConnectionError) -> Self {
        let io = match error {
            ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => {
                return Self::Busy;
            }
            ConnectionError::ConnectionRefused(_) => return Self::Unwanted,
            ConnectionError::Io(io)
            | ConnectionError::Tls(TlsError::Io(io))
            | ConnectionError::MqttState(
                StateError::Io(io) | StateError::Deserialization(PacketError::Io(io)),
            ) => io,
            _ => return Self::None,
        };
        // In TLS 1.3 a server judges the client's certificate when the client has finished its handshake already.
        let tls = io.get_ref().and_then(|inner| inner.downcast_ref());
        match tls {
            Some(rustls::Error::AlertReceived(_)) => Self::Unwanted,
            _ => Self::None,
        }
    }
}

/// Whether a CONNECT can have reached the server on a connection that ended so before its answer came.
pub(super) fn may_have_asked(error: &ConnectionError) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
    };
    match error {
        ConnectionError::ConnectionRefused(_) | ConnectionError::Tls(_) => false,
        ConnectionError::Io(io) => !matches!(
            io.kind(),
            AddrNotAvailable
                | ConnectionRefused
                | HostUnreachable
                | NetworkDown
                | NetworkUnreachable
        ),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::io;

    use jiff::Timestamp;
    use rustls::AlertDescription;

    use super::*;

    fn settings() -> PublisherSettings {
        PublisherSettings::new(|| Timestamp::UNIX_EPOCH)
    }

    fn away() -> ConnectionError {
        io::Error::from(io::ErrorKind::ConnectionRefused).into()
    }

    #[test]
    fn pauses_double_up_to_the_longest_with_jitter_and_differ_between_devices() {
        let settings = settings();
        let pauses = |device| {
            let mut pauses = Pauses::new(device, &settings);
            (0..12).map(|_| pauses.after(&away())).collect::<Vec<_>>()
        };
        let one = pauses("monitor-001");
        for (attempt, pause) in (0..).zip(&one) {
            let whole = settings
                .longest_pause
                .min(settings.first_pause * 2_u32.pow(attempt));
            assert!(
                *pause >= whole / 2 && *pause <= whole,
                "pause {attempt}: {pause:?}"
            );
        }
        assert_eq!(one, pauses("monitor-001"));
        assert_ne!(one, pauses("monitor-002"));
        let mut again = Pauses::new("monitor-001", &settings);
        for _ in 0..5 {
            again.after(&away());
        }
        again.reset();
        assert!(again.after(&away()) <= settings.first_pause);
    }

    #[test]
    fn a_server_that_says_no_is_left_alone_for_longer_than_one_that_says_nothing() {
        let settings = settings();
        let first = |error: ConnectionError| Pauses::new("monitor-001", &settings).after(&error);
        let refused = ConnectionError::ConnectionRefused;
        assert!(first(away()) <= settings.first_pause);
        let busy = first(refused(ConnectReturnCode::ServiceUnavailable));
        assert!(busy > 2 * settings.first_pause && busy < settings.longest_pause / 2);
        for code in [
            ConnectReturnCode::NotAuthorized,
            ConnectReturnCode::BadClientId,
            ConnectReturnCode::BadUserNamePassword,
        ] {
            assert!(
                first(refused(code)) >= settings.longest_pause / 2,
                "{code:?}"
            );
        }
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
        let alert = io::Error::new(io::ErrorKind::InvalidData, alert);
        let alert = StateError::Deserialization(PacketError::Io(alert));
        assert!(first(alert.into()) >= settings.longest_pause / 2);
    }

    /// Ten thousand devices lose their server at one instant. When it is back it admits so many a second; the others are
    /// cut off and come again by their own pauses.
    #[test]
    fn ten_thousand_devices_come_back_without_hammering() {
        const DEVICES: u32 = 10_000;
        const ADMITTED_A_SECOND: u32 = 500;
        let settings = settings();
        let mut pauses: Vec<_> = (0..DEVICES)
            .map(|n| Pauses::new(&format!("monitor-{n}"), &settings))
            .collect();
        let cut = || ConnectionError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        let mut arrivals: BinaryHeap<_> = (0..)
            .zip(&mut pauses)
            .map(|(n, pauses): (usize, _)| Reverse((pauses.after(&cut()), n)))
            .collect();
        let (mut second, mut admitted, mut attempts) = (0, 0, 0_u32);
        let mut back_at = Duration::ZERO;
        while let Some(Reverse((at, device))) = arrivals.pop() {
            attempts += 1;
            if at.as_secs() > second {
                (second, admitted) = (at.as_secs(), 0);
            }
            if admitted < ADMITTED_A_SECOND {
                admitted += 1;
                back_at = at;
            } else {
                arrivals.push(Reverse((at + pauses[device].after(&cut()), device)));
            }
        }
        assert!(back_at < Duration::from_secs(120), "{back_at:?}");
        assert!(attempts < 8 * DEVICES, "{attempts} attempts");
    }
}
