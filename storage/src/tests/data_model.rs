//! `docs/DATA_MODEL.md` against the databases, the Arrow schemas and the contexts of every sealed value, both ways.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{self, DataType};

use super::*;
use crate::schema;

#[path = "../../../tests/common/data_model.rs"]
mod document;
#[path = "../../../tests/common/sqlite.rs"]
mod sqlite;

use sqlite::tables_of;

#[tokio::test]
async fn every_table_of_the_databases_is_documented_and_no_other() {
    let site = Site::new();
    site.create().await.close().await;
    let paths = site.paths();
    let registry = match &site.schema {
        Some(schema) => tables_on_server(schema),
        None => tables_of(&paths.registry()).await,
    };
    assert_eq!(registry, document::tables("Registry"));
    assert_eq!(tables_of(&paths.inbox()).await, document::tables("Inbox"));
}

/// What PostgreSQL says of the tables of a schema, in the words of the page.
fn tables_on_server(schema: &Schema) -> BTreeMap<String, document::Columns> {
    let sql = format!(
        "SELECT concat_ws('|', table_name, column_name, data_type, is_nullable) FROM information_schema.columns \
         WHERE table_schema = '{}' ORDER BY table_name, ordinal_position",
        schema.name()
    );
    let mut tables: BTreeMap<String, document::Columns> = BTreeMap::new();
    for row in schema.ask(&sql) {
        let [table, column, kind, null] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let kind = match kind {
            "bytea" => "BLOB".to_owned(),
            other => other.to_uppercase(),
        };
        let null = if null == "YES" { "?" } else { "" };
        let columns = tables.entry(table.to_owned()).or_default();
        columns.push((column.to_owned(), format!("{kind}{null}")));
    }
    tables
}

fn columns(schema: &datatypes::Schema) -> document::Columns {
    let named = |kind: &DataType| match kind {
        DataType::Timestamp(datatypes::TimeUnit::Microsecond, Some(zone)) => {
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

/// Formats are drawn in these sources, beside the tests that pin them.
const DRAWN: [&str; 18] = [
    include_str!("../chunk/head.rs"),
    include_str!("../chunk/readings.rs"),
    include_str!("../chunk/waveforms.rs"),
    include_str!("../chunk/messages.rs"),
    include_str!("../chunk/evidence.rs"),
    include_str!("../chunk/devices.rs"),
    include_str!("../chunk/bytes.rs"),
    include_str!("../chunk/values.rs"),
    include_str!("../chunk/times.rs"),
    include_str!("../chunk/runs.rs"),
    include_str!("../chunk/pack.rs"),
    include_str!("../files/write.rs"),
    include_str!("../files/key_metadata.rs"),
    include_str!("../../../crypto/src/keys/blob.rs"),
    include_str!("../../../crypto/src/keys/sealed.rs"),
    include_str!("../../../crypto/src/envelope/mod.rs"),
    include_str!("../../../crypto/src/envelope/body.rs"),
    include_str!("../../../crypto/src/envelope/recipient.rs"),
];

/// The one drawing of the envelope's header stands at its type.
const HEADER: &str = include_str!("../../../crypto/src/envelope/header.rs");

/// Drawings of the page that are of no format, by the beginnings of their first lines: how a message goes through the
/// store, and which key wraps which.
const PICTURES: [&str; 2] = ["device ──", "root key, epoch e"];

#[test]
fn formats_are_drawn_as_their_sources_draw_them_and_no_others_are() {
    let sources = DRAWN.into_iter().chain([HEADER]);
    let in_sources: Vec<Vec<String>> = sources.flat_map(in_comments).collect();
    let is_picture =
        |drawing: &Vec<String>| PICTURES.iter().any(|begin| drawing[0].starts_with(begin));
    let in_page = drawings(document::text().lines()).into_iter();
    let (pictures, in_page): (Vec<_>, Vec<_>) = in_page.partition(is_picture);
    assert_eq!(pictures.len(), PICTURES.len());
    // The page may put several drawings into one.
    let is_in = |block: &Vec<String>, drawing: &[String]| {
        let mut parts = block.windows(drawing.len());
        parts.any(|part| part == drawing)
    };
    let missing = in_sources.iter();
    let missing = missing.filter(|drawing| !in_page.iter().any(|block| is_in(block, drawing)));
    let missing: Vec<_> = missing.collect();
    let known: BTreeSet<&String> = in_sources.iter().flatten().collect();
    let invented = in_page
        .iter()
        .flatten()
        .filter(|line| !known.contains(line));
    let invented: Vec<_> = invented.collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not in the page: {missing:#?}\nonly in the page: {invented:#?}"
    );
}

/// What a source draws in its documentation.
fn in_comments(source: &str) -> Vec<Vec<String>> {
    let comments = source.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("//!")
            .or_else(|| line.strip_prefix("///"))
    });
    let drawn = drawings(comments);
    assert!(!drawn.is_empty());
    drawn
}

/// Blocks of text between the others, their lines with single spaces; empty lines are left out.
fn drawings<'a>(text: impl Iterator<Item = &'a str>) -> Vec<Vec<String>> {
    let (mut drawings, mut is_drawn) = (Vec::new(), false);
    for line in text {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.starts_with("```") {
            is_drawn = line == "```text";
            if is_drawn {
                drawings.push(Vec::new());
            }
        } else if let Some(drawing) = drawings.last_mut().filter(|_| is_drawn && !line.is_empty()) {
            drawing.push(line);
        }
    }
    drawings
}

