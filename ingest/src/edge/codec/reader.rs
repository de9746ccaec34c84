//! The data types of packets (v5 1.5), read off the front of a body. Whoever reads must end with [`Reader::end`] or
//! [`Reader::rest`], so that no byte goes unread.

use bytes::Bytes;

use super::Unreadable;

/// A packet's body, or a part of it, that has not been read yet.
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// Fewer bytes than that are left; so with all that read.
    pub(super) fn take(&mut self, count: usize) -> Result<Bytes, Unreadable> {
        if count > self.0.len() {
            return Err(Unreadable::Malformed);
        }
        Ok(self.0.split_to(count))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Unreadable> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Two Byte Integer (1.5.2).
    pub(super) fn two(&mut self) -> Result<u16, Unreadable> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four Byte Integer (1.5.3).
    pub(super) fn four(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_be_bytes)
    }

    /// A packet identifier, which is never zero ([MQTT-2.2.1-3], v3.1.1 [MQTT-2.3.1-1]).
    pub(super) fn identifier(&mut self) -> Result<u16, Unreadable> {
        match self.two()? {
            0 => Err(Unreadable::Protocol),
            id => Ok(id),
        }
    }

    /// Variable Byte Integer (1.5.5), shortest form only [MQTT-1.5.5-1].
    pub(super) fn variable(&mut self) -> Result<usize, Unreadable> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                let padded = place > 0 && byte == 0;
                return if padded {
                    Err(Unreadable::Malformed)
                } else {
                    Ok(value)
                };
            }
        }
        Err(Unreadable::Malformed)
    }

    /// Binary Data (1.5.6).
    pub(super) fn binary(&mut self) -> Result<Bytes, Unreadable> {
        let len = self.two()?;
        self.take(usize::from(len))
    }

    /// UTF-8 Encoded String (1.5.4): well-formed [MQTT-1.5.4-1], without U+0000 [MQTT-1.5.4-2].
    pub(super) fn string(&mut self) -> Result<Bytes, Unreadable> {
        let bytes = self.binary()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => Ok(bytes),
            _ => Err(Unreadable::Malformed),
        }
    }

    /// The same, as text of its own.
    pub(super) fn text(&mut self) -> Result<String, Unreadable> {
        let bytes = self.string()?;
        String::from_utf8(bytes.into()).map_err(|_| Unreadable::Malformed)
    }

    /// A Topic Name: at least a character [MQTT-4.7.3-1], no wildcards [MQTT-4.7.0-1].
    pub(super) fn topic_name(&mut self) -> Result<Bytes, Unreadable> {
        let name = self.string()?;
        check_name(&name)?;
        if name.is_empty() {
            return Err(Unreadable::Protocol);
        }
        Ok(name)
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> Bytes {
        self.0
    }

    /// # Errors
    /// Something is left.
    pub(super) fn end(&self) -> Result<(), Unreadable> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Unreadable::Malformed),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let bytes = self.take(N)?;
        bytes.as_ref().try_into().map_err(|_| Unreadable::Malformed)
    }
}

/// [MQTT-3.3.2-2]
pub(super) fn check_name(name: &[u8]) -> Result<(), Unreadable> {
    match name.iter().any(|byte| matches!(byte, b'+' | b'#')) {
        true => Err(Unreadable::Malformed),
        false => Ok(()),
    }
}
