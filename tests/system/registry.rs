//! A store whose registry is on a PostgreSQL server: made there, served, erased from, started again, backed up and restored.
//! Left out where `VITALSEAL_TEST_POSTGRES` names no server; `test.sh` starts one.
//!
//! Counts as a failure: a registry in the data directory, something left on the server by an `init` that failed, an
//! erased reading that comes back.

use std::fs;
use std::process::Command;

use jiff::Timestamp;
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, VITALSEAL, files_below};

/// A schema on the server.
struct Schema {
    server: String,
    name: String,
}

impl Schema {
    fn new(name: &str) -> Option<Self> {
        let server = std::env::var("VITALSEAL_TEST_POSTGRES").ok()?;
        let name = format!("{name}_{}", std::process::id());
        let schema = Self { server, name };
        schema.psql(&format!("CREATE SCHEMA {}", schema.name));
        Some(schema)
    }

    fn url(&self) -> String {
        format!("{}?options[search_path]={}", self.server, self.name)
    }

    fn psql(&self, statement: &str) -> String {
        let output = Command::new("psql")
            .args([
                &self.server,
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn tables(&self) -> String {
        let of = format!("FROM pg_tables WHERE schemaname = '{}'", self.name);
        self.psql(&format!("SELECT count(*) {of}"))
    }
}

#[test]
fn a_store_with_its_registry_on_a_server_serves_forgets_and_comes_back_from_a_backup() {
    let (Some(schema), Some(second)) = (Schema::new("system"), Schema::new("restored")) else {
        return;
    };
    let mut site = Site::init_with(&["--registry", &schema.url()]);
    let in_file = |site: &Site| {
        let mut files = files_below(&site.data).into_iter();
        files.any(|file| {
            file.file_name()
                .is_some_and(|name| name == "registry.sqlite")
        })
    };
    assert!(!in_file(&site));
    site.serve();
    let (ada, ben) = (site.patient(), site.patient());
    let token = site.clinician("nora", &[&ada, &ben]);
    for (name, patient) in [("monitor-1", &ada), ("monitor-2", &ben)] {
        let directory = site.device(name, patient);
        let mut device = Device::load(&directory, patient, &site);
        for value in [71.0, 72.0] {
            device.push(&[Reading {
                signal: signal("8867-4").unwrap(),
                value,
                at: Timestamp::now(),
            }]);
        }
        device.drain();
    }
    let answers = |site: &Site, token: &str| {
        let sql = "SELECT patient, sum(value) FROM vitals GROUP BY patient";
        let mut rows = site.psql("nora", token, sql).unwrap();
        rows.sort();
        rows
    };
    assert_eq!(answers(&site, &token).len(), 2);
    let out = site.dir.path().join("backup");
    site.json(&["backup", "--out", out.to_str().unwrap()]);
    site.json(&["erase", &ada, "--reason", "asked for"]);
    assert_eq!(answers(&site, &token), [format!("{ben}|143")]);
    assert_eq!(site.terminate(), 0);
    site.serve();
    assert_eq!(answers(&site, &token), [format!("{ben}|143")]);
    assert_eq!(site.terminate(), 0);

    // Onto the server again, into another schema; and the erased stay gone.
    let config = site.dir.path().join("own.toml");
    let text = fs::read_to_string(site.data.join("vitalseal.toml")).unwrap();
    fs::write(&config, text.replace(&schema.name, &second.name)).unwrap();
    let data = site.dir.path().join("again");
    let restored = Command::new(VITALSEAL)
        .args(["restore", "--json", "--from"])
        .arg(&out)
        .arg("--data")
        .arg(&data)
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let mut again = Site::on(data);
    again.serve();
    assert!(!in_file(&again));
    let state = |id: &str| {
        second.psql(&format!(
            "SELECT state FROM {}.patients WHERE subject = '{id}'",
            second.name
        ))
    };
    assert_eq!([state(&ada), state(&ben)], ["erased", "active"]);
    again.terminate();
}

#[test]
fn an_init_that_fails_leaves_nothing_on_the_server_and_none_is_planted_among_tables() {
    let Some(schema) = Schema::new("failed") else {
        return;
    };
    let init = |data: &std::path::Path| {
        let output = Command::new(VITALSEAL)
            .args(["init", "--json", "--registry", &schema.url(), "--data"])
            .arg(data)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let dir = tempfile::tempdir().unwrap();
    schema.psql(&format!("CREATE TABLE {}.theirs (id bigint)", schema.name));
    let (made, said) = init(&dir.path().join("data"));
    assert!(!made && said.contains("empty schema of its own"), "{said}");
    assert_eq!(schema.tables(), "1", "theirs is left alone");
    schema.psql(&format!("DROP TABLE {}.theirs", schema.name));
    let (made, said) = init(&dir.path().join("data"));
    assert!(made, "{said}");
    let elsewhere = Command::new(VITALSEAL)
        .args([
            "init",
            "--json",
            "--registry",
            "postgres://vs@db.example.org/vs?sslmode=require",
        ])
        .arg("--data")
        .arg(dir.path().join("elsewhere"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&elsewhere.stderr);
    assert!(
        !elsewhere.status.success() && said.contains("verify-full"),
        "{said}"
    );
}
