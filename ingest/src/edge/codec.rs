//! Bytes to packets and back, for both protocol versions, on the codecs of `rumqttc`.
//!
//! What those codecs leave to the caller is done here: the CONNECT's reserved flag [MQTT-3.1.2-3], a password without a
//! user name [MQTT-3.1.2-22], packet identifiers of zero [MQTT-2.3.1-1], an UNSUBSCRIBE without filters [MQTT-3.10.3-2], the
//! two-byte DISCONNECT of v5 (refused by the codec), and the one that we send (written by the codec with a byte too many).
//! A codec's error text is dropped, because it may quote what the peer sent.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes as v4bytes;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes as v5bytes;
use rumqttc::v5::mqttbytes::v5;

use super::frame::{self, Frame};
use super::packet::{
    AckReason, ConnectAnswer, Filter, Hello, Inbound, Offer, Outbound, Publish, Qos,
    RetainedOnSubscribe, SESSION_NEVER_EXPIRES, Version,
};

/// A packet that its version's codec refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub(crate) struct Malformed;

/// Why a first packet is not a CONNECT that this server can talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    /// The first packet is another one [MQTT-3.1.0-1].
    #[error("first packet is not CONNECT")]
    NotConnect,
    /// A protocol level other than 4 and 5: answered with CONNACK 0x01 [MQTT-3.1.2-2].
    #[error("protocol version not supported")]
    UnsupportedVersion,
    /// Unreadable.
    #[error("malformed CONNECT")]
    Malformed,
}

/// Reads the first packet of a connection. The protocol level is looked at before a codec is chosen.
///
/// ```text
/// 00 04 'M' 'Q' 'T' 'T'   protocol name
/// 04 | 05                 level
/// flags                   user password retain qos qos will clean 0
/// ```
///
/// # Errors
/// [`HelloError`].
pub(crate) fn hello(frame: Frame) -> Result<Hello, HelloError> {
    if frame.packet_type() != frame::CONNECT {
        return Err(HelloError::NotConnect);
    }
    let body = frame.body();
    let flags = *body.get(7).ok_or(HelloError::Malformed)?;
    let version = match (body.get(..6), body.get(6)) {
        (Some(b"\x00\x04MQTT"), Some(4)) => Version::V311,
        (Some(b"\x00\x04MQTT"), Some(5)) => Version::V5,
        (Some(b"\x00\x04MQTT" | b"\x00\x06MQIs"), _) => return Err(HelloError::UnsupportedVersion),
        _ => return Err(HelloError::Malformed),
    };
    let reserved = flags & 1 != 0;
    let password_without_user = flags & 0b1100_0000 == 0b0100_0000;
    if reserved || (version == Version::V311 && password_without_user) {
        return Err(HelloError::Malformed);
    }
    let mut bytes = frame.bytes;
    let max = bytes.len();
    match version {
        Version::V311 => match v4::Packet::read(&mut bytes, max) {
            Ok(v4::Packet::Connect(connect)) => Ok(Hello {
                version,
                client_id: connect.client_id,
                clean: connect.clean_session,
                keep_alive: connect.keep_alive,
                session_expiry: if connect.clean_session {
                    0
                } else {
                    SESSION_NEVER_EXPIRES
                },
                has_will: connect.last_will.is_some(),
                has_authentication: false,
                max_packet: None,
            }),
            _ => Err(HelloError::Malformed),
        },
        Version::V5 => match v5::Packet::read(&mut bytes, u32::try_from(max).ok()) {
            Ok(v5::Packet::Connect(connect, will, _login)) => {
                let properties = connect.properties;
                let property = properties.as_ref();
                Ok(Hello {
                    version,
                    client_id: connect.client_id,
                    clean: connect.clean_start,
                    keep_alive: connect.keep_alive,
                    session_expiry: property
                        .and_then(|p| p.session_expiry_interval)
                        .unwrap_or(0),
                    has_will: will.is_some(),
                    has_authentication: property.is_some_and(|p| p.authentication_method.is_some()),
                    max_packet: property.and_then(|p| p.max_packet_size),
                })
            }
            _ => Err(HelloError::Malformed),
        },
    }
}

