//! `vitalseal store …` on a real store, with a server and without: readings stay what they were, damage is named and set
//! aside, and what was erased goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, VITALSEAL, files_below, wait_until};

const MESSAGES: i64 = 20;

/// Two patients with a device each, and what a user sees of them.
struct Ward {
    site: Site,
    patients: [String; 2],
    token: String,
}

impl Ward {
    fn new(change: impl FnOnce(String) -> String) -> Self {
        let mut site = Site::init();
        configure(&site, change);
        site.serve();
        let patients = [site.patient(), site.patient()];
        let token = site.clinician("nora", &[&patients[0], &patients[1]]);
        for (name, patient) in ["monitor-1", "monitor-2"].iter().zip(&patients) {
            let directory = site.device(name, patient);
            let mut device = Device::load(&directory, patient, &site);
            for message in 0..MESSAGES {
                device.push(&minute(message));
            }
            device.drain();
        }
        Self {
            site,
            patients,
            token,
        }
    }

    /// Count and sum of each patient's readings.
    fn answers(&self) -> Vec<String> {
        let sql =
            "SELECT patient, count(*), sum(value) FROM vitals GROUP BY patient ORDER BY patient";
        self.site.psql("nora", &self.token, sql).unwrap()
    }

    fn data_files(&self) -> Vec<PathBuf> {
        let mut files = files_below(&self.site.data.join("parquet"));
        files.retain(|file| file.extension().is_some());
        files
    }
}

