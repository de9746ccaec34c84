//! A device that is not our code: `openssl` makes its key, Python's `cwt` its envelopes, `paho-mqtt`
//! carries them, and `psql` must return exactly what it sent.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::common::Site;

/// The environment that `test.sh` makes; without it the test cannot speak for anyone.
fn python() -> PathBuf {
    std::env::var_os("VITALSEAL_INTEROP_PYTHON")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|| {
                    PathBuf::from(std::env::var_os("HOME").expect("a home directory"))
                        .join(".cache")
                });
            cache.join("vitalseal/interop/bin/python")
        })
}

fn device(args: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/device.py");
    let python = python();
    Command::new(&python)
        .arg(script)
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap_or_else(|error| panic!("{} ({error}); run ./test.sh once", python.display()))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_device_of_public_python_libraries_is_read_back_exactly_by_psql() {
    let site = Site::serving();
    let patient = site.patient();
    let token = site.clinician("nora", &[&patient]);
    let path = |name: &str| site.dir.path().join(name);

    // Enrolment: the key is made by openssl and never leaves the device's side.
    let (key, csr, cert) = (path("key.pem"), path("device.csr"), path("cert.pem"));
    let made = device(&[
        "--device",
        "foreign-01",
        "--key",
        text(&key),
        "--csr",
        text(&csr),
    ]);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    site.json(&[
        "device",
        "enroll",
        "foreign-01",
        "--csr",
        text(&csr),
        "--out",
        text(&cert),
    ]);
    site.json(&["device", "assign", "foreign-01", "--patient", &patient]);
    let recipient = path("recipient.pem");
    std::fs::write(&recipient, site.run(&["recipient", "show"]).stdout).unwrap();
    let ca = site.ca_file();

    let mut expected = Vec::new();
    for (run, (mode, version)) in [("es", "4"), ("ss", "5")].into_iter().enumerate() {
        let readings = readings(run as i64);
        let file = path(&format!("readings-{mode}.json"));
        std::fs::write(&file, serde_json::to_vec(&readings).unwrap()).unwrap();
        let mqtt = format!("localhost:{}", site.address("mqtt").port());
        let sent = device(&[
            "--device",
            "foreign-01",
            "--patient",
            &patient,
            "--key",
            text(&key),
            "--cert",
            text(&cert),
            "--recipient",
            text(&recipient),
            "--ca",
            text(&ca),
            "--readings",
            text(&file),
            "--mode",
            mode,
            "--mqtt-version",
            version,
            "--per-message",
            "25",
            "--boot",
            &format!("{}", 10 + run),
            "--mqtt",
            &mqtt,
        ]);
        assert!(
            sent.status.success(),
            "{mode}: {}",
            String::from_utf8_lossy(&sent.stderr)
        );
        expected.extend(readings);
    }

    let sql = "SELECT code, unit, value, extract(epoch FROM ts)::BIGINT FROM vitals \
               WHERE device = 'foreign-01' ORDER BY ts, code";
    let mut expected: Vec<String> = expected
        .iter()
        .map(|reading| {
            format!(
                "{}|{}|{}|{}",
                text_of(&reading["code"]),
                text_of(&reading["unit"]),
                reading["value"],
                reading["time"]
            )
        })
        .collect();
    expected.sort_by_key(|row| {
        let mut parts = row.split('|').map(str::to_owned);
        let code = parts.next().unwrap();
        (parts.next_back().unwrap(), code)
    });
    assert_eq!(
        site.psql("nora", &token, sql).unwrap(),
        expected,
        "from the inbox"
    );
    site.json(&["flush"]);
    assert_eq!(
        site.psql("nora", &token, sql).unwrap(),
        expected,
        "from Parquet"
    );
    assert_eq!(site.json(&["quarantine", "list"]), json!([]));
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Values that a decimal text carries exactly, in several signals, one instant each.
fn readings(run: i64) -> Vec<Value> {
    (0..60)
        .map(|index| {
            let time = 1_767_400_000 + run * 1_000 + index;
            match index % 3 {
                0 => json!({"code": "8867-4", "unit": "/min", "value": 60 + index, "time": time}),
                1 => json!({"code": "59408-5", "unit": "%", "value": 97, "time": time}),
                _ => json!({"code": "8310-5", "unit": "Cel", "value": 36.6 + 0.5, "time": time}),
            }
        })
        .collect()
}
