//! The plaintext side: the same readings in Parquet, zstd, on DataFusion as it comes, in the layouts that somebody would
//! choose who had nothing to hide; and one of them under Parquet Modular Encryption.
//!
//! | Layout | Sorted by | Times |
//! |---|---|---|
//! | `time` | patient, time | as the writer does by itself: dictionary, then plain |
//! | `time_delta` | patient, time | `DELTA_BINARY_PACKED` |
//! | `signal` | patient, signal, time | as the writer does by itself |
//! | `signal_delta` | patient, signal, time | `DELTA_BINARY_PACKED` |
//!
//! One file each, the best that a compaction could make; row groups of 1,048,576 rows, pages of 20,000, page indexes,
//! dictionaries: parquet's defaults. Values are dictionary-coded, which suits them better than byte-stream-split: a ward
//! has few different ones.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::encryption::encrypt::FileEncryptionProperties;
use datafusion::parquet::file::metadata::{ParquetMetaData, SortingColumn};
use datafusion::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use datafusion::parquet::schema::types::ColumnPath;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tempfile::TempDir;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_vitals::Reading;

use crate::pme;
use crate::workload::Workload;

/// As many as a session of ours has.
const PARTITIONS: usize = 2;

pub const LAYOUTS: [&str; 4] = ["time", "time_delta", "signal", "signal_delta"];

/// All files of one workload.
pub struct Plaintext {
    dir: TempDir,
    /// Metadata of each layout, in the order of [`LAYOUTS`].
    pub written: Vec<ParquetMetaData>,
    pub readings: u64,
}

/// One way to ask: a layout, and whether filters are pushed into the scan.
pub struct Variant {
    pub name: String,
    /// The layout's; the faster of its variants counts for it.
    pub layout: &'static str,
    context: SessionContext,
}

/// One reading and what is known of it.
struct Row<'a> {
    device: &'a str,
    reading: Reading,
    received_us: i64,
}

impl Plaintext {
    /// Writes every layout; `subjects` are the pseudonyms of the workload's patients.
    pub fn write(workload: &Workload, subjects: &[SubjectPseudonym]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(format!("{name}.parquet"));
        let writer = |name: &str, properties: WriterPropertiesBuilder| {
            let file = File::create(path(name)).unwrap();
            ArrowWriter::try_new(file, schema(), Some(properties.build())).unwrap()
        };
        let mut writers: Vec<_> = LAYOUTS
            .iter()
            .map(|name| writer(name, properties(name)))
            .collect();
        let key = FileEncryptionProperties::builder(pme::KEY.to_vec());
        let encrypted =
            properties(LAYOUTS[0]).with_file_encryption_properties(key.build().unwrap());
        let mut encrypted = writer("pme", encrypted);

        let sources = workload.sources();
        let mut order: Vec<usize> = (0..workload.patients).collect();
        order.sort_by_key(|patient| subjects[*patient].as_str());
        let mut readings = 0;
        for patient in order {
            let mut rows = Vec::new();
            for source in sources.iter().filter(|source| source.patient == patient) {
                for batch in workload.batches_of(source) {
                    let received_us = batch.arrives_at.as_microsecond();
                    let readings = batch.payload.into_readings().into_iter();
                    rows.extend(readings.map(|reading| Row {
                        device: &source.name,
                        reading,
                        received_us,
                    }));
                }
            }
            readings += rows.len() as u64;
            let subject = subjects[patient].as_str();
            rows.sort_by_key(|row| row.reading.at);
            let by_time = columns(subject, &rows);
            rows.sort_by_key(|row| (row.reading.signal.code, row.reading.at));
            let by_signal = columns(subject, &rows);
            for (name, writer) in LAYOUTS.iter().zip(&mut writers) {
                let sorted = if name.starts_with("time") {
                    &by_time
                } else {
                    &by_signal
                };
                writer.write(sorted).unwrap();
            }
            encrypted.write(&by_time).unwrap();
        }
        encrypted.close().unwrap();
        let written = writers.into_iter().map(|writer| writer.close().unwrap());
        Self {
            written: written.collect(),
            readings,
            dir,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.parquet"))
    }

    /// Every layout, with and without filters pushed down: neither is better for all queries.
    pub async fn variants(&self) -> Vec<Variant> {
        let mut variants = Vec::new();
        for layout in LAYOUTS {
            for pushdown in [false, true] {
                let name = if pushdown {
                    format!("{layout}+pushdown")
                } else {
                    layout.to_owned()
                };
                let context = SessionContext::new_with_config(config(pushdown));
                let (path, options) = (self.path(layout), ParquetReadOptions::default());
                let path = path.to_str().unwrap();
                context
                    .register_parquet("vitals", path, options)
                    .await
                    .unwrap();
                variants.push(Variant {
                    name,
                    layout,
                    context,
                });
            }
        }
        variants
    }

    /// The layout `time` under Parquet Modular Encryption.
    pub fn encrypted(&self) -> Vec<Variant> {
        let table = Arc::new(pme::Encrypted::open(&self.path("pme")));
        let variant = |pushdown| {
            let context = SessionContext::new_with_config(config(pushdown));
            let table = Arc::clone(&table);
            context.register_table("vitals", table).unwrap();
            Variant {
                name: format!("pme{}", if pushdown { "+pushdown" } else { "" }),
                layout: "pme",
                context,
            }
        };
        vec![variant(false), variant(true)]
    }
}

impl Variant {
    /// Runs a query to its last row; what it took is from its text to there.
    pub async fn query(&self, sql: &str) -> (Vec<RecordBatch>, Duration) {
        let started = Instant::now();
        let rows = self
            .context
            .sql(sql)
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        (rows, started.elapsed())
    }
}

fn config(pushdown: bool) -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(PARTITIONS);
    config.options_mut().execution.parquet.pushdown_filters = pushdown;
    config
}

