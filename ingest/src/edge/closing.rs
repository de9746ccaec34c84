//! Why a connection ended: counted and logged for us, reduced to a reason code for a v5 peer.

use super::packet::DisconnectCode;

/// The end of a connection, from our side's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// The client said DISCONNECT.
    Goodbye,
    /// The stream ended without one.
    Gone,
    /// The TLS handshake failed or took too long: no certificate, another CA's, or no TLS at all.
    Handshake,
    /// No CONNECT in time, or not a CONNECT.
    NoConnect,
    /// A protocol level other than 4 and 5.
    UnsupportedVersion,
    /// There was no certificate where one has to be, it names nobody of ours, or is outside its validity.
    Certificate,
    /// Not enrolled, suspended, revoked, or enrolled with another certificate.
    NotActive,
    /// The client identifier is not the one that the certificate names, or not one that a person's client may have.
    ClientId,
    /// No request for a WebSocket of MQTT, or a page's that is not listed.
    Upgrade,
    /// Name and token were not right, or there was neither token nor certificate.
    Login,
    /// CONNECT asked for enhanced authentication, which this server does not do, or for packets so small that it cannot be
    /// answered.
    UnsupportedConnect,
    /// A packet that cannot be read.
    Malformed,
    /// A packet that is readable and must not come now.
    Protocol,
    /// Larger than the limit, or with more topic filters.
    TooLarge,
    /// A topic alias although none were offered.
    TopicAlias,
    /// More unacknowledged messages than the receive maximum.
    ReceiveMaximum,
    /// A publish to a topic that is not the client's, or a will there.
    NotAuthorized,
    /// Silent for one and a half keep-alives [MQTT-3.1.2-24].
    KeepAlive,
    /// A packet began and did not end in time.
    Stalled,
    /// The peer does not read what we send.
    SlowReader,
    /// So far behind what it subscribed to that messages for it are gone: its session ends with it.
    Lagged,
    /// The same client connected again [MQTT-3.1.4-3].
    TakenOver,
    /// The client was suspended, revoked, or given another certificate, while connected.
    Revoked,
    /// The token that a person came with has ended.
    Expired,
    /// A message could not be made durable, so it must not be acknowledged.
    Storage,
    /// The disk is full: what came is not kept, and not acknowledged, not even with an error. A PUBACK of whatever
    /// reason ends the message for its client [MQTT-4.4.0-2], which would lose it; this sends it back to wait.
    Full,
    /// A message only named its session's key, and that is not known: it has to come with the key in full.
    UnknownSender,
    /// The server is stopping.
    Shutdown,
    /// A limit on connections was reached.
    Limit,
    /// Too many handshakes were to begin before this one.
    Busy,
    /// Something in this server failed.
    Internal,
}

impl Closing {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 31] = [
        Self::Goodbye,
        Self::Gone,
        Self::Handshake,
        Self::NoConnect,
        Self::UnsupportedVersion,
        Self::Certificate,
        Self::NotActive,
        Self::ClientId,
        Self::Upgrade,
        Self::Login,
        Self::UnsupportedConnect,
        Self::Malformed,
        Self::Protocol,
        Self::TooLarge,
        Self::TopicAlias,
        Self::ReceiveMaximum,
        Self::NotAuthorized,
        Self::KeepAlive,
        Self::Stalled,
        Self::SlowReader,
        Self::Lagged,
        Self::TakenOver,
        Self::Revoked,
        Self::Expired,
        Self::Storage,
        Self::Full,
        Self::UnknownSender,
        Self::Shutdown,
        Self::Limit,
        Self::Busy,
        Self::Internal,
    ];

    /// Stable name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Goodbye => "goodbye",
            Self::Gone => "gone",
            Self::Handshake => "handshake",
            Self::NoConnect => "no_connect",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Certificate => "certificate",
            Self::NotActive => "not_active",
            Self::ClientId => "client_id",
            Self::Upgrade => "upgrade",
            Self::Login => "login",
            Self::UnsupportedConnect => "unsupported_connect",
            Self::Malformed => "malformed",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::TopicAlias => "topic_alias",
            Self::ReceiveMaximum => "receive_maximum",
            Self::NotAuthorized => "not_authorized",
            Self::KeepAlive => "keep_alive",
            Self::Stalled => "stalled",
            Self::SlowReader => "slow_reader",
            Self::Lagged => "lagged",
            Self::TakenOver => "taken_over",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Storage => "storage",
            Self::Full => "full",
            Self::UnknownSender => "unknown_sender",
            Self::Shutdown => "shutdown",
            Self::Limit => "limit",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }

    /// The peer's doing, or its bad luck, and not an ordinary end.
    pub(crate) fn is_refusal(self) -> bool {
        !matches!(
            self,
            Self::Goodbye | Self::Gone | Self::TakenOver | Self::Shutdown
        )
    }

    /// What a v5 peer is told, `None` when there is nobody left to tell.
    pub(crate) fn disconnect_code(self) -> Option<DisconnectCode> {
        match self {
            Self::Goodbye
            | Self::Gone
            | Self::Handshake
            | Self::NoConnect
            | Self::UnsupportedVersion
            | Self::Certificate
            | Self::NotActive
            | Self::ClientId
            | Self::Upgrade
            | Self::Login
            | Self::UnsupportedConnect
            | Self::SlowReader
            | Self::Limit
            | Self::Busy => None,
            Self::Malformed => Some(DisconnectCode::Malformed),
            Self::Protocol => Some(DisconnectCode::ProtocolError),
            Self::TooLarge => Some(DisconnectCode::PacketTooLarge),
            Self::TopicAlias => Some(DisconnectCode::TopicAliasInvalid),
            Self::ReceiveMaximum => Some(DisconnectCode::ReceiveMaximumExceeded),
            Self::NotAuthorized => Some(DisconnectCode::NotAuthorized),
            Self::KeepAlive | Self::Stalled => Some(DisconnectCode::KeepAliveTimeout),
            Self::Lagged | Self::Full => Some(DisconnectCode::QuotaExceeded),
            Self::TakenOver => Some(DisconnectCode::SessionTakenOver),
            Self::Revoked => Some(DisconnectCode::AdministrativeAction),
            Self::Expired => Some(DisconnectCode::MaximumConnectTime),
            Self::Shutdown => Some(DisconnectCode::ServerShuttingDown),
            Self::Storage | Self::UnknownSender | Self::Internal => {
                Some(DisconnectCode::Unspecified)
            }
        }
    }
}

impl std::fmt::Display for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
