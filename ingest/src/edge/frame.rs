//! Framing: where one control packet ends and whether its first byte may stand there at all.
//!
//! ```text
//! bit      7 6 5 4 | 3 2 1 0
//! byte 1   type    | flags            flags are fixed for every type but PUBLISH [MQTT-2.2.2-1]
//! byte 2…  remaining length           1 to 4 bytes, 7 bits each, least significant first
//! …        variable header, payload
//! ```
//!
//! The codec is only ever given one complete frame, whose flags and length are right.

use bytes::{Bytes, BytesMut};

/// CONNECT.
pub(crate) const CONNECT: u8 = 1;
/// PUBLISH.
pub(crate) const PUBLISH: u8 = 3;
/// PUBACK.
pub(crate) const PUBACK: u8 = 4;
/// PUBREL.
pub(crate) const PUBREL: u8 = 6;
/// SUBSCRIBE.
pub(crate) const SUBSCRIBE: u8 = 8;
/// UNSUBSCRIBE.
pub(crate) const UNSUBSCRIBE: u8 = 10;
/// PINGREQ.
pub(crate) const PINGREQ: u8 = 12;
/// DISCONNECT.
pub(crate) const DISCONNECT: u8 = 14;

/// One whole control packet, fixed header included. `Debug` prints its type and size only.
pub(crate) struct Frame {
    /// The packet's bytes from the first to the last.
    pub(crate) bytes: BytesMut,
    /// How many of them are the fixed header: 2 to 5.
    pub(crate) header_len: usize,
}

impl Frame {
    /// The control packet type, the upper half of the first byte.
    pub(crate) fn packet_type(&self) -> u8 {
        self.bytes.first().map_or(0, |first| first >> 4)
    }

    /// The lower half.
    pub(crate) fn flags(&self) -> u8 {
        self.bytes.first().map_or(0, |first| first & 0x0F)
    }

    /// Variable header and payload.
    pub(crate) fn into_body(self) -> Bytes {
        let mut bytes = self.bytes.freeze();
        bytes.split_off(self.header_len.min(bytes.len()))
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("packet_type", &self.packet_type())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// Why a stream cannot be framed. The connection ends: after this nobody knows where the next packet starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The packet would be larger than this server takes.
    #[error("packet larger than the limit")]
    TooLarge,
    /// Reserved flags, an unknown type, or a remaining length that is not the shortest encoding.
    #[error("malformed fixed header")]
    Malformed,
    /// A packet type that only servers send, or an AUTH that nobody asked for.
    #[error("packet type not expected from a client")]
    Unexpected,
}

/// Takes the next whole packet off the front of `buffer`; `None` when more bytes are needed.
///
/// The size is refused as soon as the fixed header is known, so that an oversized packet is never buffered.
///
/// # Errors
/// [`FrameError`], after which the buffer must not be read further.
pub(crate) fn next(buffer: &mut BytesMut, max_bytes: usize) -> Result<Option<Frame>, FrameError> {
    let Some(&first) = buffer.first() else {
        return Ok(None);
    };
    check_first_byte(first)?;
    let Some((remaining, length_bytes)) = remaining_length(&buffer[1..])? else {
        return Ok(None);
    };
    let header_len = 1 + length_bytes;
    let total = header_len + remaining;
    if total > max_bytes {
        return Err(FrameError::TooLarge);
    }
    if buffer.len() < total {
        // No room is made for what was only announced; it grows with what comes.
        return Ok(None);
    }
    Ok(Some(Frame {
        bytes: buffer.split_to(total),
        header_len,
    }))
}

/// Type and flags: [MQTT-2.2.2-2] closes the connection on invalid flags, [MQTT-3.3.1-2] forbids DUP on QoS 0,
/// [MQTT-3.3.1-4] both QoS bits.
fn check_first_byte(first: u8) -> Result<(), FrameError> {
    let flags = first & 0x0F;
    let fixed = match first >> 4 {
        PUBLISH => {
            let qos = (flags >> 1) & 0b11;
            let dup_without_qos = flags & 0b1000 != 0 && qos == 0;
            return if qos == 3 || dup_without_qos {
                Err(FrameError::Malformed)
            } else {
                Ok(())
            };
        }
        PUBREL | SUBSCRIBE | UNSUBSCRIBE => 0b0010,
        CONNECT | PUBACK | PINGREQ | DISCONNECT => 0,
        // What only servers send, what answers a QoS 2 that this one never sends, and AUTH, which nobody asked for.
        2 | 5 | 7 | 9 | 11 | 13 | 15 => return Err(FrameError::Unexpected),
        _ => return Err(FrameError::Malformed),
    };
    if flags == fixed {
        Ok(())
    } else {
        Err(FrameError::Malformed)
    }
}

/// Variable byte integer: value and its size, shortest form only [MQTT-1.5.5-1].
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let mut value = 0_usize;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let padded = index > 0 && byte == 0;
            return if padded {
                Err(FrameError::Malformed)
            } else {
                Ok(Some((value, index + 1)))
            };
        }
    }
    if bytes.len() >= 4 {
        Err(FrameError::Malformed)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        next(&mut BytesMut::from(bytes), 300).map(|found| found.map(|f| f.into_body().len()))
    }

    #[test]
    fn packets_are_cut_where_they_end() {
        let mut stream = BytesMut::from(&[0xC0, 0x00, 0x30, 0x03, 0, 1, b'a', 0xE0][..]);
        assert_eq!(
            next(&mut stream, 300).unwrap().unwrap().packet_type(),
            PINGREQ
        );
        assert_eq!(
            next(&mut stream, 300).unwrap().unwrap().into_body(),
            &[0, 1, b'a'][..]
        );
        assert!(next(&mut stream, 300).unwrap().is_none());
        assert_eq!(&stream[..], &[0xE0]);
    }

    #[test]
    fn a_large_packet_is_refused_before_it_is_buffered() {
        assert_eq!(frame(&[0x30, 0xFF, 0xFF, 0x7F]), Err(FrameError::TooLarge));
        assert_eq!(frame(&[0x30, 0xAA, 0x02]), Err(FrameError::TooLarge)); // 298 + 3 = 301
        assert_eq!(frame(&[0x30, 0xA9, 0x02]), Ok(None)); // 300 exactly
    }

    #[test]
    fn flags_and_lengths_must_be_as_specified() {
        for first in [0x11, 0x41, 0x80, 0xA0, 0x60, 0xC1, 0xE8, 0x36, 0x38, 0x00] {
            assert_eq!(frame(&[first, 0]), Err(FrameError::Malformed), "{first:#x}");
        }
        for first in [0x20, 0x50, 0x70, 0x90, 0xB0, 0xD0, 0xF0] {
            assert_eq!(
                frame(&[first, 0]),
                Err(FrameError::Unexpected),
                "{first:#x}"
            );
        }
        assert_eq!(frame(&[0xC0, 0x80, 0x00]), Err(FrameError::Malformed)); // padded zero
        assert_eq!(
            frame(&[0x30, 0x80, 0x80, 0x80, 0x80]),
            Err(FrameError::Malformed)
        );
    }
}
