//! A store whose registry is on a PostgreSQL server: made there, served, erased from, started again, backed up and restored.
//!
//! Counts as a failure: a registry in the data directory, something left on the server by an `init` that failed, an
//! erased reading that comes back.

use std::fs;
use std::process::Command;

use jiff::Timestamp;
use vitalseal_crypto::CertificateAuthority;
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, VITALSEAL, files_below};
use crate::postgres::Schema;

#[test]
#[ignore = "test.sh runs it, with a server"]
fn a_store_with_its_registry_on_a_server_serves_forgets_and_comes_back_from_a_backup() {
    let (schema, second) = (Schema::required(), Schema::required());
    let mut site = Site::init_with(&["--registry", &schema.address()]);
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
    fs::write(&config, text.replace(schema.name(), second.name())).unwrap();
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
        let patients = format!("{}.patients", second.name());
        second.ask(&format!(
            "SELECT state FROM {patients} WHERE subject = '{id}'"
        ))
    };
    assert_eq!([state(&ada), state(&ben)], [["erased"], ["active"]]);
    again.terminate();
}

#[test]
#[ignore = "test.sh runs it, with a server"]
fn an_init_that_fails_leaves_nothing_on_the_server_and_none_is_planted_among_tables() {
    let schema = Schema::required();
    let init = |data: &std::path::Path| {
        let output = Command::new(VITALSEAL)
            .args(["init", "--json", "--registry", &schema.address(), "--data"])
            .arg(data)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let theirs = format!("{}.theirs", schema.name());
    schema.ask(&format!("CREATE TABLE {theirs} (id bigint)"));
    let (made, said) = init(&dir.path().join("data"));
    assert!(!made && said.contains("empty schema of its own"), "{said}");
    let of = format!("FROM pg_tables WHERE schemaname = '{}'", schema.name());
    let tables = schema.ask(&format!("SELECT tablename {of}"));
    assert_eq!(tables, ["theirs"], "left alone");
    schema.ask(&format!("DROP TABLE {theirs}"));
    let (made, said) = init(&dir.path().join("data"));
    assert!(made, "{said}");
}

#[test]
#[ignore = "test.sh runs it, with a server"]
fn a_registry_over_the_network_is_the_one_that_its_certificate_names_or_none_is_made() {
    let schema = Schema::required();
    let dir = tempfile::tempdir().unwrap();
    let init = |host: &str, parameters: &str| {
        let data = dir.path().join("data");
        let output = Command::new(VITALSEAL)
            .args(["init", "--json", "--registry"])
            .arg(format!("{}&{parameters}", schema.address_at(host)))
            .arg("--data")
            .arg(&data)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), data.exists(), "{said}");
        (output.status.success(), said)
    };
    let right = schema.server_dir().join("ca.pem");
    let right = format!("sslmode=verify-full&sslrootcert={}", right.display());
    let other = dir.path().join("other.pem");
    let authority = CertificateAuthority::create(Timestamp::now()).unwrap();
    fs::write(&other, authority.root_cert_pem).unwrap();
    let other = format!("sslmode=verify-full&sslrootcert={}", other.display());
    for (host, parameters, why) in [
        ("localhost", &*other, "UnknownIssuer"),
        ("localhost", "sslmode=verify-full", "UnknownIssuer"),
        ("127.0.0.1", &right, "not valid for name"),
        ("localhost", "sslmode=disable", "no encryption"),
        (
            "db.example.org",
            "sslmode=require",
            "write sslmode=verify-full",
        ),
    ] {
        let (made, said) = init(host, parameters);
        assert!(!made && said.contains(why), "{host} {parameters}: {said}");
    }
    let (made, said) = init("localhost", &right);
    assert!(made, "{said}");
}
