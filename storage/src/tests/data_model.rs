//! `docs/DATA_MODEL.md` against the databases, the Arrow schemas and the contexts of every sealed value, both ways.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema};

use super::*;
use crate::schema;

#[path = "../../../tests/common/data_model.rs"]
mod document;
#[path = "../../../tests/common/sqlite.rs"]
mod sqlite;

use sqlite::tables_of;

#[tokio::test]
async fn every_table_of_the_databases_is_documented_and_no_other() {
    let site = Site::with_file();
    site.create().await.close().await;
    let paths = site.paths();
    assert_eq!(
        tables_of(&paths.registry()).await,
        document::tables("Registry")
    );
    assert_eq!(tables_of(&paths.inbox()).await, document::tables("Inbox"));
}

fn columns(schema: &Schema) -> document::Columns {
    let named = |kind: &DataType| match kind {
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(zone)) => {
            format!("Timestamp(µs, \"{zone}\")")
        }
        other => other.to_string(),
    };
    schema
        .fields()
        .iter()
        .map(|field| {
            assert!(!field.is_nullable(), "{}", field.name());
            (field.name().clone(), named(field.data_type()))
        })
        .collect()
}

#[test]
fn the_columns_of_files_are_documented() {
    let said = [
        ("Rows files", "sealed_rows", schema::sealed_rows()),
        ("Chunks files", "chunks", schema::chunks()),
    ];
    for (section, name, schema) in said {
        let tables = document::tables(section);
        assert_eq!(tables.keys().collect::<Vec<_>>(), [name]);
        assert_eq!(tables[name], columns(&schema), "{name}");
    }
}

/// Drawings in the sources of formats: what they show is what their tests pin.
const DRAWN: [&str; 7] = [
    include_str!("../chunk/readings.rs"),
    include_str!("../chunk/waveforms.rs"),
    include_str!("../chunk/messages.rs"),
    include_str!("../chunk/evidence.rs"),
    include_str!("../chunk/devices.rs"),
    include_str!("../chunk/bytes.rs"),
    include_str!("../../../crypto/src/keys/blob.rs"),
];

#[test]
fn formats_are_drawn_as_their_sources_draw_them() {
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let document: BTreeSet<String> = document::text().lines().map(squeezed).collect();
    let (mut lines, mut missing) = (0, Vec::new());
    for source in DRAWN {
        let mut is_drawn = false;
        for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
            let line = squeezed(line);
            if line.starts_with("```") {
                is_drawn = line == "```text";
            } else if is_drawn && !line.is_empty() {
                lines += 1;
                // Numbers may be explained in other words; a line of a format may not.
                if !document.contains(&line) && !line.starts_with("decompressed") {
                    missing.push(line);
                }
            }
        }
    }
    assert!(lines >= 30, "the drawings are not found: {lines} lines");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_context_that_something_is_bound_to_is_documented_and_no_other() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    for folder in ["crypto/src", "storage/src", "compliance/src", "src"] {
        for file in files_below(&checkout.join(folder)) {
            let source = fs::read_to_string(file).unwrap();
            // A context ends its name with a zero byte.
            for rest in source.split("b\"vitalseal/").skip(1) {
                let name = rest.split(['\\', '"']).next().unwrap();
                found.insert(format!("vitalseal/{name}"));
            }
        }
    }
    assert!(found.contains("vitalseal/blob/1"), "{found:?}");
    // This very file names none.
    found.remove("vitalseal/");
    let said: BTreeSet<String> = document::names("Contexts").into_iter().collect();
    assert_eq!(found, said);
}