/// The columns of `vitals` that a plaintext table would have: all but what can be looked up by the code or proves where a
/// reading came from.
pub fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
    Arc::new(Schema::new(vec![
        text("patient"),
        text("device"),
        text("code"),
        Field::new("value", DataType::Float64, false),
        text("unit"),
        Field::new("ts", instant(), false),
        Field::new("received_at", instant(), false),
        text("quality"),
    ]))
}

fn columns(subject: &str, rows: &[Row<'_>]) -> RecordBatch {
    let text = |of: &dyn Fn(&Row<'_>) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let instant = |of: fn(&Row<'_>) -> i64| -> ArrayRef {
        let array = TimestampMicrosecondArray::from_iter_values(rows.iter().map(of));
        Arc::new(array.with_timezone("UTC"))
    };
    let value = rows.iter().map(|row| row.reading.value);
    let columns = vec![
        text(&|_| subject.to_owned()),
        text(&|row| row.device.to_owned()),
        text(&|row| row.reading.signal.code.to_owned()),
        Arc::new(Float64Array::from_iter_values(value)),
        text(&|row| row.reading.signal.unit.to_owned()),
        instant(|row| row.reading.at.as_microsecond()),
        instant(|row| row.received_us),
        text(&|row| row.reading.quality().as_str().to_owned()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn properties(layout: &str) -> WriterPropertiesBuilder {
    let index = |name: &str| i32::try_from(schema().index_of(name).unwrap()).unwrap();
    let sorted = |name: &str| SortingColumn {
        column_idx: index(name),
        descending: false,
        nulls_first: false,
    };
    let by: &[&str] = match layout {
        "time" | "time_delta" => &["patient", "ts"],
        _ => &["patient", "code", "ts"],
    };
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_sorting_columns(Some(by.iter().map(|name| sorted(name)).collect()));
    if layout.ends_with("delta") {
        let ts = ColumnPath::from("ts");
        properties = properties
            .set_column_dictionary_enabled(ts.clone(), false)
            .set_column_encoding(ts, Encoding::DELTA_BINARY_PACKED);
    }
    properties
}

/// Size of a file.
pub fn size(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}
