//! What the documents name is there: every threat is answered by a test that runs, or said to be open; every link leads
//! somewhere, and every file that is named exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::files_below;

const THREAT_MODEL: &str = include_str!("../../docs/THREAT_MODEL.md");

/// The columns of a boundary's table.
const COLUMNS: &str = "| | Threat | Held by | Tests | Open |";

/// Folders with files of ours.
const FOLDERS: [&str; 11] = [
    "benches",
    "compliance",
    "crypto",
    "device",
    "docs",
    "ingest",
    "query",
    "src",
    "storage",
    "tests",
    "vitals",
];

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of ours with that ending.
fn files(ending: &str) -> impl Iterator<Item = PathBuf> {
    let below = FOLDERS
        .into_iter()
        .flat_map(|folder| files_below(&checkout().join(folder)));
    let above = fs::read_dir(checkout()).unwrap();
    let above = above.map(|entry| entry.unwrap().path());
    below
        .chain(above)
        .filter(move |path| path.extension().is_some_and(|of| of == ending))
}

/// Tests that run: functions below `#[test]` or `#[tokio::test]`, but for those that are ignored everywhere.
fn tests(source: &str) -> BTreeSet<String> {
    let (mut found, mut is_test) = (BTreeSet::new(), false);
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") && !line.contains("test.sh runs it") {
            is_test = false;
        } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            let name = name.split(['(', '<']).next().unwrap();
            found.insert(name.to_owned());
            is_test = false;
        }
    }
    found
}

/// Heading and cells of each row of a boundary's table.
fn threats() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let (mut heading, mut is_boundary) = ("", false);
    THREAT_MODEL.lines().filter_map(move |line| {
        if line.starts_with('#') {
            heading = line;
        }
        is_boundary = line == COLUMNS || is_boundary && line.starts_with('|');
        let is_row = is_boundary && line != COLUMNS && !line.starts_with("|---");
        let cells = || line.trim_matches('|').split('|').map(str::trim).collect();
        is_row.then(|| (heading, cells()))
    })
}

#[test]
fn a_threat_is_answered_by_tests_that_run_or_said_to_be_open() {
    let sources = files("rs").map(|path| fs::read_to_string(path).unwrap());
    let known: BTreeSet<_> = sources.flat_map(|source| tests(&source)).collect();
    let (mut rows, mut missing) = (0, Vec::new());
    for (heading, cells) in threats() {
        let [kind, threat, held_by, tests, open] = cells[..] else {
            panic!("{heading}: not five columns: {cells:?}");
        };
        assert!(
            "STRIDE".contains(kind) && kind.len() == 1,
            "{threat}: {kind}"
        );
        assert!(!held_by.is_empty() && !open.is_empty(), "{threat}");
        let mut named = tests.split('`').skip(1).step_by(2).peekable();
        if named.peek().is_none() {
            assert_eq!(tests, "open", "{threat}: no test is named");
            assert_ne!(open, "–", "{threat}: what is open?");
        }
        missing.extend(named.filter(|test| !known.contains(*test)));
        rows += 1;
    }
    assert!(missing.is_empty(), "there is no {missing:#?}");
    assert!(rows >= 60, "the tables are not found: {rows} rows");
}

#[test]
fn every_boundary_is_looked_at_for_every_kind_of_threat() {
    let found: BTreeSet<_> = threats()
        .map(|(heading, cells)| (heading, cells[0]))
        .collect();
    let boundaries: BTreeSet<_> = found.iter().map(|(heading, _)| *heading).collect();
    for boundary in boundaries {
        for kind in ["S", "T", "R", "I", "D", "E"] {
            assert!(found.contains(&(boundary, kind)), "{boundary}: {kind}");
        }
    }
}

/// Files that a document names in backticks, from the top of the checkout.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split('`').skip(1).step_by(2);
    words.filter(|word| {
        let folder = word.split('/').next().unwrap();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        word.contains('/') && FOLDERS.contains(&folder) && word.chars().all(is_plain)
    })
}

#[test]
fn every_link_and_every_file_that_a_document_names_is_there() {
    let (mut links, mut paths) = (0, 0);
    for document in files("md") {
        let text = fs::read_to_string(&document).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            let there = document.parent().unwrap().join(target);
            assert!(there.exists(), "{}: {target}", document.display());
            links += 1;
        }
        // What was decided stays as it was written.
        for path in
            named_paths(&text).filter(|_| !document.starts_with(checkout().join("docs/adr")))
        {
            let there = checkout().join(path).exists();
            assert!(there, "{}: {path}", document.display());
            paths += 1;
        }
    }
    assert!(
        links >= 40 && paths >= 40,
        "not found: {links} links, {paths} paths"
    );
}
