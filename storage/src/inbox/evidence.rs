//! Proofs that a device's key is in two hands, and the stored message that each of them needs.
//!
//! A proof is kept when the fork is found, not made when it is asked for: by then an erasure may have
//! taken one of the two messages. It holds no recipient, so it opens nothing and may outlive the
//! patient. One a boot is kept, and a few a device: the second proves no more than the first, and a
//! clone that sends much must neither fill the disk with it nor keep the server searching.

use arrow::array::{Array as _, AsArray as _, BooleanArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use sqlx::{Row as _, SqliteConnection};
use vitalseal_crypto::{DeviceId, MessageId};

use super::{Inbox, InboxError};
use crate::database::{at, count, number};
use crate::files::SealedFileReader;
use crate::ports::QuarantineReason;
use crate::schema;
use crate::store::{Store, StoreError};

/// A kept proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptProof {
    /// Boot that both messages claim.
    pub boot: u64,
    /// When the second of them came.
    pub found_at: Timestamp,
    /// The encoded [`CloneProof`](vitalseal_crypto::CloneProof).
    pub proof: Vec<u8>,
}

/// Proofs kept against one device, the first ones: a boot number is whatever a clone writes there.
const KEPT: i64 = 16;

/// Keeps a proof, unless there is one of this boot, or enough.
pub(super) async fn keep(
    device: &str,
    boot: i64,
    found_at_us: i64,
    proof: &[u8],
    conn: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO clone_proofs (device, boot, found_at_us, proof) SELECT $1, $2, $3, $4 \
         WHERE (SELECT COUNT(*) FROM clone_proofs WHERE device = $1) < $5 ON CONFLICT DO NOTHING",
    )
    .bind(device)
    .bind(boot)
    .bind(found_at_us)
    .bind(proof)
    .bind(KEPT)
    .execute(conn)
    .await
    .map(drop)
}

impl Inbox {
    /// Whether a proof from this fork would be kept and was not looked for before.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn wants_proof(&self, fork: &MessageId) -> Result<bool, InboxError> {
        let wanted = sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT 1 FROM clone_proofs WHERE device = $1 AND boot = $2) \
             AND NOT EXISTS (SELECT 1 FROM quarantine \
             WHERE device = $1 AND boot = $2 AND sequence = $3 AND reason = $4) \
             AND (SELECT COUNT(*) FROM clone_proofs WHERE device = $1) < $5",
        )
        .bind(fork.device.as_str())
        .bind(number(fork.boot)?)
        .bind(number(fork.sequence)?)
        .bind(QuarantineReason::Fork.as_str())
        .bind(KEPT);
        Ok(wanted.fetch_one(self.database().pool()).await?)
    }

    /// The proofs against this device, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn clone_proofs(&self, device: &DeviceId) -> Result<Vec<KeptProof>, InboxError> {
        let rows = sqlx::query(
            "SELECT boot, found_at_us, proof FROM clone_proofs WHERE device = $1 ORDER BY found_at_us",
        )
        .bind(device.as_str())
        .fetch_all(self.database().pool())
        .await?;
        let mut proofs = Vec::with_capacity(rows.len());
        for row in rows {
            proofs.push(KeptProof {
                boot: count(row.try_get("boot")?)?,
                found_at: at(row.try_get("found_at_us")?)?,
                proof: row.try_get("proof")?,
            });
        }
        Ok(proofs)
    }
}

impl Store {
    /// The stored envelope with these counters, at rest, from the inbox or from a file; `None` when it is in neither.
    ///
    /// Nothing is sorted by these columns, so files are searched one after another: for evidence, not for queries.
    ///
    /// # Errors
    /// When inbox, registry or a file cannot be read.
    pub async fn stored_envelope(
        &self,
        message: &MessageId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (boot, sequence) = (number(message.boot)?, number(message.sequence)?);
        // First the inbox, then the catalog: what is flushed in between is then in both, never in neither.
        let hot: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT envelope FROM inbox WHERE device = $1 AND boot = $2 AND sequence = $3",
        )
        .bind(message.device.as_str())
        .bind(boot)
        .bind(sequence)
        .fetch_optional(self.inbox.database().pool())
        .await?;
        if hot.is_some() {
            return Ok(hot);
        }
        let files = self.catalog.files().await?;
        for file in files.iter() {
            let reader = self.files.reader(file);
            if let Some(found) = find(reader, message.device.as_str(), boot, sequence).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Reads the envelope column only where the counters fit.
async fn find(
    reader: SealedFileReader,
    device: &str,
    boot: i64,
    sequence: i64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
    let columns =
        |names: &[&str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let counters = columns(&[schema::DEVICE, schema::BOOT, schema::SEQUENCE]);
    let envelope = columns(&[schema::ENVELOPE]);
    let device = device.to_owned();
    let fits = ArrowPredicateFn::new(counters, move |batch| {
        matching(&batch, &device, boot, sequence)
    });
    let mut filtered = builder
        .with_projection(envelope)
        .with_row_filter(RowFilter::new(vec![Box::new(fits)]))
        .build()?;
    while let Some(batch) = filtered.try_next().await? {
        let envelopes = batch.column(0).as_binary_opt::<i32>();
        if let Some(envelopes) = envelopes.filter(|envelopes| !envelopes.is_empty()) {
            return Ok(Some(envelopes.value(0).to_vec()));
        }
    }
    Ok(None)
}

fn matching(
    batch: &RecordBatch,
    device: &str,
    boot: i64,
    sequence: i64,
) -> Result<BooleanArray, ArrowError> {
    let wrong = || ArrowError::SchemaError("the columns are not those of the schema".into());
    let column = |name| batch.column_by_name(name).ok_or_else(wrong);
    let devices = column(schema::DEVICE)?
        .as_string_opt::<i32>()
        .ok_or_else(wrong)?;
    let numbers = |name| {
        column(name)?
            .as_primitive_opt::<Int64Type>()
            .ok_or_else(wrong)
    };
    let (boots, sequences) = (numbers(schema::BOOT)?, numbers(schema::SEQUENCE)?);
    Ok((0..batch.num_rows())
        .map(|row| {
            let fits = sequences.value(row) == sequence
                && boots.value(row) == boot
                && devices.value(row) == device;
            Some(fits)
        })
        .collect())
}
