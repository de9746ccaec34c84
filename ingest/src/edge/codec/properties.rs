//! Properties of v5 (2.2.2): all are read and checked, the few that this server acts on are kept.
//!
//! ```text
//! length (variable byte integer)   { identifier (variable byte integer)   value (type by identifier) }*
//! ```

use super::Unreadable;
use super::reader::{Reader, check_name};

/// What carries properties, as a bit, so that a table can name several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Carrier {
    Connect = 1,
    Will = 2,
    Publish = 4,
    /// PUBACK, PUBREL
    Ack = 8,
    Subscribe = 16,
    Unsubscribe = 32,
    /// From a client.
    Disconnect = 64,
}

const CONNECT: u8 = Carrier::Connect as u8;
const WILL: u8 = Carrier::Will as u8;
const PUBLISH: u8 = Carrier::Publish as u8;
const ACK: u8 = Carrier::Ack as u8;
const SUBSCRIBE: u8 = Carrier::Subscribe as u8;
const DISCONNECT: u8 = Carrier::Disconnect as u8;

/// What was there and matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Properties {
    pub(super) session_expiry: Option<u32>,
    pub(super) receive_maximum: Option<u16>,
    pub(super) max_packet: Option<u32>,
    pub(super) will_delay: Option<u32>,
    pub(super) has_alias: bool,
    pub(super) has_subscription_identifier: bool,
    pub(super) has_authentication: bool,
}

impl Properties {
    /// Reads the properties of `carrier`, length first.
    ///
    /// # Errors
    /// One that is unknown, not for this carrier, there twice (only user properties may be), or out of its range.
    pub(super) fn read(reader: &mut Reader, carrier: Carrier) -> Result<Self, Unreadable> {
        let len = reader.variable()?;
        let mut block = Reader::new(reader.take(len)?);
        let mut found = Self::default();
        let mut seen = 0_u64;
        while !block.is_empty() {
            // All that are defined fit into a byte, and into the bits of `seen`.
            let id = u8::try_from(block.variable()?).map_err(|_| Unreadable::Malformed)?;
            if carriers(id) & carrier as u8 == 0 {
                return Err(Unreadable::Malformed);
            }
            if id != USER_PROPERTY && seen & (1 << id) != 0 {
                return Err(Unreadable::Protocol);
            }
            seen |= 1 << id;
            found.read_one(&mut block, id)?;
        }
        // v5 3.1.2.11.10
        if seen & (1 << AUTHENTICATION_DATA) != 0 && !found.has_authentication {
            return Err(Unreadable::Protocol);
        }
        Ok(found)
    }

    fn read_one(&mut self, block: &mut Reader, id: u8) -> Result<(), Unreadable> {
        match id {
            PAYLOAD_FORMAT | REQUEST_PROBLEM | REQUEST_RESPONSE => {
                if block.byte()? > 1 {
                    return Err(Unreadable::Protocol);
                }
            }
            MESSAGE_EXPIRY => {
                block.four()?;
            }
            CONTENT_TYPE | REASON_STRING => {
                block.string()?;
            }
            RESPONSE_TOPIC => check_name(&block.string()?)?,
            CORRELATION_DATA | AUTHENTICATION_DATA => {
                block.binary()?;
            }
            SUBSCRIPTION_IDENTIFIER => {
                self.has_subscription_identifier = positive(block.variable()?)? > 0;
            }
            SESSION_EXPIRY => self.session_expiry = Some(block.four()?),
            AUTHENTICATION_METHOD => {
                block.string()?;
                self.has_authentication = true;
            }
            WILL_DELAY => self.will_delay = Some(block.four()?),
            RECEIVE_MAXIMUM => self.receive_maximum = Some(positive(block.two()?)?),
            TOPIC_ALIAS_MAXIMUM => {
                block.two()?;
            }
            TOPIC_ALIAS => {
                block.two()?; // any is one too many
                self.has_alias = true;
            }
            USER_PROPERTY => {
                block.string()?;
                block.string()?;
            }
            MAXIMUM_PACKET_SIZE => self.max_packet = Some(positive(block.four()?)?),
            _ => return Err(Unreadable::Malformed),
        }
        Ok(())
    }
}

fn positive<T: Default + PartialEq>(value: T) -> Result<T, Unreadable> {
    match value == T::default() {
        true => Err(Unreadable::Protocol),
        false => Ok(value),
    }
}

const PAYLOAD_FORMAT: u8 = 1;
const MESSAGE_EXPIRY: u8 = 2;
const CONTENT_TYPE: u8 = 3;
const RESPONSE_TOPIC: u8 = 8;
const CORRELATION_DATA: u8 = 9;
const SUBSCRIPTION_IDENTIFIER: u8 = 11;
const SESSION_EXPIRY: u8 = 17;
const AUTHENTICATION_METHOD: u8 = 21;
const AUTHENTICATION_DATA: u8 = 22;
const REQUEST_PROBLEM: u8 = 23;
const WILL_DELAY: u8 = 24;
const REQUEST_RESPONSE: u8 = 25;
const REASON_STRING: u8 = 31;
const RECEIVE_MAXIMUM: u8 = 33;
const TOPIC_ALIAS_MAXIMUM: u8 = 34;
const TOPIC_ALIAS: u8 = 35;
const USER_PROPERTY: u8 = 38;
const MAXIMUM_PACKET_SIZE: u8 = 39;

/// Table 2-4, as far as a client may send it.
fn carriers(id: u8) -> u8 {
    match id {
        PAYLOAD_FORMAT | MESSAGE_EXPIRY | CONTENT_TYPE | RESPONSE_TOPIC | CORRELATION_DATA => {
            PUBLISH | WILL
        }
        // Only a server's PUBLISH has one [MQTT-3.3.4-6].
        SUBSCRIPTION_IDENTIFIER => SUBSCRIBE,
        SESSION_EXPIRY => CONNECT | DISCONNECT,
        AUTHENTICATION_METHOD
        | AUTHENTICATION_DATA
        | REQUEST_PROBLEM
        | REQUEST_RESPONSE
        | RECEIVE_MAXIMUM
        | TOPIC_ALIAS_MAXIMUM
        | MAXIMUM_PACKET_SIZE => CONNECT,
        WILL_DELAY => WILL,
        REASON_STRING => ACK | DISCONNECT,
        TOPIC_ALIAS => PUBLISH,
        USER_PROPERTY => u8::MAX,
        _ => 0,
    }
}