/// Reads one packet of a connected client.
///
/// # Errors
/// [`Malformed`] for whatever the version's codec refuses, and for identifiers of zero and empty filter lists.
pub(crate) fn inbound(version: Version, frame: Frame) -> Result<Inbound, Malformed> {
    match frame.packet_type() {
        frame::CONNECT => return Ok(Inbound::Connect),
        frame::PINGREQ if frame.body().is_empty() => return Ok(Inbound::PingReq),
        frame::DISCONNECT if frame.body().is_empty() => {
            return Ok(Inbound::Disconnect {
                session_expiry: None,
            });
        }
        // v5 3.14.2.2.1: with a remaining length below 2 there are no properties.
        frame::DISCONNECT if version == Version::V5 && frame.body().len() == 1 => {
            return Ok(Inbound::Disconnect {
                session_expiry: None,
            });
        }
        frame::PINGREQ => return Err(Malformed),
        _ => {}
    }
    let packet = match version {
        Version::V311 => inbound_v4(frame.bytes)?,
        Version::V5 => inbound_v5(frame.bytes)?,
    };
    match &packet {
        Inbound::PubRel { id: 0 }
        | Inbound::Subscribe { id: 0, .. }
        | Inbound::Unsubscribe { id: 0, .. } => Err(Malformed),
        Inbound::Unsubscribe { filters, .. } if filters.is_empty() => Err(Malformed),
        _ => Ok(packet),
    }
}

fn inbound_v4(mut bytes: BytesMut) -> Result<Inbound, Malformed> {
    let max = bytes.len();
    match v4::Packet::read(&mut bytes, max).map_err(|_| Malformed)? {
        v4::Packet::Publish(publish) => Ok(Inbound::Publish(Publish {
            topic: Bytes::from(publish.topic),
            qos: match publish.qos {
                v4bytes::QoS::AtMostOnce => Qos::AtMostOnce,
                v4bytes::QoS::AtLeastOnce => Qos::AtLeastOnce,
                v4bytes::QoS::ExactlyOnce => Qos::ExactlyOnce,
            },
            id: publish.pkid,
            retain: publish.retain,
            has_alias: false,
            payload: publish.payload,
        })),
        v4::Packet::PubRel(release) => Ok(Inbound::PubRel { id: release.pkid }),
        v4::Packet::Subscribe(subscribe) => Ok(Inbound::Subscribe {
            id: subscribe.pkid,
            filters: subscribe
                .filters
                .into_iter()
                .map(|f| Filter {
                    path: f.path,
                    retained: RetainedOnSubscribe::Always,
                })
                .collect(),
            has_identifier: false,
        }),
        v4::Packet::Unsubscribe(unsubscribe) => Ok(Inbound::Unsubscribe {
            id: unsubscribe.pkid,
            filters: unsubscribe.topics,
        }),
        _ => Err(Malformed),
    }
}

fn inbound_v5(mut bytes: BytesMut) -> Result<Inbound, Malformed> {
    let max = u32::try_from(bytes.len()).ok();
    match v5::Packet::read(&mut bytes, max).map_err(|_| Malformed)? {
        v5::Packet::Publish(publish) => Ok(Inbound::Publish(Publish {
            has_alias: publish
                .properties
                .as_ref()
                .is_some_and(|p| p.topic_alias.is_some()),
            topic: publish.topic,
            qos: match publish.qos {
                v5bytes::QoS::AtMostOnce => Qos::AtMostOnce,
                v5bytes::QoS::AtLeastOnce => Qos::AtLeastOnce,
                v5bytes::QoS::ExactlyOnce => Qos::ExactlyOnce,
            },
            id: publish.pkid,
            retain: publish.retain,
            payload: publish.payload,
        })),
        v5::Packet::PubRel(release) => Ok(Inbound::PubRel { id: release.pkid }),
        v5::Packet::Subscribe(subscribe) => Ok(Inbound::Subscribe {
            id: subscribe.pkid,
            has_identifier: subscribe
                .properties
                .as_ref()
                .is_some_and(|p| p.id.is_some()),
            filters: subscribe
                .filters
                .into_iter()
                .map(|f| Filter {
                    path: f.path,
                    retained: match f.retain_forward_rule {
                        v5::RetainForwardRule::OnEverySubscribe => RetainedOnSubscribe::Always,
                        v5::RetainForwardRule::OnNewSubscribe => RetainedOnSubscribe::IfNew,
                        v5::RetainForwardRule::Never => RetainedOnSubscribe::Never,
                    },
                })
                .collect(),
        }),
        v5::Packet::Unsubscribe(unsubscribe) => Ok(Inbound::Unsubscribe {
            id: unsubscribe.pkid,
            filters: unsubscribe.filters,
        }),
        v5::Packet::Disconnect(disconnect) => Ok(Inbound::Disconnect {
            session_expiry: disconnect
                .properties
                .and_then(|p| p.session_expiry_interval),
        }),
        _ => Err(Malformed),
    }
}

