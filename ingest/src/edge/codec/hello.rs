//! The first packet of a connection.

use bytes::Bytes;

use super::Unreadable;
use super::properties::{Carrier, Properties};
use super::reader::Reader;
use crate::edge::frame::{self, Frame};
use crate::edge::packet::{Hello, Login, SESSION_NEVER_EXPIRES, Version, Will};

/// Why a first packet is not a CONNECT that this server can talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    /// The first packet is another one [MQTT-3.1.0-1].
    #[error("first packet is not CONNECT")]
    NotConnect,
    /// A protocol level other than 4 and 5: answered with CONNACK 0x01 (v3.1.1 [MQTT-3.1.2-2]).
    #[error("protocol version not supported")]
    UnsupportedVersion,
    /// It does not conform, so it gets no answer (v3.1.1 [MQTT-3.1.4-1]).
    #[error("malformed CONNECT")]
    Malformed,
}

impl From<Unreadable> for HelloError {
    fn from(_: Unreadable) -> Self {
        Self::Malformed
    }
}

const USER_NAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const CLEAN: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// Reads the first packet of a connection. The protocol level is looked at before anything that depends on it.
///
/// ```text
/// 00 04 'M' 'Q' 'T' 'T'   protocol name
/// 04 | 05                 level
/// flags                   user password retain qos qos will clean 0
/// keep-alive              seconds, two bytes
/// v5: properties
/// client identifier   [v5: properties] [will topic, will payload]   [user name]   [password]
/// ```
///
/// # Errors
/// [`HelloError`].
pub(crate) fn hello(frame: Frame) -> Result<Hello, HelloError> {
    if frame.packet_type() != frame::CONNECT {
        return Err(HelloError::NotConnect);
    }
    let mut body = Reader::new(frame.into_body());
    let (name, level) = (body.binary()?, body.byte()?);
    let version = match (&name[..], level) {
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", _) => return Err(HelloError::UnsupportedVersion),
        _ => return Err(HelloError::Malformed),
    };
    let flags = body.byte()?;
    check(version, flags)?;
    let keep_alive = body.two()?;
    let properties = match version {
        Version::V311 => Properties::default(),
        Version::V5 => Properties::read(&mut body, Carrier::Connect)?,
    };
    let client_id = body.text()?;
    let will = match flags & WILL {
        0 => None,
        _ => Some(will(&mut body, version, flags)?),
    };
    let user = match flags & USER_NAME {
        0 => None,
        _ => Some(body.text()?),
    };
    let password = match flags & PASSWORD {
        0 => None,
        _ => Some(body.binary()?),
    };
    body.end()?;
    let clean = flags & CLEAN != 0;
    Ok(Hello {
        version,
        client_id,
        clean,
        keep_alive,
        session_expiry: match version {
            Version::V311 if clean => 0,
            Version::V311 => SESSION_NEVER_EXPIRES,
            Version::V5 => properties.session_expiry.unwrap_or(0),
        },
        will,
        login: (user.is_some() || password.is_some()).then(|| Login {
            user: user.unwrap_or_default(),
            password: std::str::from_utf8(password.as_deref().unwrap_or_default())
                .map(|text| text.to_owned().into())
                .unwrap_or_default(),
        }),
        has_authentication: properties.has_authentication,
        receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
        max_packet: properties.max_packet,
    })
}

/// [MQTT-3.1.2-3]; without a will neither its QoS nor RETAIN [MQTT-3.1.2-11], [MQTT-3.1.2-13]; no QoS 3 [MQTT-3.1.2-12]; in
/// v3.1.1 no password without a user name [MQTT-3.1.2-22].
fn check(version: Version, flags: u8) -> Result<(), HelloError> {
    let will = match flags & WILL {
        0 => flags & (WILL_QOS | WILL_RETAIN) == 0,
        _ => flags & WILL_QOS != WILL_QOS,
    };
    let password = version == Version::V5 || flags & (USER_NAME | PASSWORD) != PASSWORD;
    match flags & RESERVED == 0 && will && password {
        true => Ok(()),
        false => Err(HelloError::Malformed),
    }
}

fn will(body: &mut Reader, version: Version, flags: u8) -> Result<Will, Unreadable> {
    let properties = match version {
        Version::V311 => Properties::default(),
        Version::V5 => Properties::read(body, Carrier::Will)?,
    };
    // Copies: a will is kept for as long as its connection, and would keep the whole packet, password included.
    Ok(Will {
        topic: Bytes::copy_from_slice(&body.topic_name()?),
        payload: Bytes::copy_from_slice(&body.binary()?),
        retain: flags & WILL_RETAIN != 0,
        delay: properties.will_delay.unwrap_or(0),
    })
}
