//! Control packets as this server sees them: one set of types for MQTT 3.1.1 and 5.
//!
//! Decoding and encoding is done by the codecs of `rumqttc`; [`super::codec`] maps between them and these. What a device
//! may send and this server never uses (wills, logins, user properties) is reduced to the fact that it was there.

use bytes::Bytes;

/// Protocol version, read from the CONNECT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V311,
    /// MQTT 5 (protocol level 5).
    V5,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the standard's own names")]
pub(crate) enum Qos {
    /// 0
    AtMostOnce,
    /// 1
    AtLeastOnce,
    /// 2
    ExactlyOnce,
}

/// What a CONNECT says, as far as this server cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    /// v3.1.1 `CleanSession`, v5 `Clean Start`.
    pub(crate) clean: bool,
    /// Seconds, 0 = off.
    pub(crate) keep_alive: u16,
    /// Seconds that the session outlives its connection: v5 property; v3.1.1 without `CleanSession` = [`SESSION_NEVER_EXPIRES`].
    pub(crate) session_expiry: u32,
    pub(crate) has_will: bool,
    /// v5 enhanced authentication, which this server does not do.
    pub(crate) has_authentication: bool,
    /// The largest packet that the client takes.
    pub(crate) max_packet: Option<u32>,
}

/// v5 3.1.2.11.2: the session does not expire.
pub(crate) const SESSION_NEVER_EXPIRES: u32 = u32::MAX;

/// What a connected client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// A second CONNECT: a protocol violation [MQTT-3.1.0-2].
    Connect,
    Publish(Publish),
    PubRel {
        id: u16,
    },
    Subscribe {
        id: u16,
        filters: Vec<Filter>,
        has_identifier: bool,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    PingReq,
    /// `session_expiry` replaces the one of CONNECT (v5 3.14.2.2.2).
    Disconnect {
        session_expiry: Option<u32>,
    },
}

/// An application message on its way in. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Not checked for UTF-8: it is only ever compared.
    pub(crate) topic: Bytes,
    pub(crate) qos: Qos,
    /// 0 for QoS 0, never 0 otherwise.
    pub(crate) id: u16,
    pub(crate) retain: bool,
    pub(crate) has_alias: bool,
    pub(crate) payload: Bytes,
}

impl std::fmt::Debug for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publish")
            .field("qos", &self.qos)
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// One entry of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) path: String,
    pub(crate) retained: RetainedOnSubscribe,
}

/// v5 retain handling; v3.1.1 always sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainedOnSubscribe {
    Always,
    IfNew,
    Never,
}

/// Answer to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectAnswer {
    Accepted { session_present: bool },
    UnsupportedVersion,
    IdentifierRejected,
    NotAuthorized,
    ServerUnavailable,
    BadAuthenticationMethod,
}

/// What the v5 client is told in an accepting CONNACK; v3.1.1 has no words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
    /// Set when the client asked for a longer keep-alive than this server grants, or none.
    pub(crate) keep_alive: Option<u16>,
}

/// Reason code of a PUBACK or PUBREC. v3.1.1 cannot carry one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckReason {
    /// 0x00: durable, or was already.
    Success,
    /// 0x83: quarantined; which check failed is not told.
    ImplementationSpecific,
    /// 0x87: not this device's topic, or its messages are not taken at present.
    NotAuthorized,
    /// 0x99: quarantined, because the payload is not what it should be.
    PayloadFormatInvalid,
}

/// Reason code of a DISCONNECT sent by this server (v5 only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum DisconnectCode {
    Unspecified = 0x80,
    Malformed = 0x81,
    ProtocolError = 0x82,
    NotAuthorized = 0x87,
    ServerShuttingDown = 0x8B,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    SubscriptionIdentifiersNotSupported = 0xA1,
}

/// What this server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outbound {
    ConnAck {
        answer: ConnectAnswer,
        offer: Option<Offer>,
    },
    PubAck {
        id: u16,
        reason: AckReason,
    },
    PubRec {
        id: u16,
        reason: AckReason,
    },
    PubComp {
        id: u16,
        known: bool,
    },
    /// `true` = granted, at QoS 0; `false` = refused.
    SubAck {
        id: u16,
        granted: Vec<bool>,
    },
    /// `true` = there was such a subscription.
    UnsubAck {
        id: u16,
        existed: Vec<bool>,
    },
    /// A server message at QoS 0.
    Publish {
        topic: String,
        retain: bool,
        payload: Bytes,
    },
    PingResp,
    Disconnect(DisconnectCode),
}