/// A packet of ours that could not be written: too many entries or too long for the format. Ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packet cannot be encoded")]
pub(crate) struct Unencodable;

/// Appends `packet` to `out`. A DISCONNECT to a v3.1.1 client writes nothing: servers of that version just close.
///
/// # Errors
/// [`Unencodable`], with `out` in an unspecified state.
pub(crate) fn encode(
    version: Version,
    packet: &Outbound,
    out: &mut BytesMut,
) -> Result<(), Unencodable> {
    match version {
        Version::V311 => encode_v4(packet, out).map_err(|_| Unencodable),
        Version::V5 => encode_v5(packet, out).map_err(|_| Unencodable),
    }
}

fn encode_v4(packet: &Outbound, out: &mut BytesMut) -> Result<(), v4bytes::Error> {
    match packet {
        Outbound::ConnAck { answer, .. } => {
            let (code, present) = match answer {
                ConnectAnswer::Accepted { session_present } => {
                    (v4::ConnectReturnCode::Success, *session_present)
                }
                ConnectAnswer::UnsupportedVersion => {
                    (v4::ConnectReturnCode::RefusedProtocolVersion, false)
                }
                ConnectAnswer::IdentifierRejected => (v4::ConnectReturnCode::BadClientId, false),
                ConnectAnswer::ServerUnavailable => {
                    (v4::ConnectReturnCode::ServiceUnavailable, false)
                }
                ConnectAnswer::NotAuthorized | ConnectAnswer::BadAuthenticationMethod => {
                    (v4::ConnectReturnCode::NotAuthorized, false)
                }
            };
            v4::ConnAck::new(code, present).write(out)?;
        }
        Outbound::PubAck { id, .. } => {
            v4::PubAck::new(*id).write(out)?;
        }
        Outbound::PubRec { id, .. } => {
            v4::PubRec::new(*id).write(out)?;
        }
        Outbound::PubComp { id, .. } => {
            v4::PubComp::new(*id).write(out)?;
        }
        Outbound::SubAck { id, granted } => {
            let codes = granted.iter().map(|&granted| match granted {
                true => v4::SubscribeReasonCode::Success(v4bytes::QoS::AtMostOnce),
                false => v4::SubscribeReasonCode::Failure,
            });
            v4::SubAck::new(*id, codes.collect()).write(out)?;
        }
        Outbound::UnsubAck { id, .. } => {
            v4::UnsubAck::new(*id).write(out)?;
        }
        Outbound::Publish {
            topic,
            retain,
            payload,
        } => {
            let mut publish =
                v4::Publish::from_bytes(topic.as_str(), v4bytes::QoS::AtMostOnce, payload.clone());
            publish.retain = *retain;
            publish.write(out)?;
        }
        Outbound::PingResp => {
            v4::PingResp.write(out)?;
        }
        Outbound::Disconnect(_) => {}
    }
    Ok(())
}

