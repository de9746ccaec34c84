//! What a chunk holds of each device: said beside it, so that counting records and finding messages opens nothing.
//!
//! ```text
//! devices = 01 | devices unsigned | for each, ordered by id: length unsigned, id | messages unsigned | readings unsigned
//!           | first boot, sequence | last boot, sequence                          unsigned
//!           | first_at µs signed | last_at unsigned, less first_at
//!           | received_first µs signed | received_last unsigned, less received_first
//! ```
//!
//! It is metadata as the other clear columns are: encrypted with the file, and not for the patient.

use std::collections::BTreeMap;

use vitalseal_crypto::DeviceId;

use super::bytes::{Reader, put_length, put_signed, put_unsigned};
use super::error::{ChunkError, MAX_MESSAGES};
use super::messages::{self, MessageMeta};

const VERSION: u8 = 1;

/// What a chunk holds of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSummary {
    /// How many messages.
    pub messages: u64,
    /// How many readings, or samples.
    pub readings: u64,
    /// Boot and sequence of the message that was sent first.
    pub first: (u64, u64),
    /// Boot and sequence of the message that was sent last.
    pub last: (u64, u64),
    /// Earliest instant measured, µs since the Unix epoch.
    pub first_at_us: i64,
    /// Latest instant measured, µs since the Unix epoch.
    pub last_at_us: i64,
    /// Earliest arrival, µs since the Unix epoch.
    pub received_first_us: i64,
    /// Latest arrival, µs since the Unix epoch.
    pub received_last_us: i64,
}

/// What a chunk holds of all its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices(BTreeMap<DeviceId, DeviceSummary>);

impl Devices {
    /// Counts a message that brought `readings` from `first_at_us` to `last_at_us`.
    pub fn add(&mut self, message: &MessageMeta, readings: u64, first_at_us: i64, last_at_us: i64) {
        let place = (message.boot, message.sequence);
        let summary = DeviceSummary {
            messages: 1,
            readings,
            first: place,
            last: place,
            first_at_us,
            last_at_us,
            received_first_us: message.received_at_us,
            received_last_us: message.received_at_us,
        };
        self.include(&message.device, summary);
    }

    /// Counts what another chunk holds.
    pub fn merge(&mut self, other: &Self) {
        for (device, summary) in &other.0 {
            self.include(device, summary.clone());
        }
    }

    /// Each device and what there is of it, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, &DeviceSummary)> {
        self.0.iter()
    }

    /// Of one device.
    #[must_use]
    pub fn find(&self, device: &DeviceId) -> Option<&DeviceSummary> {
        self.0.get(device)
    }

    /// The bytes of the column.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_length(&mut out, self.0.len());
        for (device, of) in &self.0 {
            put_length(&mut out, device.as_bytes().len());
            out.extend(device.as_bytes());
            for count in [
                of.messages,
                of.readings,
                of.first.0,
                of.first.1,
                of.last.0,
                of.last.1,
            ] {
                put_unsigned(&mut out, count);
            }
            for (from, to) in [
                (of.first_at_us, of.last_at_us),
                (of.received_first_us, of.received_last_us),
            ] {
                put_signed(&mut out, from);
                put_unsigned(&mut out, to.wrapping_sub(from).cast_unsigned());
            }
        }
        out
    }

    /// Takes the bytes of the column.
    ///
    /// # Errors
    /// [`ChunkError::Version`] or [`ChunkError::Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ChunkError> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(ChunkError::Version);
        }
        let mut devices = BTreeMap::new();
        for _ in 0..reader.count(MAX_MESSAGES)? {
            let device = messages::device(&mut reader)?;
            let (messages, readings) = (reader.unsigned()?, reader.unsigned()?);
            let mut pair = || Ok((reader.unsigned()?, reader.unsigned()?));
            let (first, last) = (pair()?, pair()?);
            let mut range = || {
                let from = reader.signed()?;
                Ok((from, from.wrapping_add(reader.unsigned()?.cast_signed())))
            };
            let ((first_at_us, last_at_us), (received_first_us, received_last_us)) =
                (range()?, range()?);
            let summary = DeviceSummary {
                messages,
                readings,
                first,
                last,
                first_at_us,
                last_at_us,
                received_first_us,
                received_last_us,
            };
            if devices
                .last_key_value()
                .is_some_and(|(before, _)| *before >= device)
            {
                return Err(ChunkError::Damaged("its devices are not in order"));
            }
            devices.insert(device, summary);
        }
        if reader.rest().is_empty() {
            Ok(Self(devices))
        } else {
            Err(ChunkError::Damaged(
                "something stands behind the last device",
            ))
        }
    }

    fn include(&mut self, device: &DeviceId, other: DeviceSummary) {
        let Some(of) = self.0.get_mut(device) else {
            self.0.insert(device.clone(), other);
            return;
        };
        of.messages = of.messages.saturating_add(other.messages);
        of.readings = of.readings.saturating_add(other.readings);
        of.first = of.first.min(other.first);
        of.last = of.last.max(other.last);
        of.first_at_us = of.first_at_us.min(other.first_at_us);
        of.last_at_us = of.last_at_us.max(other.last_at_us);
        of.received_first_us = of.received_first_us.min(other.received_first_us);
        of.received_last_us = of.received_last_us.max(other.received_last_us);
    }
}
