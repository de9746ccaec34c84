//! `vitalseal demo` is the newcomer's first look: it must hold, and say so in JSON.

use std::process::Command;

use serde_json::Value;

use crate::common::{VITALSEAL, files_below};

/// What a newcomer is shown, and every review of a change with them.
const STEPS: [&str; 14] = [
    "start",
    "enrol",
    "play",
    "query",
    "tampered",
    "stranger",
    "replay",
    "ciphertext",
    "compact",
    "check",
    "erase",
    "backup",
    "vacuum",
    "report",
];

#[test]
fn the_demo_holds_in_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let keep = dir.path().join("kept");
    let output = Command::new(VITALSEAL)
        .args(["demo", "--json", "--keep"])
        .arg(&keep)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        said.lines().count(),
        1,
        "one object on standard output:\n{said}"
    );
    let result: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(result["ok"], true);
    assert!(result["acked"].as_u64().unwrap() > 100, "{result}");
    assert!(result["rows"].as_u64().unwrap() > 10_000, "{result}");
    let elapsed_ms = result["elapsed_s"].as_f64().unwrap() * 1e3;
    assert!((elapsed_ms - elapsed_ms.round()).abs() < 1e-6, "{result}");
    let steps = result["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["ok"] == true), "{result}");
    let names: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["name"].as_str())
        .collect();
    assert_eq!(names, STEPS);
    assert!(keep.join("data/vitalseal.toml").exists());
    // A copy of root keys that was made for a check must not outlive it.
    let left: Vec<_> = files_below(&keep)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "key"))
        .filter(|file| !file.starts_with(keep.join("data.root")))
        .filter(|file| !file.starts_with(keep.join("devices")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_steps_of_a_piped_demo_stand_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let keep = dir.path().join("kept");
    let output = Command::new(VITALSEAL)
        .args(["demo", "--keep"])
        .arg(&keep)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let steps = said.lines().filter(|line| line.starts_with("ok  "));
    assert_eq!(steps.count(), STEPS.len(), "{said}");
    let next = format!("vitalseal serve --data {}", keep.join("data").display());
    assert!(said.contains(&next), "{said}");
}
