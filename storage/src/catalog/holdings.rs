//! How much is held of whom, counted without a key.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{DeviceId, SubjectPseudonym};

use super::{Catalog, Snapshot};
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
                let span = (row.try_get("first_at_us")?, row.try_get("last_at_us")?);
                held.add(subject, device, count(row.try_get("readings")?)?, span);
            }
        }
        for file in files.iter() {
            if us(file.received_first_at) < wanted.to_us
                && us(file.received_last_at) >= wanted.from_us
            {
                let mut batches = self.data.batches(file, &COLUMNS, BATCH).boxed();
                while let Some(batch) = batches.try_next().await? {
                    count_batch(&batch, &wanted, &mut held)?;
                }
            }
        }
        held.into_holdings()
    }
}

/// What is read of a file, rows at a time.
const COLUMNS: [&str; 6] = [
    schema::SUBJECT,
    schema::DEVICE,
    schema::RECEIVED_AT,
    schema::FIRST_AT,
    schema::LAST_AT,
    schema::READINGS,
];
const BATCH: usize = 8192;

struct Wanted {
    subjects: Option<BTreeSet<String>>,
    devices: Option<BTreeSet<String>>,
    from_us: i64,
    to_us: i64,
}

impl Wanted {
    fn names(&self, subject: &str, device: &str) -> bool {
        self.subjects.as_ref().is_none_or(|s| s.contains(subject))
            && self.devices.as_ref().is_none_or(|d| d.contains(device))
    }
}

#[derive(Default)]
struct Held(BTreeMap<(String, String), (u64, u64, i64, i64)>);

impl Held {
    fn add(&mut self, subject: &str, device: &str, readings: u64, (first, last): (i64, i64)) {
        let key = (subject.to_owned(), device.to_owned());
        let sum = self.0.entry(key).or_insert((0, 0, first, last));
        *sum = (
            sum.0 + 1,
            sum.1 + readings,
            sum.2.min(first),
            sum.3.max(last),
        );
    }

    fn into_holdings(self) -> Result<Vec<Holding>, StoreError> {
        let mut holdings = Vec::with_capacity(self.0.len());
        for ((subject, device), (messages, readings, first, last)) in self.0 {
            holdings.push(Holding {
                subject: parsed(&subject)?,
                device: parsed(&device)?,
                messages,
                readings,
                first_at: at(first)?,
                last_at: at(last)?,
            });
        }
        Ok(holdings)
    }
}

fn count_batch(batch: &RecordBatch, wanted: &Wanted, held: &mut Held) -> Result<(), ArrowError> {
    let column = |name: &str| {
        let missing = || ArrowError::SchemaError(format!("there is no column {name}"));
        batch.column_by_name(name).ok_or_else(missing)
    };
    let wrong = || ArrowError::SchemaError("a column has another type than the schema says".into());
    let subjects = column(schema::SUBJECT)?
        .as_string_opt::<i32>()
        .ok_or_else(wrong)?;
    let devices = column(schema::DEVICE)?
        .as_string_opt::<i32>()
        .ok_or_else(wrong)?;
    let instants = |name| {
        column(name)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(wrong)
    };
    let received = instants(schema::RECEIVED_AT)?;
    let (first, last) = (instants(schema::FIRST_AT)?, instants(schema::LAST_AT)?);
    let readings = column(schema::READINGS)?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(wrong)?;
    for row in 0..batch.num_rows() {
        let arrived = received.value(row);
        let (subject, device) = (subjects.value(row), devices.value(row));
        if (wanted.from_us..wanted.to_us).contains(&arrived) && wanted.names(subject, device) {
            let readings = u64::try_from(readings.value(row)).unwrap_or(0);
            held.add(
                subject,
                device,
                readings,
                (first.value(row), last.value(row)),
            );
        }
    }
    Ok(())
}