/// What a person sees who types this subcommand: `script` lends a terminal.
fn on_a_terminal(site: &Site, subcommand: &str) -> String {
    let output = Command::new("script")
        .args(["-qec", &format!("'{VITALSEAL}' {subcommand}"), "/dev/null"])
        .env("VITALSEAL_DATA", &site.data)
        .env("TERM", "xterm")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn configure(site: &Site, change: impl FnOnce(String) -> String) {
    let file = site.data.join("vitalseal.toml");
    let changed = change(fs::read_to_string(&file).unwrap());
    fs::write(&file, changed).unwrap();
}

/// Files that were replaced go within seconds.
fn impatient(text: String) -> String {
    let text = text.replace("deadline_s = 60", "deadline_s = 1");
    let text = text.replace("interval_s = 60\ncompact", "interval_s = 1\ncompact");
    text.replace("grace_s = 1800", "grace_s = 2")
}

/// A heart rate a second.
fn minute(message: i64) -> Vec<Reading> {
    let start = Timestamp::now() - SignedDuration::from_mins(MESSAGES - message);
    (0..60)
        .map(|second| Reading {
            signal: signal("8867-4").unwrap(),
            value: (60 + (message + second) % 30) as f64,
            at: start + SignedDuration::from_secs(second),
        })
        .collect()
}

fn counted(answer: &Value, field: &str) -> u64 {
    answer[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field}: {answer}"))
}

#[test]
fn a_store_is_compacted_and_checked_with_a_server_and_without() {
    let mut ward = Ward::new(|text| text);
    let before = ward.answers();
    assert_eq!(before.len(), 2);
    ward.site.json(&["flush"]);
    let status = ward.site.json(&["store", "status"]);
    assert_eq!(status["files"][0]["kind"], "rows", "{status}");
    let compacted = ward.site.json(&["store", "compact", "--force"]);
    assert_eq!(counted(&compacted, "messages") % 40, 0, "{compacted}");
    assert!(counted(&compacted, "chunks") >= 2, "{compacted}");
    let status = ward.site.json(&["store", "status"]);
    assert_eq!(status["files"][0]["kind"], "chunks", "{status}");
    assert_eq!(counted(&status, "messages"), 40);
    assert_eq!(ward.answers(), before);

    // What a person sees of it, and how far it is, on two different streams.
    let shown = ward.site.run(&["store", "check"]);
    assert!(shown.status.success(), "{shown:?}");
    let (out, progress) = (
        String::from_utf8(shown.stdout),
        String::from_utf8(shown.stderr),
    );
    let (out, progress) = (out.unwrap(), progress.unwrap());
    assert!(out.contains("signatures"), "{out}");
    assert!(progress.contains('%') && !out.contains('%'), "{progress}");
    let screen = on_a_terminal(&ward.site, "store check");
    let (bars, answer) = screen.rsplit_once("\x1b[2K").expect("a bar that is wiped");
    assert!(bars.contains('░') && bars.contains('%'), "{bars}");
    assert!(
        answer.contains("signatures") && !answer.contains(['░', '%']),
        "{answer}"
    );

    ward.site.terminate();
    for keys in [&["store", "check"][..], &["store", "check", "--no-keys"]] {
        let checked = ward.site.json(keys);
        assert_eq!(checked["sound"], true, "{checked}");
        assert_eq!(counted(&checked, "signatures"), 40, "{checked}");
        assert_eq!(
            counted(&checked, "opened") > 0,
            keys.len() == 2,
            "{checked}"
        );
    }
    assert_eq!(
        counted(&ward.site.json(&["store", "compact"]), "files_in"),
        0
    );
    ward.site.serve();
    assert_eq!(ward.answers(), before);
    let audit = ward.site.run(&["audit", "tail", "-n", "50"]);
    let audit = String::from_utf8(audit.stdout).unwrap();
    assert!(audit.contains("files_compacted"), "{audit}");
}

#[test]
fn damage_is_named_set_aside_and_never_silent() {
    let mut ward = Ward::new(impatient);
    let before = ward.answers();
    ward.site.json(&["flush"]);
    ward.site.json(&["store", "compact", "--force"]);
    let is_alone = || ward.data_files().len() == 1;
    wait_until(is_alone, "files that others replaced stay");
    ward.site.terminate();
    let file = ward.data_files().remove(0);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let mut bytes = fs::read(&file).unwrap();
    // In the middle is evidence: by far the largest part.
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();

    let found = ward.site.run(&["store", "check", "--json"]);
    assert_eq!(found.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let unproven: Vec<&Value> = found["damage"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|damage| damage["cost"] == "evidence")
        .collect();
    assert_eq!(unproven.len(), 1, "{found}");
    assert_eq!(unproven[0]["file"], name.as_str());
    let patient = unproven[0]["patient"].as_str().unwrap();
    assert!(ward.patients.iter().any(|of| of == patient));

    let elsewhere = ward.site.data.join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    let left = ward.site.run(&["store", "check", "--repair", "--json"]);
    assert_eq!(left.status.code(), Some(1));
    let left: Value = serde_json::from_slice(&left.stdout).unwrap();
    assert_eq!(left["repaired"]["missing"][0], name.as_str());
    fs::rename(&elsewhere, &file).unwrap();

    let repaired = ward.site.json(&["store", "check", "--repair"]);
    assert_eq!(repaired["repaired"]["files"][0], name.as_str());
    let checked = ward.site.json(&["store", "check"]);
    assert_eq!(checked["sound"], true, "{checked}");
    let unproven = checked["unproven"].as_array().unwrap();
    assert_eq!(unproven.len(), 1, "{checked}");
    assert_eq!(unproven[0]["patient"], patient);
    let verified = ward.site.run(&["provenance", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified["verified"], verified["messages"], "{verified}");
    assert_eq!(verified["unproven"], checked["unproven"]);
    assert_eq!(
        fs::read(ward.site.data.join("damaged").join(&name)).unwrap(),
        bytes
    );
    ward.site.serve();
    assert_eq!(ward.answers(), before, "readings went with their evidence");
    let status = ward.site.json(&["store", "status"]);
    assert_eq!(status["losses"][0]["patient"], patient, "{status}");
    assert_eq!(status["set_aside"]["files"], 1, "{status}");
    let vacuumed = ward.site.json(&["store", "vacuum"]);
    assert_eq!(vacuumed["set_aside"]["files"], 1, "{vacuumed}");
    assert_eq!(ward.site.metric("losses"), 1);
    let audit = ward.site.run(&["audit", "tail", "-n", "50"]);
    assert!(
        String::from_utf8(audit.stdout)
            .unwrap()
            .contains("damage_set_aside")
    );
}

#[test]
fn the_ciphertext_of_the_erased_goes_unasked() {
    let ward = Ward::new(impatient);
    ward.site.json(&["flush"]);
    ward.site.json(&["store", "compact", "--force"]);
    let [gone, kept] = &ward.patients;
    let before: Vec<_> = ward
        .answers()
        .into_iter()
        .filter(|row| row.starts_with(kept.as_str()))
        .collect();
    let old = ward.data_files();
    ward.site.json(&["erase", gone, "--reason", "test"]);
    let is_dropped = || ward.site.metric("erasures_not_dropped") == 0;
    wait_until(is_dropped, "the ciphertext of an erased patient stays");
    assert_eq!(ward.answers(), before);
    let now = ward.data_files();
    assert!(old.iter().all(|file| !now.contains(file)), "{now:?}");
    let checked = ward.site.json(&["store", "check"]);
    assert_eq!(
        (&checked["sound"], counted(&checked, "unopened")),
        (&Value::Bool(true), 0)
    );
    let audit = ward.site.run(&["audit", "tail", "-n", "50"]);
    assert!(
        String::from_utf8(audit.stdout)
            .unwrap()
            .contains("ciphertext_dropped")
    );
}

#[test]
fn sealed_rows_become_chunks_unasked() {
    let ward = Ward::new(|text| impatient(text).replace("merge_files = 15", "merge_files = 1"));
    let before = ward.answers();
    ward.site.json(&["flush"]);
    let is_merged = || ward.site.metric("compactions_total") > 0;
    wait_until(is_merged, "what was flushed stays as it is");
    let status = ward.site.json(&["store", "status"]);
    assert_eq!(status["files"][0]["kind"], "chunks", "{status}");
    assert_eq!(ward.answers(), before);
    assert_eq!(ward.site.metric("housekeeping_failures_total"), 0);
}

#[test]
fn what_can_wait_never_eats_the_reserve_of_messages() {
    let mut ward = Ward::new(|text| text);
    ward.site.json(&["flush"]);
    ward.site.terminate();
    configure(&ward.site, |text| {
        text.replace("reserve_mib = 256", "reserve_mib = 4000000000")
    });
    let before = names(&ward.site.data.join("parquet"));
    let said = ward.site.refused(&["store", "compact", "--force"]);
    assert!(
        said.contains("room") && said.contains("nothing was begun"),
        "{said}"
    );
    assert_eq!(names(&ward.site.data.join("parquet")), before);
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let mut names = files_below(directory);
    names.sort();
    names
}
