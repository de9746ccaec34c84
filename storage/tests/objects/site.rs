//! A store of one test, and files of both kinds with made-up rows.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use tempfile::TempDir;
use vitalseal_storage::catalog::SnapshotId;
use vitalseal_storage::{
    DataFile, FileKind, FileRootProvider, RegistryPlace, Store, StoreError, StorePaths, TableKind,
    WrittenFile, schema,
};

use crate::bucket::s3;
use crate::postgres::Schema;
use crate::registry;

/// A directory with a data directory and its root keys; and a schema, if the registry is on a server.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) schema: Option<Schema>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            schema: Schema::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn registry(&self) -> RegistryPlace {
        registry::place(self.schema.as_ref().map(Schema::address))
    }

    pub(crate) fn paths(&self) -> StorePaths {
        StorePaths::new(&self.path().join("data"), None).with_registry(self.registry())
    }

    /// With the files in the bucket behind this address.
    pub(crate) fn paths_in_bucket(&self, address: SocketAddr) -> StorePaths {
        self.paths().with_objects(s3(address, self.path()))
    }

    pub(crate) async fn create(&self) -> Store {
        let roots = FileRootProvider::new(self.paths().root_keys());
        let roots: Arc<dyn vitalseal_storage::RootProvider> = Arc::new(roots);
        Store::create(&self.paths(), roots, at(0)).await.unwrap()
    }
}

/// Seconds after some instant of 2026.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + seconds).unwrap()
}

/// The name of a data file that no other test asks for.
pub(crate) fn name(kind: FileKind, n: u32) -> String {
    let prefix = match kind {
        FileKind::Rows => 'r',
        FileKind::Chunks => 'c',
    };
    format!("{prefix}-{n:032x}.parquet")
}

/// Writes these rows as one file.
pub(crate) async fn put(store: &Store, n: u32, kind: FileKind, rows: &RecordBatch) -> DataFile {
    let name = name(kind, n);
    let batches = vec![Ok(rows.clone())].into_iter();
    let written = store.files.put(&name, kind, batches).await.unwrap();
    described(&name, kind, written)
}

/// What the catalog would know of it, as far as reading needs it.
pub(crate) fn described(name: &str, kind: FileKind, written: WrittenFile) -> DataFile {
    DataFile {
        path: name.into(),
        table: TableKind::Vitals,
        kind,
        level: 0,
        encrypted: true,
        size: written.size,
        sha256: Some(written.sha256),
        footer: written.footer,
        rows: written.rows,
        messages: written.rows,
        readings: written.rows,
        subjects: None,
        first_at: at(0),
        last_at: at(0),
        received_first_at: at(0),
        received_last_at: at(0),
        written_at: at(0),
        begin: SnapshotId(1),
    }
}

/// All columns of all rows.
pub(crate) async fn read(store: &Store, file: &DataFile) -> Result<Vec<RecordBatch>, StoreError> {
    let schema = columns(file.kind);
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    store.files.batches(file, &names, 1024).try_collect().await
}

pub(crate) fn columns(kind: FileKind) -> arrow::datatypes::SchemaRef {
    match kind {
        FileKind::Rows => schema::sealed_rows(),
        FileKind::Chunks => schema::chunks(),
    }
}

/// `n` rows of a kind, each of another patient, no two values alike; what would be ciphertext is `blob` random-looking
/// bytes.
pub(crate) fn rows(kind: FileKind, n: u32, blob: usize) -> RecordBatch {
    let all = || (0..n).map(i64::from);
    let text = |prefix: &str| -> ArrayRef {
        let text = |i| format!("{prefix}{:024x}", mixed(i, 1));
        Arc::new(all().map(|i| Some(text(i))).collect::<StringArray>())
    };
    let subject: ArrayRef = {
        let text = |i| Some(format!("{i:08x}{:024x}", mixed(i, 2)));
        Arc::new(all().map(text).collect::<StringArray>())
    };
    let instant = |seed: i64| -> ArrayRef {
        let us = all().map(|i| 1_780_000_000_000_000 + mixed(i, seed) % 1_000_000_000_000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(us).with_timezone("UTC"))
    };
    let long = |seed: i64| -> ArrayRef {
        let values = all().map(|i| mixed(i, seed) % (1 << 53));
        Arc::new(Int64Array::from_iter_values(values))
    };
    let int = |seed: i64| -> ArrayRef {
        let values = all().map(|i| i32::try_from(mixed(i, seed) % (1 << 30)).unwrap());
        Arc::new(Int32Array::from_iter_values(values))
    };
    let bytes = |seed: i64, length: usize| -> ArrayRef {
        let value = |i| -> Vec<u8> {
            let words = (0..).flat_map(|word| mixed(i * 100_003 + word, seed).to_le_bytes());
            words.take(length).collect()
        };
        Arc::new(BinaryArray::from_iter_values(all().map(value)))
    };
    let columns = match kind {
        FileKind::Rows => vec![
            subject,
            text("monitor-"),
            long(3),
            long(4),
            instant(5),
            instant(6),
            instant(7),
            int(8),
            bytes(9, blob),
        ],
        FileKind::Chunks => vec![
            subject,
            instant(3),
            int(4),
            instant(5),
            instant(6),
            instant(7),
            instant(8),
            int(9),
            long(10),
            long(11),
            bytes(12, 40),
            bytes(13, blob),
            bytes(14, blob),
        ],
    };
    RecordBatch::try_new(self::columns(kind), columns).unwrap()
}

/// A number that looks random (`SplitMix64`), not negative.
fn mixed(n: i64, seed: i64) -> i64 {
    let mut z = (n * 1_000_003 + seed)
        .cast_unsigned()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 1).cast_signed()
}
