//! `docs/DATA_MODEL.md` against what a running server shows its users, and what it leaves on the disk, both ways.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, files_below};

#[path = "../common/data_model.rs"]
mod document;

#[test]
fn every_column_that_users_see_is_documented_and_no_other() {
    let site = Site::serving();
    let patient = site.patient();
    let token = site.clinician("nora", &[&patient]);
    let sql = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns \
               WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";
    let mut shown: BTreeMap<String, document::Columns> = BTreeMap::new();
    for row in site.psql("nora", &token, sql).unwrap() {
        let [table, column, kind, null] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let kind = match null {
            "YES" => format!("{kind}?"),
            _ => kind.to_owned(),
        };
        let columns = shown.entry(table.to_owned()).or_default();
        columns.push((column.to_owned(), kind));
    }
    assert_eq!(shown, document::tables("SQL"));
}

/// Files that have a section of their own; SQLite puts its journals beside each.
const WITH_SECTIONS: [&str; 8] = [
    "registry.sqlite",
    "inbox.sqlite",
    "audit.sqlite",
    "registry.sqlite-*",
    "inbox.sqlite-*",
    "audit.sqlite-*",
    "parquet/r-*.parquet",
    "parquet/c-*.parquet",
];

#[test]
fn every_file_that_a_server_leaves_is_documented_and_there_are_no_others() {
    let mut site = Site::serving();
    let (patient, erased) = (site.patient(), site.patient());
    let device = site.device("monitor-1", &patient);
    let mut device = Device::load(&device, &patient, &site);
    device.push(&[Reading {
        signal: signal("8867-4").unwrap(),
        value: 60.0,
        at: Timestamp::now(),
    }]);
    device.drain();
    site.json(&["flush"]);
    site.json(&["store", "compact", "--force"]);
    site.json(&["erase", &erased, "--reason", "asked for"]);
    let socket = site.data.join("admin.sock").exists();
    let documented = document::other_files();
    let mut found: BTreeSet<&str> = socket.then_some("admin.sock").into_iter().collect();
    for (shown, directory) in [
        ("", site.data.clone()),
        ("DIR.root/", site.data.with_extension("root")),
        ("DIR.keys/", site.data.with_extension("keys")),
    ] {
        for file in files_below(&directory) {
            let name = file.strip_prefix(&directory).unwrap().display();
            let name = format!("{shown}{name}");
            let patterns = documented.iter().map(String::as_str).chain(WITH_SECTIONS);
            let of: Vec<&str> = patterns.filter(|pattern| is_like(&name, pattern)).collect();
            assert!(!of.is_empty(), "{name} is not documented");
            found.extend(of);
        }
    }
    let repaired = "damaged/*.parquet";
    for pattern in documented.iter().filter(|pattern| *pattern != repaired) {
        assert!(found.contains(pattern.as_str()), "there is no {pattern}");
    }
    assert_eq!(site.terminate(), 0);
}

/// Whether a name is what a pattern stands for.
fn is_like(name: &str, pattern: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once(['*', '<']) else {
        return name == pattern;
    };
    let end = rest.split_once('>').map_or(rest, |(_, end)| end);
    name.strip_prefix(begin)
        .is_some_and(|rest| rest.ends_with(end))
}
