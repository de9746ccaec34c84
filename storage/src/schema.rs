//! The columns of what is sealed, said once: for hot rows, for Parquet and for whoever scans either.
//!
//! [`sealed_rows`]: one row a message.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `subject` | `Utf8` | patient's pseudonym |
//! | `device` | `Utf8` | device id |
//! | `boot` | `Int64` | boot counter, below 2^53 |
//! | `sequence` | `Int64` | sequence within the boot, below 2^53 |
//! | `received_at` | `Timestamp(µs, "UTC")` | when the server took it |
//! | `first_at`, `last_at` | `Timestamp(µs, "UTC")` | earliest and latest instant measured, both inclusive |
//! | `readings` | `Int32` | how many readings are inside |
//! | `envelope` | `Binary` | at-rest COSE envelope, content key wrapped under the patient's KEK |
//!
//! Sorted by (`subject`, `first_at`).
//!
//! [`chunks`]: one row a patient and bucket of time, which holds whole messages: those whose first reading lies in it.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `subject` | `Utf8` | patient's pseudonym |
//! | `bucket_start` | `Timestamp(µs, "UTC")` | start of the bucket, a multiple of its width since the Unix epoch |
//! | `bucket_seconds` | `Int32` | width of the bucket: 900, 3600 or 86400 |
//! | `first_at`, `last_at` | `Timestamp(µs, "UTC")` | earliest and latest instant measured; the latest may lie behind the bucket |
//! | `received_first_at`, `received_last_at` | `Timestamp(µs, "UTC")` | earliest and latest arrival |
//! | `messages` | `Int32` | how many messages are inside |
//! | `readings` | `Int64` | how many readings they hold |
//! | `codes` | `Int64` | bitmap of the signals inside, by their numbers |
//! | `devices` | `Binary` | what is inside of each device; see [`crate::chunk`] |
//! | `sealed` | `Binary` | readings by column, content key wrapped under the patient's KEK |
//! | `evidence` | `Binary` | the at-rest COSE envelopes bit for bit, content key wrapped under the store key |
//!
//! Sorted by (`subject`, `bucket_start`).
//!
//! No column is null. Every value but `envelope`, `sealed` and `evidence` is metadata, in the clear but for the
//! encryption of the file; a measured value is only ever inside those three.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Patient's pseudonym.
pub const SUBJECT: &str = "subject";
/// Device id.
pub const DEVICE: &str = "device";
/// Boot counter.
pub const BOOT: &str = "boot";
/// Sequence within the boot.
pub const SEQUENCE: &str = "sequence";
/// When the server took the message.
pub const RECEIVED_AT: &str = "received_at";
/// Earliest instant measured.
pub const FIRST_AT: &str = "first_at";
/// Latest instant measured.
pub const LAST_AT: &str = "last_at";
/// Number of readings.
pub const READINGS: &str = "readings";
/// At-rest COSE envelope.
pub const ENVELOPE: &str = "envelope";

/// Start of a bucket.
pub const BUCKET_START: &str = "bucket_start";
/// Width of a bucket in seconds.
pub const BUCKET_SECONDS: &str = "bucket_seconds";
/// Earliest arrival.
pub const RECEIVED_FIRST_AT: &str = "received_first_at";
/// Latest arrival.
pub const RECEIVED_LAST_AT: &str = "received_last_at";
/// Number of messages.
pub const MESSAGES: &str = "messages";
/// Bitmap of signals.
pub const CODES: &str = "codes";
/// What is inside of each device.
pub const DEVICES: &str = "devices";
/// Readings by column, sealed.
pub const SEALED: &str = "sealed";
/// At-rest COSE envelopes, sealed.
pub const EVIDENCE: &str = "evidence";

/// The columns of ciphertext, at the end of either schema; the others say what is in it.
pub(crate) const CIPHERTEXT: [&str; 3] = [ENVELOPE, SEALED, EVIDENCE];

/// The schema of sealed rows.
#[must_use]
pub fn sealed_rows() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(SUBJECT, DataType::Utf8, false),
            Field::new(DEVICE, DataType::Utf8, false),
            Field::new(BOOT, DataType::Int64, false),
            Field::new(SEQUENCE, DataType::Int64, false),
            Field::new(RECEIVED_AT, instant(), false),
            Field::new(FIRST_AT, instant(), false),
            Field::new(LAST_AT, instant(), false),
            Field::new(READINGS, DataType::Int32, false),
            Field::new(ENVELOPE, DataType::Binary, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// The schema of chunks.
#[must_use]
pub fn chunks() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(SUBJECT, DataType::Utf8, false),
            Field::new(BUCKET_START, instant(), false),
            Field::new(BUCKET_SECONDS, DataType::Int32, false),
            Field::new(FIRST_AT, instant(), false),
            Field::new(LAST_AT, instant(), false),
            Field::new(RECEIVED_FIRST_AT, instant(), false),
            Field::new(RECEIVED_LAST_AT, instant(), false),
            Field::new(MESSAGES, DataType::Int32, false),
            Field::new(READINGS, DataType::Int64, false),
            Field::new(CODES, DataType::Int64, false),
            Field::new(DEVICES, DataType::Binary, false),
            Field::new(SEALED, DataType::Binary, false),
            Field::new(EVIDENCE, DataType::Binary, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}
