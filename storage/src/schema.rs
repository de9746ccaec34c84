//! The columns of a sealed row, said once: for hot rows, for Parquet and for whoever scans either.
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
//! No column is null. Rows are sorted by (`subject`, `first_at`). Every value but `envelope` is
//! metadata in the clear; a measured value is only ever inside `envelope`.

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

/// The schema of sealed rows.
#[must_use]
pub fn sealed_rows() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
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
