//! Rows of the inbox as they are read again: for a query's snapshot, for a flush, for a count.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use vitalseal_crypto::SubjectPseudonym;

use crate::columns;
use crate::database::damaged;
use crate::schema;

/// One stored message.
#[derive(Clone)]
pub(crate) struct SealedRow {
    pub(crate) id: i64,
    pub(crate) subject: String,
    pub(crate) device: String,
    pub(crate) boot: i64,
    pub(crate) sequence: i64,
    pub(crate) received_at_us: i64,
    pub(crate) first_at_us: i64,
    pub(crate) last_at_us: i64,
    pub(crate) readings: i32,
    pub(crate) envelope: Vec<u8>,
}

impl SealedRow {
    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            subject: row.try_get("subject")?,
            device: row.try_get("device")?,
            boot: row.try_get("boot")?,
            sequence: row.try_get("sequence")?,
            received_at_us: row.try_get("received_at_us")?,
            first_at_us: row.try_get("first_at_us")?,
            last_at_us: row.try_get("last_at_us")?,
            readings: i32::try_from(row.try_get::<i64, _>("readings")?).map_err(damaged)?,
            envelope: row.try_get("envelope")?,
        })
    }
}

impl SealedRow {
    /// A row of a file. It has no number any more.
    pub(crate) fn of_batch(batch: &RecordBatch, row: usize) -> Result<Self, ArrowError> {
        let text = |name| Ok::<_, ArrowError>(columns::text(batch, name)?.value(row).to_owned());
        let number =
            |name| Ok::<_, ArrowError>(columns::numbers::<Int64Type>(batch, name)?.value(row));
        let instant = |name| {
            let column = columns::numbers::<TimestampMicrosecondType>(batch, name)?;
            Ok::<_, ArrowError>(column.value(row))
        };
        Ok(Self {
            id: 0,
            subject: text(schema::SUBJECT)?,
            device: text(schema::DEVICE)?,
            boot: number(schema::BOOT)?,
            sequence: number(schema::SEQUENCE)?,
            received_at_us: instant(schema::RECEIVED_AT)?,
            first_at_us: instant(schema::FIRST_AT)?,
            last_at_us: instant(schema::LAST_AT)?,
            readings: columns::numbers::<Int32Type>(batch, schema::READINGS)?.value(row),
            envelope: columns::bytes(batch, schema::ENVELOPE)?.value(row).to_vec(),
        })
    }
}

/// The oldest rows, until one of the limits is reached, and whether there are more.
pub(crate) async fn oldest(
    max_rows: usize,
    max_bytes: usize,
    pool: &SqlitePool,
) -> Result<(Vec<SealedRow>, bool), sqlx::Error> {
    let mut stream = sqlx::query("SELECT * FROM inbox ORDER BY id").fetch(pool);
    let (mut rows, mut bytes) = (Vec::new(), 0_usize);
    while let Some(row) = stream.try_next().await? {
        if rows.len() == max_rows || bytes >= max_bytes {
            return Ok((rows, true));
        }
        let row = SealedRow::read(&row)?;
        bytes += row.envelope.len();
        rows.push(row);
    }
    Ok((rows, false))
}

/// The next rows after this number, in the order of admission.
pub(crate) async fn after(
    id: i64,
    max_rows: i64,
    pool: &SqlitePool,
) -> Result<Vec<SealedRow>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM inbox WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(id)
        .bind(max_rows)
        .fetch_all(pool)
        .await?;
    rows.iter().map(SealedRow::read).collect()
}

/// The rows of these patients, sorted as the schema says.
pub(crate) async fn of_subjects(
    subjects: &BTreeSet<SubjectPseudonym>,
    pool: &SqlitePool,
) -> Result<Vec<SealedRow>, sqlx::Error> {
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    // One bound JSON array: the number of patients has no limit, the number of parameters has.
    let list: Vec<&str> = subjects.iter().map(SubjectPseudonym::as_str).collect();
    let list = serde_json::to_string(&list).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    let rows = sqlx::query(
        "SELECT * FROM inbox WHERE subject IN (SELECT value FROM json_each($1)) \
         ORDER BY subject, first_at_us",
    )
    .bind(list)
    .fetch_all(pool)
    .await?;
    rows.iter().map(SealedRow::read).collect()
}

/// Rows in the columns of [`schema::sealed_rows`], in the order given.
pub(crate) fn record_batch(rows: &[SealedRow]) -> Result<RecordBatch, ArrowError> {
    let total = rows
        .iter()
        .try_fold(0_usize, |sum, row| sum.checked_add(row.envelope.len()));
    if total.is_none_or(|bytes| i32::try_from(bytes).is_err()) {
        return Err(ArrowError::OffsetOverflowError(total.unwrap_or(usize::MAX)));
    }
    let n = rows.len();
    let mut subject = StringBuilder::with_capacity(n, n * 33);
    let mut device = StringBuilder::with_capacity(n, n * 16);
    let instants = || TimestampMicrosecondBuilder::with_capacity(n).with_timezone("UTC");
    let (mut boot, mut sequence) = (
        Int64Builder::with_capacity(n),
        Int64Builder::with_capacity(n),
    );
    let (mut received_at, mut first_at, mut last_at) = (instants(), instants(), instants());
    let mut readings = Int32Builder::with_capacity(n);
    let mut envelope = BinaryBuilder::with_capacity(n, total.unwrap_or(0));
    for row in rows {
        subject.append_value(&row.subject);
        device.append_value(&row.device);
        boot.append_value(row.boot);
        sequence.append_value(row.sequence);
        received_at.append_value(row.received_at_us);
        first_at.append_value(row.first_at_us);
        last_at.append_value(row.last_at_us);
        readings.append_value(row.readings);
        envelope.append_value(&row.envelope);
    }
    RecordBatch::try_new(
        schema::sealed_rows(),
        vec![
            Arc::new(subject.finish()),
            Arc::new(device.finish()),
            Arc::new(boot.finish()),
            Arc::new(sequence.finish()),
            Arc::new(received_at.finish()),
            Arc::new(first_at.finish()),
            Arc::new(last_at.finish()),
            Arc::new(readings.finish()),
            Arc::new(envelope.finish()),
        ],
    )
}
