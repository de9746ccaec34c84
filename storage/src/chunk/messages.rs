//! The messages that a chunk was made of: who sent them, and when they came.
//!
//! ```text
//! messages = messages unsigned | devices unsigned | for each: length unsigned, device id
//!            | four times: length unsigned, column        device, boot, sequence, received_at µs
//! ```
//!
//! A message's index is its place here, and in the chunk's evidence.

use std::collections::HashMap;

use vitalseal_crypto::DeviceId;

use super::bytes::{Reader, put_length};
use super::error::{ChunkError, MAX_MESSAGES};
use super::pack::{self, Column};

/// What a chunk keeps of a message, beside what it brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageMeta {
    /// The device that signed it.
    pub device: DeviceId,
    /// Boot counter.
    pub boot: u64,
    /// Sequence within the boot.
    pub sequence: u64,
    /// When the server took it, µs since the Unix epoch.
    pub received_at_us: i64,
}

/// The messages of a chunk, column by column: message `i` is the `i`th of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// Its device, as an index into the chunk's devices.
    pub device: Vec<u32>,
    /// Boot counter, as SQL has it.
    pub boot: Vec<i64>,
    /// Sequence within the boot, as SQL has it.
    pub sequence: Vec<i64>,
    /// When the server took it, µs since the Unix epoch.
    pub received_at_us: Vec<i64>,
}

/// Messages on their way into a chunk.
#[derive(Default)]
pub(super) struct MessageTable {
    indexes: HashMap<DeviceId, u32>,
    devices: Vec<DeviceId>,
    device: Vec<i64>,
    boot: Vec<i64>,
    sequence: Vec<i64>,
    received_at_us: Vec<i64>,
}

impl MessageTable {
    /// The index of a new message.
    pub(super) fn push(&mut self, message: MessageMeta) -> u32 {
        let next = index(self.devices.len());
        let device = match self.indexes.get(&message.device) {
            Some(device) => *device,
            None => {
                self.devices.push(message.device.clone());
                self.indexes.insert(message.device, next);
                next
            }
        };
        let message_index = index(self.device.len());
        self.device.push(i64::from(device));
        self.boot.push(message.boot.cast_signed());
        self.sequence.push(message.sequence.cast_signed());
        self.received_at_us.push(message.received_at_us);
        message_index
    }

    /// Adds all messages of another chunk, and gives the index of the first.
    pub(super) fn extend(
        &mut self,
        messages: &Messages,
        devices: &[DeviceId],
    ) -> Result<u32, ChunkError> {
        let first = index(self.device.len());
        for index in 0..messages.device.len() {
            let message = messages.meta(index, devices);
            self.push(message.ok_or(ChunkError::Damaged("a message is not whole"))?);
        }
        Ok(first)
    }

    /// The device of a message.
    pub(super) fn device_of(&self, message: u32) -> Option<u32> {
        let device = self.device.get(message as usize)?;
        u32::try_from(*device).ok()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), ChunkError> {
        if self.device.len() > MAX_MESSAGES {
            return Err(ChunkError::TooMany);
        }
        put_length(out, self.device.len());
        put_length(out, self.devices.len());
        for device in &self.devices {
            put_length(out, device.as_bytes().len());
            out.extend(device.as_bytes());
        }
        let mut column = Vec::new();
        for values in [
            &self.device,
            &self.boot,
            &self.sequence,
            &self.received_at_us,
        ] {
            pack::encode(values, &mut column);
            put_length(out, column.len());
            out.append(&mut column);
        }
        Ok(())
    }
}

/// Indexes are kept in 32 bits; that there are no more than [`MAX_MESSAGES`] is checked before they are written.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Where the messages of a parsed chunk stand.
pub(super) struct MessageColumns {
    pub(super) count: usize,
    pub(super) devices: Vec<DeviceId>,
    /// Offset and length of each column.
    columns: [(usize, usize); 4],
}

impl MessageColumns {
    /// Takes the messages from `reader`, which reads all of `blob` but what it has read.
    pub(super) fn parse(reader: &mut Reader<'_>, blob: &[u8]) -> Result<Self, ChunkError> {
        let count = reader.count(MAX_MESSAGES)?;
        let devices = reader.count(count)?;
        let devices = (0..devices)
            .map(|_| device(reader))
            .collect::<Result<_, _>>()?;
        let mut columns = [(0, 0); 4];
        for column in &mut columns {
            let length = reader.count(blob.len())?;
            *column = (blob.len() - reader.rest().len(), length);
            reader.take(length)?;
        }
        Ok(Self {
            count,
            devices,
            columns,
        })
    }

    pub(super) fn decode(&self, blob: &[u8]) -> Result<Messages, ChunkError> {
        let column = |(offset, length)| {
            let mut values = Vec::new();
            Column::new(blob.get(offset..).unwrap_or_default(), length, self.count)?
                .decode(&mut values)?;
            Ok(values)
        };
        let [device, boot, sequence, received_at_us] = self.columns;
        let known = |device: i64| {
            let device = u32::try_from(device).ok()?;
            ((device as usize) < self.devices.len()).then_some(device)
        };
        let device = column(device)?
            .into_iter()
            .map(known)
            .collect::<Option<_>>();
        Ok(Messages {
            device: device.ok_or(ChunkError::Damaged(
                "a message names a device that is not there",
            ))?,
            boot: column(boot)?,
            sequence: column(sequence)?,
            received_at_us: column(received_at_us)?,
        })
    }
}

impl Messages {
    /// Message `index`, with the chunk's devices at hand; `None` if there is no such message.
    #[must_use]
    pub fn meta(&self, index: usize, devices: &[DeviceId]) -> Option<MessageMeta> {
        Some(MessageMeta {
            device: devices.get(*self.device.get(index)? as usize)?.clone(),
            boot: self.boot.get(index)?.cast_unsigned(),
            sequence: self.sequence.get(index)?.cast_unsigned(),
            received_at_us: *self.received_at_us.get(index)?,
        })
    }
}

pub(super) fn device(reader: &mut Reader<'_>) -> Result<DeviceId, ChunkError> {
    let length = reader.count(64)?;
    std::str::from_utf8(reader.take(length)?)
        .ok()
        .and_then(|id| id.parse().ok())
        .ok_or(ChunkError::Damaged("a device's id is not one"))
}
