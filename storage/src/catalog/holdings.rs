//! How much is held of whom, counted without a key.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{AtRest, DeviceId, SubjectPseudonym, default_backend};

use super::{Catalog, DataFile, FileKind, Snapshot};
use crate::chunk::{ChunkRow, Devices, Noted};
use crate::columns;
use crate::compact::open_evidence;
use crate::database::{at, count, parsed, us};
use crate::schema;
use crate::store::StoreError;

/// What is held of one patient from one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Patient.
    pub subject: SubjectPseudonym,
    /// Device.
    pub device: DeviceId,
    /// Messages.
    pub messages: u64,
    /// Readings inside them.
    pub readings: u64,
    /// Earliest instant measured.
    pub first_at: Timestamp,
    /// Latest instant measured.
    pub last_at: Timestamp,
    /// Of the messages, those of chunks that came partly in the window, and whose evidence does not open any more: some
    /// of them, and of their readings, may have come before it or after.
    pub undated: u64,
}

impl Catalog {
    /// Counts what arrived in `[from, to)`, of these patients and from these devices (`None`: of
    /// all), in the inbox and in files. Erased patients count until their ciphertext is gone: it is
    /// still held.
    ///
    /// # Errors
    /// When inbox, registry or a file cannot be read.
    pub async fn holdings(
        &self,
        subjects: Option<&BTreeSet<SubjectPseudonym>>,
        devices: Option<&BTreeSet<DeviceId>>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Holding>, StoreError> {
        let wanted = Wanted {
            subjects: subjects.map(|s| s.iter().map(|s| s.as_str().to_owned()).collect()),
            devices: devices.map(|d| d.iter().map(|d| d.as_str().to_owned()).collect()),
            from_us: us(from),
            to_us: us(to),
        };
        // First the inbox, then the catalog: what is flushed in between is then in both and dropped
        // here, never in neither.
        let rows = sqlx::query(
            "SELECT id, subject, device, received_at_us, first_at_us, last_at_us, readings FROM inbox \
             WHERE received_at_us >= $1 AND received_at_us < $2",
        )
        .bind(wanted.from_us)
        .bind(wanted.to_us)
        .fetch_all(self.inbox.database().pool())
        .await?;
        let Snapshot { files, high, .. } = self.current().await?;
        let mut held = Held::default();
        for row in rows {
            let (subject, device) = (row.try_get("subject")?, row.try_get("device")?);
            if row.try_get::<i64, _>("id")? > high && wanted.names(subject, device) {
                let readings = count(row.try_get("readings")?)?;
                let span = (row.try_get("first_at_us")?, row.try_get("last_at_us")?);
                held.add(subject, device, Sum::of(1, readings, span));
            }
        }
        for file in files.iter() {
            if us(file.received_first_at) < wanted.to_us
                && us(file.received_last_at) >= wanted.from_us
            {
                self.count_file(file, &wanted, &mut held).await?;
            }
        }
        held.into_holdings()
    }

    async fn count_file(
        &self,
        file: &DataFile,
        wanted: &Wanted,
        held: &mut Held,
    ) -> Result<(), StoreError> {
        let (counted, rows) = match file.kind {
            FileKind::Rows => (MESSAGES, 8192),
            FileKind::Chunks => (CHUNKS, 1024),
        };
        let subjects = wanted.subjects.as_ref();
        let mut batches = self.data.batches_of(file, counted, rows, subjects).boxed();
        let mut cut_through = false;
        while let Some(batch) = batches.try_next().await? {
            match file.kind {
                FileKind::Rows => count_messages(&batch, wanted, held)?,
                FileKind::Chunks => cut_through |= count_chunks(&batch, wanted, held)?,
            }
        }
        if !cut_through {
            return Ok(());
        }
        // Chunks that came partly before the window or after it: their envelopes say what came when.
        let schema = file.kind.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let mut batches = self.data.batches_of(file, &columns, 8, subjects).boxed();
        while let Some(batch) = batches.try_next().await? {
            for row in 0..batch.num_rows() {
                let chunk = ChunkRow::read(&batch, row)?;
                let span = (chunk.received_first_us, chunk.received_last_us);
                let subject = chunk.subject.as_str();
                let mut devices = chunk.devices.iter();
                if wanted.overlap(span) == Overlap::Part
                    && devices.any(|(device, _)| wanted.names(subject, device.as_str()))
                {
                    // A report of a breach does not wait for a repair: what cannot be told apart counts.
                    match self.messages_of(&chunk, file) {
                        Some(messages) => messages.count(subject, wanted, held),
                        None => count_all(subject, &chunk.devices, wanted, held, true),
                    }
                }
            }
        }
        Ok(())
    }

    /// When each message of a chunk came, and what it brought; `None` when its evidence was lost, or is damaged.
    fn messages_of(&self, chunk: &ChunkRow, file: &DataFile) -> Option<Arrived> {
        let evidence = open_evidence(chunk, file.table, self.data.keys(), default_backend())?;
        let messages = evidence.messages().map(|(noted, envelope)| {
            let envelope = AtRest::decode(envelope).ok()?;
            Some((envelope.header().device.clone(), *noted))
        });
        messages.collect::<Option<_>>().map(Arrived)
    }
}

/// The messages of a chunk.
struct Arrived(Vec<(DeviceId, Noted)>);

impl Arrived {
    fn count(&self, subject: &str, wanted: &Wanted, held: &mut Held) {
        for (device, noted) in &self.0 {
            let arrived = (noted.received_at_us, noted.received_at_us);
            if wanted.overlap(arrived) == Overlap::All && wanted.names(subject, device.as_str()) {
                let span = (noted.first_at_us, noted.last_at_us);
                let sum = Sum::of(1, noted.readings.into(), span);
                held.add(subject, device.as_str(), sum);
            }
        }
    }
}

/// What is read of messages and of chunks.
const MESSAGES: &[&str] = &[
    schema::SUBJECT,
    schema::DEVICE,
    schema::RECEIVED_AT,
    schema::FIRST_AT,
    schema::LAST_AT,
    schema::READINGS,
];
const CHUNKS: &[&str] = &[
    schema::SUBJECT,
    schema::RECEIVED_FIRST_AT,
    schema::RECEIVED_LAST_AT,
    schema::DEVICES,
];

struct Wanted {
    subjects: Option<BTreeSet<String>>,
    devices: Option<BTreeSet<String>>,
    from_us: i64,
    to_us: i64,
}

impl Wanted {
    /// How much of what came in this span, both ends inclusive, came in the window.
    fn overlap(&self, (first_us, last_us): (i64, i64)) -> Overlap {
        if last_us < self.from_us || first_us >= self.to_us {
            Overlap::None
        } else if first_us >= self.from_us && last_us < self.to_us {
            Overlap::All
        } else {
            Overlap::Part
        }
    }

