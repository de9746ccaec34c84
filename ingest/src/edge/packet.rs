//! Control packets as this server sees them: one set of types for MQTT 3.1.1 and 5.
//!
//! Bytes to these and back is the work of [`super::codec`]. What a client may send and this server never uses (user
//! properties, content types, response topics) is checked there and left behind; what would be refused whatever it says
//! (a topic alias, a subscription identifier, enhanced authentication) is reduced to the fact that it was there.

use bytes::Bytes;
use zeroize::Zeroizing;

/// Subscriptions of one session. A device has three topics to hear; a service that wants more wards than these asks for all.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 256;

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
    pub(crate) will: Option<Will>,
    pub(crate) login: Option<Login>,
    /// v5 enhanced authentication, which this server does not do.
    pub(crate) has_authentication: bool,
    /// How many messages above QoS 0 the client takes before it acknowledges; 65,535 if it does not say.
    pub(crate) receive_maximum: u16,
    /// The largest packet that the client takes, in bytes.
    pub(crate) max_packet: Option<u32>,
}

/// v5 3.1.2.11.2: the session does not expire.
pub(crate) const SESSION_NEVER_EXPIRES: u32 = u32::MAX;

/// What is to be published in the client's name when its connection ends without a DISCONNECT. Its QoS is not kept: it
/// asks for an acknowledgement, and there is nobody left to be given one. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    /// Seconds from the end of the connection (v5 3.1.3.2.2); 0 in v3.1.1.
    pub(crate) delay: u32,
}

impl std::fmt::Debug for Will {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Will")
            .field("payload_bytes", &self.payload.len())
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// User name and password of a CONNECT, with which a person logs in. `Debug` prints neither.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    /// Empty when it is not text: nobody has such a one.
    pub(crate) password: Zeroizing<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// What a connected client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// A second CONNECT: a protocol violation [MQTT-3.1.0-2].
    Connect,
    Publish(Publish),
    /// Whatever its reason code: the message counts as acknowledged [MQTT-4.4.0-2].
    PubAck {
        id: u16,
    },
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
    Disconnect {
        /// v3.1.1, and v5 with reason 0x00: the will is not to be published [MQTT-3.14.4-3].
        is_normal: bool,
        /// Replaces the one of CONNECT (v5 3.14.2.2.2).
        session_expiry: Option<u32>,
    },
}

/// An application message on its way in. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// UTF-8, not empty but for an alias, without wildcards.
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

/// One entry of a SUBSCRIBE. v5's "no local" is not kept: nobody hears what a client publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) path: String,
    pub(crate) qos: Qos,
    pub(crate) retained: RetainedOnSubscribe,
    /// v5: RETAIN as it was published, and not only for what answers the subscription.
    pub(crate) retain_as_published: bool,
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
    Accepted {
        session_present: bool,
    },
    UnsupportedVersion,
    IdentifierRejected,
    NotAuthorized,
    ServerUnavailable,
    /// No room for messages: later.
    QuotaExceeded,
    BadAuthenticationMethod,
}

/// What the v5 client is told in an accepting CONNACK; v3.1.1 has no words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: u32,
    /// Set when the session is kept for less than the client asked for.
    pub(crate) session_expiry: Option<u32>,
    /// Set when the client asked for a longer keep-alive than this server grants, or none.
    pub(crate) keep_alive: Option<u16>,
}

/// Reason code of a PUBACK or PUBREC. v3.1.1 cannot carry one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum AckReason {
    /// Durable, or was already.
    Success = 0x00,
    /// Quarantined; which check failed is not told.
    ImplementationSpecific = 0x83,
    /// Not this device's topic, or its messages are not taken at present.
    NotAuthorized = 0x87,
    /// Quarantined, because the payload is not what it should be.
    PayloadFormatInvalid = 0x99,
}

/// Answer to one filter of a SUBSCRIBE. v3.1.1 knows one "no", 0x80.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SubscribeCode {
    GrantedQos0 = 0x00,
    GrantedQos1 = 0x01,
    NotAuthorized = 0x87,
    TopicFilterInvalid = 0x8F,
    QuotaExceeded = 0x97,
    SharedNotSupported = 0x9E,
    IdentifiersNotSupported = 0xA1,
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
    MaximumConnectTime = 0xA0,
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
    /// One code for each filter, in their order.
    SubAck {
        id: u16,
        codes: Vec<SubscribeCode>,
    },
    /// `true` = there was such a subscription.
    UnsubAck {
        id: u16,
        existed: Vec<bool>,
    },
    Publish(Telling),
    PingResp,
    Disconnect(DisconnectCode),
}

/// A message of ours. `Debug` prints sizes only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Telling {
    pub(crate) topic: String,
    /// `None` is QoS 0, otherwise the packet identifier of QoS 1.
    pub(crate) id: Option<u16>,
    /// It went out before, on another connection.
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) payload: Bytes,
}

impl std::fmt::Debug for Telling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telling")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
