//! The tables of `docs/DATA_MODEL.md`, for the tests that hold it against the code.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of the fixture"
)]

use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../docs/DATA_MODEL.md");

/// Name and type of each column, in order.
pub type Columns = Vec<(String, String)>;

/// The tables below a heading of the document, by name. Every column has to say what it means.
pub fn tables(section: &str) -> BTreeMap<String, Columns> {
    let (_, rest) = DOCUMENT
        .split_once(&format!("\n## {section}\n"))
        .expect("the section is there");
    let section = rest.split("\n## ").next().unwrap_or_default();
    let mut tables = BTreeMap::new();
    for table in section.split("\n### `").skip(1) {
        let (name, text) = table.split_once("`\n").expect("a table has a name");
        let (_, rows) = text
            .split_once("| Column | Type | Meaning |\n|---|---|---|\n")
            .expect("a table has columns");
        let columns: Columns = rows
            .lines()
            .take_while(|line| line.starts_with('|'))
            .map(column)
            .collect();
        assert!(tables.insert(name.to_owned(), columns).is_none(), "{name}");
    }
    assert!(!tables.is_empty());
    tables
}

/// First cells, in backticks, of the table below this heading of the third order.
pub fn names(heading: &str) -> Vec<String> {
    let (_, rest) = DOCUMENT
        .split_once(&format!("\n### {heading}\n"))
        .expect("the heading is there");
    let rows = rest.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).expect("a name").to_owned())
        .collect()
}

/// Every file below "Other files", by name: `DIR` stands for the data directory's, `*` and `<…>` for anything.
pub fn other_files() -> Vec<String> {
    let (_, rest) = DOCUMENT
        .split_once("\n## Other files\n")
        .expect("the heading is there");
    let rows = rest.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// The bytes of the document, for what is drawn in it.
pub fn text() -> &'static str {
    DOCUMENT
}

fn column(line: &str) -> (String, String) {
    let mut cells = line.trim_matches('|').splitn(3, '|').map(str::trim);
    let mut quoted = || cells.next().expect("a cell").trim_matches('`').to_owned();
    let (name, kind) = (quoted(), quoted());
    let meaning = cells.next().unwrap_or_default();
    assert!(meaning.len() > 3, "{name}: what does it mean?");
    (name, kind)
}