    fn names(&self, subject: &str, device: &str) -> bool {
        self.subjects.as_ref().is_none_or(|s| s.contains(subject))
            && self.devices.as_ref().is_none_or(|d| d.contains(device))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Overlap {
    None,
    Part,
    All,
}

/// By patient and device.
#[derive(Default)]
struct Held(BTreeMap<(String, String), Sum>);

#[derive(Clone, Copy)]
struct Sum {
    messages: u64,
    readings: u64,
    undated: u64,
    first_us: i64,
    last_us: i64,
}

impl Sum {
    fn of(messages: u64, readings: u64, (first_us, last_us): (i64, i64)) -> Self {
        Self {
            messages,
            readings,
            undated: 0,
            first_us,
            last_us,
        }
    }
}

impl Held {
    fn add(&mut self, subject: &str, device: &str, sum: Sum) {
        let key = (subject.to_owned(), device.to_owned());
        let held = self.0.entry(key).or_insert(Sum {
            messages: 0,
            readings: 0,
            undated: 0,
            ..sum
        });
        // Columns of chunks say what they like.
        held.messages = held.messages.saturating_add(sum.messages);
        held.readings = held.readings.saturating_add(sum.readings);
        held.undated = held.undated.saturating_add(sum.undated);
        held.first_us = held.first_us.min(sum.first_us);
        held.last_us = held.last_us.max(sum.last_us);
    }

    fn into_holdings(self) -> Result<Vec<Holding>, StoreError> {
        let mut holdings = Vec::with_capacity(self.0.len());
        for ((subject, device), sum) in self.0 {
            holdings.push(Holding {
                subject: parsed(&subject)?,
                device: parsed(&device)?,
                messages: sum.messages,
                readings: sum.readings,
                first_at: at(sum.first_us)?,
                last_at: at(sum.last_us)?,
                undated: sum.undated,
            });
        }
        Ok(holdings)
    }
}

fn count_messages(batch: &RecordBatch, wanted: &Wanted, held: &mut Held) -> Result<(), ArrowError> {
    let subjects = columns::text(batch, schema::SUBJECT)?;
    let devices = columns::text(batch, schema::DEVICE)?;
    let instants = |name| columns::numbers::<TimestampMicrosecondType>(batch, name);
    let received = instants(schema::RECEIVED_AT)?;
    let (first, last) = (instants(schema::FIRST_AT)?, instants(schema::LAST_AT)?);
    let readings = columns::numbers::<Int32Type>(batch, schema::READINGS)?;
    for row in 0..batch.num_rows() {
        let arrived = received.value(row);
        let (subject, device) = (subjects.value(row), devices.value(row));
        if wanted.overlap((arrived, arrived)) == Overlap::All && wanted.names(subject, device) {
            let readings = u64::try_from(readings.value(row)).unwrap_or(0);
            let span = (first.value(row), last.value(row));
            held.add(subject, device, Sum::of(1, readings, span));
        }
    }
    Ok(())
}

/// Counts the chunks that came within the window; says whether there are some that came partly in it.
fn count_chunks(batch: &RecordBatch, wanted: &Wanted, held: &mut Held) -> Result<bool, StoreError> {
    let subjects = columns::text(batch, schema::SUBJECT)?;
    let instants = |name| columns::numbers::<TimestampMicrosecondType>(batch, name);
    let (first, last) = (
        instants(schema::RECEIVED_FIRST_AT)?,
        instants(schema::RECEIVED_LAST_AT)?,
    );
    let devices = columns::bytes(batch, schema::DEVICES)?;
    let mut cut_through = false;
    for row in 0..batch.num_rows() {
        let subject = subjects.value(row);
        let overlap = wanted.overlap((first.value(row), last.value(row)));
        if overlap == Overlap::None {
            continue;
        }
        let devices = Devices::parse(devices.value(row))?;
        if overlap == Overlap::Part {
            let mut named = devices.iter();
            cut_through |= named.any(|(device, _)| wanted.names(subject, device.as_str()));
        } else {
            count_all(subject, &devices, wanted, held, false);
        }
    }
    Ok(cut_through)
}

/// Counts a chunk as a whole, by what is said of its devices.
fn count_all(subject: &str, devices: &Devices, wanted: &Wanted, held: &mut Held, undated: bool) {
    let named = devices.iter();
    for (device, of) in named.filter(|(device, _)| wanted.names(subject, device.as_str())) {
        let sum = Sum::of(of.messages, of.readings, (of.first_at_us, of.last_at_us));
        let undated = if undated { of.messages } else { 0 };
        held.add(subject, device.as_str(), Sum { undated, ..sum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_nobody_can_hold_make_a_report_large_and_not_small() {
        let mut held = Held::default();
        for _ in 0..2 {
            held.add("p", "d", Sum::of(u64::MAX, u64::MAX, (1, 2)));
        }
        let sum = held.0.values().next().unwrap();
        assert_eq!((sum.messages, sum.readings), (u64::MAX, u64::MAX));
    }
}