#[test]
fn every_column_with_a_wrapped_or_sealed_key_is_where_the_page_says_which_key_wraps_which() {
    let registry = document::tables("Registry");
    let columns = |(table, columns): (&String, &document::Columns)| -> Vec<String> {
        let names = columns.iter().map(|(name, _)| name);
        let kept = names.filter(|name| ["wrapped", "sealed", "identity"].contains(&name.as_str()));
        kept.map(|name| format!("{table}.{name}")).collect()
    };
    let columns: BTreeSet<String> = registry.iter().flat_map(columns).collect();
    let page = drawings(document::text().lines());
    let tree = page
        .iter()
        .find(|drawing| drawing[0].starts_with(PICTURES[1]));
    let places = tree
        .unwrap()
        .iter()
        .filter_map(|line| line.rsplit_once("│ "));
    let places = places.map(|(_, place)| place.to_owned());
    let drawn: BTreeSet<String> = places.filter(|place| !place.contains(' ')).collect();
    assert_eq!(columns, drawn);
}

#[tokio::test]
async fn a_file_names_its_key_in_the_words_of_the_page() {
    let site = Site::new();
    let store = site.create().await;
    let admitted = admission(&patient(&store).await, 0);
    store.inbox.admit(admitted).await.unwrap();
    store.flush(at(10)).await.unwrap();
    let files = store.catalog.files().await.unwrap();
    let bytes = store.files.bytes(files[0].path.as_ref()).await.unwrap();
    let page = drawings(document::text().lines());
    let said = page
        .iter()
        .find(|drawing| drawing[0].starts_with("{\"keyMaterialType\""));
    let said = said.unwrap()[..3].concat();
    let begin = &said.as_bytes()[..20];
    let at = bytes.windows(begin.len()).position(|part| part == begin);
    let mut found = serde_json::Deserializer::from_slice(&bytes[at.unwrap()..]).into_iter();
    let found: serde_json::Map<String, serde_json::Value> = found.next().unwrap().unwrap();
    let said: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&said).unwrap();
    let keys = |of: &serde_json::Map<_, _>| of.keys().cloned().collect::<BTreeSet<String>>();
    assert_eq!(keys(&found), keys(&said));
    for (key, value) in said {
        let text = value.as_str().unwrap_or_default();
        if !text.starts_with('<') {
            assert_eq!(found[&key], value, "{key}");
        }
    }
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
