//! `vitalseal demo` is the newcomer's first look: it must hold, and say so in JSON.

use std::process::Command;

use serde_json::Value;

use crate::common::VITALSEAL;

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
    assert!(result["elapsed_s"].as_f64().is_some());
    let steps = result["steps"].as_array().unwrap();
    assert!(steps.len() >= 10, "{result}");
    assert!(steps.iter().all(|step| step["ok"] == true), "{result}");
    assert!(keep.join("data/vitalseal.toml").exists() || keep.join("vitalseal.toml").exists());
}