fn encode_v5(packet: &Outbound, out: &mut BytesMut) -> Result<(), v5bytes::Error> {
    match packet {
        Outbound::ConnAck { answer, offer } => {
            let (code, session_present) = match answer {
                ConnectAnswer::Accepted { session_present } => {
                    (v5::ConnectReturnCode::Success, *session_present)
                }
                ConnectAnswer::UnsupportedVersion => {
                    (v5::ConnectReturnCode::UnsupportedProtocolVersion, false)
                }
                ConnectAnswer::IdentifierRejected => {
                    (v5::ConnectReturnCode::ClientIdentifierNotValid, false)
                }
                ConnectAnswer::NotAuthorized => (v5::ConnectReturnCode::NotAuthorized, false),
                ConnectAnswer::ServerUnavailable => {
                    (v5::ConnectReturnCode::ServerUnavailable, false)
                }
                ConnectAnswer::BadAuthenticationMethod => {
                    (v5::ConnectReturnCode::BadAuthenticationMethod, false)
                }
            };
            let properties = offer.as_ref().map(connack_properties);
            v5::ConnAck {
                session_present,
                code,
                properties,
            }
            .write(out)?;
        }
        Outbound::PubAck { id, reason } => {
            let reason = match reason {
                AckReason::Success => v5::PubAckReason::Success,
                AckReason::ImplementationSpecific => v5::PubAckReason::ImplementationSpecificError,
                AckReason::NotAuthorized => v5::PubAckReason::NotAuthorized,
                AckReason::PayloadFormatInvalid => v5::PubAckReason::PayloadFormatInvalid,
            };
            v5::PubAck {
                pkid: *id,
                reason,
                properties: None,
            }
            .write(out)?;
        }
        Outbound::PubRec { id, reason } => {
            let reason = match reason {
                AckReason::Success => v5::PubRecReason::Success,
                AckReason::ImplementationSpecific => v5::PubRecReason::ImplementationSpecificError,
                AckReason::NotAuthorized => v5::PubRecReason::NotAuthorized,
                AckReason::PayloadFormatInvalid => v5::PubRecReason::PayloadFormatInvalid,
            };
            v5::PubRec {
                pkid: *id,
                reason,
                properties: None,
            }
            .write(out)?;
        }
        Outbound::PubComp { id, known } => {
            let reason = match known {
                true => v5::PubCompReason::Success,
                false => v5::PubCompReason::PacketIdentifierNotFound,
            };
            v5::PubComp {
                pkid: *id,
                reason,
                properties: None,
            }
            .write(out)?;
        }
        Outbound::SubAck { id, granted } => {
            let codes = granted.iter().map(|&granted| match granted {
                true => v5::SubscribeReasonCode::Success(v5bytes::QoS::AtMostOnce),
                false => v5::SubscribeReasonCode::NotAuthorized,
            });
            v5::SubAck {
                pkid: *id,
                return_codes: codes.collect(),
                properties: None,
            }
            .write(out)?;
        }
        Outbound::UnsubAck { id, existed } => {
            let reasons = existed.iter().map(|&existed| match existed {
                true => v5::UnsubAckReason::Success,
                false => v5::UnsubAckReason::NoSubscriptionExisted,
            });
            v5::UnsubAck {
                pkid: *id,
                reasons: reasons.collect(),
                properties: None,
            }
            .write(out)?;
        }
        Outbound::Publish {
            topic,
            retain,
            payload,
        } => {
            let mut publish = v5::Publish::new(
                topic.as_str(),
                v5bytes::QoS::AtMostOnce,
                payload.clone(),
                None,
            );
            publish.retain = *retain;
            publish.write(out)?;
        }
        Outbound::PingResp => {
            v5::PingResp::write(out)?;
        }
        // Type, remaining length, reason code, property length 0.
        Outbound::Disconnect(code) => out.put_slice(&[0xE0, 2, *code as u8, 0]),
    }
    Ok(())
}

/// What is not offered is said, so that a client need not find out by being disconnected.
fn connack_properties(offer: &Offer) -> v5::ConnAckProperties {
    v5::ConnAckProperties {
        session_expiry_interval: None,
        receive_max: Some(offer.receive_maximum),
        max_qos: None,
        retain_available: None,
        max_packet_size: Some(offer.max_packet),
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: Some(0),
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        server_keep_alive: offer.keep_alive,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

#[cfg(test)]
mod tests;
