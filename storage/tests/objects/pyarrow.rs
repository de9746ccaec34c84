//! Another Parquet reader opens a file with the store key, and reads the same rows.

use arrow::array::{Array, AsArray as _};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use serde_json::{Map, Value, json};
use vitalseal_crypto::danger;
use vitalseal_storage::FileKind;

use crate::python;
use crate::site::{Site, put, rows};

#[tokio::test]
async fn pyarrow_opens_a_file_of_each_kind_with_the_store_key() {
    let site = Site::new();
    let store = site.create().await;
    let keys = store.keys.store_keys().await.unwrap();
    let key = hex::encode(danger::store_key_to_bytes(keys.current()).as_slice());
    for (n, kind) in [(1, FileKind::Rows), (2, FileKind::Chunks)] {
        let written = rows(kind, 100, 300);
        let file = put(&store, n, kind, &written).await;
        let told = site.dir.path().join("told.json");
        let path = store.paths().parquet().join(file.path.as_ref());
        let telling = json!({"file": path, "store_keys": {keys.current().kid().to_string(): key}});
        std::fs::write(&told, telling.to_string()).unwrap();
        let ran = python::run("read_parquet.py", &[told.to_str().unwrap()]);
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        let read: Map<String, Value> = serde_json::from_slice(&ran.stdout).unwrap();
        let schema = written.schema();
        for (field, column) in schema.fields().iter().zip(written.columns()) {
            assert_eq!(
                read[field.name()],
                as_json(column),
                "{kind:?} {}",
                field.name()
            );
        }
        assert_eq!(read.len(), schema.fields().len());
    }
}

fn as_json(column: &dyn Array) -> Value {
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().collect(),
        DataType::Binary => column
            .as_binary::<i32>()
            .iter()
            .map(|v| v.map(hex::encode))
            .collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().iter().collect(),
        DataType::Int32 => column.as_primitive::<Int32Type>().iter().collect(),
        DataType::Timestamp(..) => column
            .as_primitive::<TimestampMicrosecondType>()
            .iter()
            .collect(),
        other => panic!("no JSON for {other}"),
    }
}
