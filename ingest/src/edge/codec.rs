//! Bytes to packets and back, for both protocol versions: [`hello`] and [`inbound`] read, [`encode`] writes.
//!
//! Written here, and not taken from a client library: such a codec reads what its own server sends, and is lenient where
//! a server must not be. The tests show it of `rumqttc`'s, and hold this one against it.
//!
//! Never here: what a packet means for the session, a topic's owner, a quotation of what the peer sent.

mod decode;
mod encode;
mod hello;
mod properties;
mod reader;

use super::closing::Closing;

pub(crate) use self::decode::inbound;
pub(crate) use self::encode::encode;
pub(crate) use self::hello::{HelloError, hello};

/// A packet that must not be handled. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It cannot be parsed (v5 1.2 "Malformed Packet").
    #[error("malformed packet")]
    Malformed,
    /// It can, and says what must not be said (v5 1.2 "Protocol Error").
    #[error("packet against the protocol")]
    Protocol,
    /// It can, and asks for more at once than this server does.
    #[error("packet with too much in it")]
    TooLarge,
}

impl From<Unreadable> for Closing {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Malformed => Self::Malformed,
            Unreadable::Protocol => Self::Protocol,
            Unreadable::TooLarge => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests;
