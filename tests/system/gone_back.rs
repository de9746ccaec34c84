//! A registry that goes back to an earlier state under the real server, as one on a PostgreSQL server does that fails over to
//! a replica which lags.
//!
//! Counts as a failure: a server that goes on acknowledging, nothing in the audit log, a patient of a key snapshot who
//! does not come back, a reading that is missing or there twice.

use std::fs;
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, wait_until};

#[test]
fn a_registry_that_goes_back_ends_the_server_and_the_next_start_brings_back_what_it_can() {
    let mut site = Site::serving();
    let ada = site.patient();
    measure(&site, "monitor-1", &ada, &[71.0, 72.0]);
    site.json(&["flush"]);
    assert_eq!(site.terminate(), 0);
    let registry = site.data.join("registry.sqlite");
    let earlier = site.dir.path().join("earlier.sqlite");
    fs::copy(&registry, &earlier).unwrap();

    site.serve();
    let ben = site.patient();
    measure(&site, "monitor-2", &ben, &[81.0, 82.0, 83.0]);
    site.json(&["flush"]);
    // Each start writes a key snapshot, and so each round that finds a change.
    assert_eq!(site.terminate(), 0);
    site.serve();
    // What a replica shows that does not have the last keys yet.
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
                  c.execute('UPDATE key_pages SET generation = generation - 1'); c.commit()";
    let python = Command::new("python3")
        .args(["-c", script])
        .arg(&registry)
        .status();
    assert!(python.unwrap().success());
    let mut code = None;
    let has_ended = || {
        code = site.ended_with();
        code.is_some()
    };
    wait_until(
        has_ended,
        "the server goes on under a registry that went back",
    );
    assert_eq!(code, Some(1), "so that its manager starts it again");
    assert!(
        site.log_text()
            .contains("the registry went back under this server"),
        "{}",
        site.log_text()
    );

    for file in ["registry.sqlite-wal", "registry.sqlite-shm"] {
        let _ = fs::remove_file(site.data.join(file));
    }
    fs::copy(&earlier, &registry).unwrap();
    site.serve();
    let known = site.json(&["patient", "show", &ben]);
    assert_eq!(known["state"], "active", "{known}");
    let token = site.clinician("nora", &[&ada, &ben]);
    let sql = "SELECT patient, count(*), sum(value) FROM vitals GROUP BY patient";
    let mut rows = site.psql("nora", &token, sql).unwrap();
    rows.sort();
    let mut expected = [format!("{ada}|2|143"), format!("{ben}|3|246")];
    expected.sort();
    assert_eq!(rows, expected);
    // A device that was registered since is not known any more: its messages stay, in doubt.
    let checked = site.run(&["store", "check", "--json"]).stdout;
    let checked: Value = serde_json::from_slice(&checked).unwrap();
    let found = checked["damage"].as_array().unwrap().iter();
    let found: Vec<_> = found
        .map(|found| (&found["patient"], &found["cost"]))
        .collect();
    assert_eq!(found, [(&json!(ben), &json!("doubt")); 3], "{checked}");

    let tail = site.json(&["audit", "tail", "-n", "100"]);
    let events = tail.as_array().unwrap().iter();
    let told = events.filter(|entry| entry["event"] == "registry_went_back");
    assert_eq!(
        told.count(),
        2,
        "by the server, and by the next start: {tail}"
    );
}

/// Publishes these.
fn measure(site: &Site, device: &str, patient: &str, values: &[f64]) {
    let directory = site.device(device, patient);
    let mut device = Device::load(&directory, patient, site);
    for value in values {
        device.push(&[Reading {
            signal: signal("8867-4").unwrap(),
            value: *value,
            at: Timestamp::now(),
        }]);
    }
    device.drain();
}
