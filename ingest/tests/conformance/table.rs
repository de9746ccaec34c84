//! `docs/MQTT.md` against the tests: its rows are the standard's statements, one each, and what it says is tested is.

use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = include_str!("../../../docs/MQTT.md");

/// Where a test may stand: here, and for WebSocket and for what is durable with the other tests of the edge.
const SOURCES: [&str; 11] = [
    include_str!("acknowledge.rs"),
    include_str!("connect.rs"),
    include_str!("flow.rs"),
    include_str!("format.rs"),
    include_str!("publish.rs"),
    include_str!("sessions.rs"),
    include_str!("subscribe.rs"),
    include_str!("wills.rs"),
    include_str!("../edge/delivery.rs"),
    include_str!("../edge/disk.rs"),
    include_str!("../edge/websocket.rs"),
];

/// Statements by their ids, as far as the standards number them without a gap: sections and how many they have.
const V311: &str = "1.5.3 3, 2.2.2 2, 2.3.1 7, 3.1.0 2, 3.1.2 24, 3.1.3 11, 3.1.4 5, 3.2.0 1, 3.2.2 6, 3.3.1 12, 3.3.2 3, \
    3.3.4 1, 3.3.5 2, 3.6.1 1, 3.8.1 1, 3.8.3 4, 3.8.4 6, 3.9.3 2, 3.10.1 1, 3.10.3 2, 3.10.4 6, 3.12.4 1, 3.14.1 1, \
    3.14.4 3, 4.1.0 2, 4.3.1 1, 4.3.2 2, 4.3.3 2, 4.4.0 1, 4.5.0 2, 4.6.0 6, 4.7.1 3, 4.7.2 1, 4.7.3 4, 4.8.0 2, \
    6.0.0 4, 7.0.0 2, 7.1.1 1, 7.1.2 1";
const V5: &str = "1.5.4 3, 1.5.5 1, 1.5.7 1, 2.1.3 1, 2.2.1 6, 2.2.2 1, 3.1.0 2, 3.1.2 30, 3.1.3 12, 3.1.4 6, 3.2.0 2, \
    3.2.2 22, 3.3.1 13, 3.3.2 20, 3.3.4 10, 3.4.2 3, 3.5.2 3, 3.6.1 1, 3.6.2 3, 3.7.2 3, 3.8.1 1, 3.8.3 5, 3.8.4 8, \
    3.9.2 2, 3.9.3 2, 3.10.1 1, 3.10.3 2, 3.10.4 6, 3.11.2 2, 3.11.3 2, 3.12.4 1, 3.14.0 1, 3.14.1 1, 3.14.2 4, \
    3.14.4 3, 3.15.1 1, 3.15.2 2, 4.1.0 2, 4.2.0 1, 4.3.1 1, 4.3.2 5, 4.3.3 13, 4.4.0 2, 4.5.0 2, 4.6.0 6, 4.7.0 1, \
    4.7.1 2, 4.7.2 1, 4.7.3 4, 4.8.2 6, 4.9.0 3, 4.12.0 7, 4.12.1 2, 4.13.1 1, 4.13.2 1, 6.0.0 4";

/// One row: `| 3.8.4-6 | what it asks | how it stands |`.
struct Row {
    id: String,
    standing: String,
}

/// The rows below a heading, to the next one of its depth.
fn rows(heading: &str) -> Vec<Row> {
    let (_, below) = DOCUMENT.split_once(heading).expect("the heading");
    let below = below.split_once("\n## ").map_or(below, |(own, _)| own);
    let cells = |line: &str| -> Option<Row> {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, id, _, standing, _] = cells[..] else {
            return None;
        };
        let is_id = id.starts_with(|c: char| c.is_ascii_digit());
        is_id.then(|| Row {
            id: id.to_owned(),
            standing: standing.to_owned(),
        })
    };
    below.lines().filter_map(cells).collect()
}

/// The words in backticks that look like a test.
fn tests(standing: &str) -> impl Iterator<Item = &str> {
    let words = standing.split('`').skip(1).step_by(2);
    words.filter(|word| {
        word.contains('_') && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

fn statements(of: &str) -> BTreeSet<String> {
    let sections = of.split(", ").flat_map(|section| {
        let (section, count) = section.split_once(' ').unwrap();
        let count: u32 = count.parse().unwrap();
        (1..=count).map(move |number| format!("{section}-{number}"))
    });
    // The number that v5 does not give.
    sections.filter(|id| of != V5 || id != "2.2.1-1").collect()
}

const VERSIONS: [(&str, &str, &str); 2] = [
    ("## MQTT 3.1.1", V311, "mqtt311_"),
    ("## MQTT 5", V5, "mqtt5_"),
];

#[test]
fn every_statement_of_both_standards_has_one_row() {
    for (heading, of, _) in VERSIONS {
        let mut found = BTreeSet::new();
        for row in rows(heading) {
            assert!(found.insert(row.id.clone()), "{heading}: {} twice", row.id);
        }
        let expected = statements(of);
        let odd: Vec<_> = found.symmetric_difference(&expected).collect();
        assert!(odd.is_empty(), "{heading}: {odd:?}");
    }
}

/// Statements of each standard, as its appendix B lists them.
const STATEMENTS: [usize; 2] = [141, 250];

#[test]
fn the_totals_are_those_of_the_rows() {
    for ((heading, of, _), total) in VERSIONS.into_iter().zip(STATEMENTS) {
        assert_eq!(statements(of).len(), total, "{heading}");
        let rows = rows(heading);
        let count = |word| {
            let are = |row: &&Row| row.standing.starts_with(word);
            rows.iter().filter(are).count()
        };
        let [hold, do_not, deviate] = ["holds", "not", "deviates"].map(count);
        let said = format!(
            "{heading}\n\n{total} statements: {hold} hold, {do_not} do not apply, {deviate} are deviated from.\n"
        );
        assert!(DOCUMENT.contains(&said), "{said}");
    }
}

#[test]
fn a_row_names_a_test_or_says_why_there_is_none() {
    for (heading, _, prefix) in VERSIONS {
        for Row { id, standing } in rows(heading) {
            let said = ["not applicable: ", "deviates: ", "holds: "];
            let word = said.iter().find(|word| standing.starts_with(**word));
            assert!(word.is_some(), "{heading} {id}: {standing}");
            // What is done instead can be tried as well.
            assert!(
                standing.starts_with("not ") || tests(&standing).next().is_some(),
                "{heading} {id} names no test"
            );
            for test in tests(&standing) {
                let there = SOURCES.iter().any(|source| {
                    [":", "(", ","]
                        .iter()
                        .any(|after| source.contains(&format!("{test}{after}")))
                });
                assert!(there, "{heading} {id}: there is no {test}");
                assert!(
                    !test.starts_with("mqtt") || test.starts_with(prefix),
                    "{test} is of the other version"
                );
            }
        }
    }
}

#[test]
fn every_test_of_a_statement_stands_in_the_table() {
    let mut named: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (heading, _, prefix) in VERSIONS {
        for row in rows(heading) {
            let names = tests(&row.standing).map(str::to_owned);
            named.entry(prefix).or_default().extend(names);
        }
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for word in SOURCES
        .iter()
        .flat_map(|source| source.split(|c| !is_word(c)))
    {
        for (prefix, names) in &named {
            assert!(
                !word.starts_with(prefix) || names.contains(word),
                "{word} is in no row"
            );
        }
    }
}
