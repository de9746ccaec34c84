//! Where readings came from, proven by the real binary to people with different means: an operator with the store, an
//! auditor with certificates alone, and a foreign library.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};
use vitalseal_device::simulated::SimulatedPulse;
use vitalseal_vitals::{Reading, signal};

use crate::common::device::Device;
use crate::common::{Site, VITALSEAL};
use crate::python;

fn readings(minute: i64) -> Vec<Reading> {
    let now = Timestamp::now().as_second();
    (0..60)
        .map(|second| Reading {
            signal: signal("8867-4").unwrap(),
            value: 60.0 + f64::from(i32::try_from(second).unwrap()) / 2.0,
            at: Timestamp::from_second(now - 600 + 60 * minute + second).unwrap(),
        })
        .collect()
}

/// What an auditor takes away: the messages, and the certificates.
struct Exported {
    envelopes: BTreeSet<String>,
    file: PathBuf,
    devices: PathBuf,
    ca: PathBuf,
}

impl Exported {
    fn from(site: &Site, token: &str) -> Self {
        let rows = site.psql("nora", token, "SELECT envelope FROM provenance");
        let envelopes: BTreeSet<String> = rows.unwrap().into_iter().collect();
        let file = site.dir.path().join("envelopes");
        let lines: Vec<&str> = envelopes.iter().map(String::as_str).collect();
        fs::write(&file, lines.join("\n")).unwrap();
        let devices = site.dir.path().join("devices.pem");
        let printed = site.run(&["device", "certificates"]);
        fs::write(&devices, printed.stdout).unwrap();
        let ca = site.ca_file();
        Self {
            envelopes,
            file,
            devices,
            ca,
        }
    }

    /// Without the store: how many envelopes there are, and how many of them verify.
    fn verified(&self) -> [usize; 2] {
        let output = Command::new(VITALSEAL)
            .args(["envelope", "verify", "--json"])
            .arg(&self.file)
            .arg("--ca")
            .arg(&self.ca)
            .arg("--certificate")
            .arg(&self.devices)
            .env_remove("VITALSEAL_DATA")
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = said.as_array().unwrap();
        let holds = said.iter().filter(|one| one["verified"] == true).count();
        [said.len(), holds]
    }
}

fn verify(site: &Site) -> (i32, Value) {
    let output = site.run(&["provenance", "verify", "--json"]);
    let said = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn every_message_is_proven_before_and_after_compaction_with_the_store_and_without_it() {
    let mut site = Site::serving();
    let patient = site.patient();
    let token = site.clinician("nora", &[&patient]);
    let directories = ["bed-1", "bed-2"].map(|name| site.device(name, &patient));
    for (minute, directory) in (0..).zip(&directories) {
        let mut device = Device::load(directory, &patient, &site);
        for part in 0..3 {
            device.push(&readings(3 * minute + part));
        }
        device.drain();
    }
    let mut exported: Vec<Exported> = Vec::new();
    for step in [&[][..], &["flush"], &["store", "compact", "--force"]] {
        if !step.is_empty() {
            site.json(step);
        }
        let (code, said) = verify(&site);
        let messages = [said["messages"].clone(), said["verified"].clone()];
        assert_eq!(
            (code, messages),
            (0, [json!(6), json!(6)]),
            "{step:?}: {said}"
        );
        let one = Exported::from(&site, &token);
        assert_eq!(one.verified(), [6, 6], "{step:?}");
        exported.push(one);
    }
    assert!(
        exported
            .iter()
            .all(|one| one.envelopes == exported[0].envelopes)
    );

    // A foreign library, on one that went through a chunk.
    let message = site.dir.path().join("message.cbor");
    let digits = exported[2].envelopes.first().unwrap();
    fs::write(&message, hex::decode(&digits[2..]).unwrap()).unwrap();
    let signed_by = |directory: &PathBuf| {
        let (cert, ca) = (directory.join("cert.pem"), &exported[2].ca);
        let [message, cert, ca] = [&message, &cert, ca].map(|path| path.to_str().unwrap());
        let output = python::run("verify.py", &[message, "--cert", cert, "--ca", ca]);
        output.status.success()
    };
    let verdicts: Vec<bool> = directories.iter().map(signed_by).collect();
    assert_eq!(
        verdicts.iter().filter(|holds| **holds).count(),
        1,
        "{verdicts:?}"
    );

    // What a device signed stays its own, whatever becomes of it; and no server is needed.
    site.json(&["device", "revoke", "bed-1", "--reason", "stolen"]);
    assert_eq!(verify(&site).0, 0);
    assert_eq!(site.terminate(), 0);
    let (code, said) = verify(&site);
    assert_eq!((code, &said["verified"]), (0, &json!(6)), "{said}");
}

#[test]
fn a_message_that_no_device_signed_is_named() {
    let mut site = Site::serving();
    let patient = site.patient();
    let directory = site.device("bed-1", &patient);
    let mut device = Device::load(&directory, &patient, &site);
    for minute in 0..3 {
        device.push(&readings(minute));
    }
    device.drain();
    // An orderly end would flush.
    site.kill();
    // Whoever has the disk, and no device's key.
    let inbox = site.data.join("inbox.sqlite");
    let sql = |statement: &str| {
        let output = Command::new("sqlite3").arg(&inbox).arg(statement).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let envelope = sql("SELECT hex(envelope) FROM inbox WHERE sequence = 1");
    let mut envelope = hex::decode(envelope).unwrap();
    // The countersignature is the first string of 64 bytes.
    let at = envelope
        .windows(2)
        .position(|two| two == [0x58, 64])
        .unwrap();
    envelope[at + 20] ^= 1;
    sql(&format!(
        "UPDATE inbox SET envelope = x'{}' WHERE sequence = 1",
        hex::encode(envelope)
    ));
    let (code, said) = verify(&site);
    assert_eq!(code, 1, "{said}");
    assert_eq!(
        [&said["messages"], &said["verified"]],
        [&json!(3), &json!(2)],
        "{said}"
    );
    let failed = said["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{said}");
    assert!(failed[0].to_string().contains("bed-1"), "{said}");
    assert!(
        failed[0]["fault"]
            .as_str()
            .unwrap()
            .contains("does not verify"),
        "{said}"
    );
}

#[test]
fn waveforms_of_a_hundred_patients_at_250_hz_come_back_sample_by_sample() {
    const DEVICES: usize = 100;
    let mut site = Site::serving();
    let state = site.dir.path().join("devices");
    let state = state.to_str().unwrap();
    let played = site.json(&[
        "simulate",
        "--devices",
        "100",
        "--waveforms",
        "250",
        "--seed",
        "7",
        "--state",
        state,
    ]);
    let samples = 60 * 250;
    assert_eq!(played["acked"], 30 * DEVICES, "{played}");
    assert_eq!(played["readings"], samples * DEVICES, "{played}");
    let devices = played["devices"].as_array().unwrap();
    let part = |index: usize, name: &str| devices[index][name].as_str().unwrap().to_owned();
    let patients: Vec<String> = (0..DEVICES).map(|index| part(index, "patient")).collect();
    let shown: Vec<&str> = patients.iter().map(String::as_str).collect();
    let token = site.clinician("nora", &shown);
    let count =
        "SELECT count(*), sum(cardinality(samples)), count(DISTINCT patient) FROM waveforms";
    for step in [&[][..], &["flush"], &["store", "compact", "--force"]] {
        if !step.is_empty() {
            site.json(step);
        }
        let counted = site.psql("nora", &token, count).unwrap();
        let expected = format!("{}|{}|{DEVICES}", 30 * DEVICES, samples * DEVICES);
        assert_eq!(counted, [expected], "{step:?}");
    }
    for index in [0, 1, DEVICES - 1] {
        let sql = format!(
            "SELECT array_to_string(samples, ',') FROM waveforms WHERE device = '{}' ORDER BY start",
            part(index, "device")
        );
        let rows = site.psql("nora", &token, &sql).unwrap();
        let found: Vec<f64> = rows
            .iter()
            .flat_map(|row| row.split(','))
            .map(|sample| sample.parse().unwrap())
            .collect();
        let rate = NonZeroU32::new(250).unwrap();
        let mut pulse = SimulatedPulse::new(7 + u64::try_from(index).unwrap(), rate);
        let start = Timestamp::from_second(1_767_312_000).unwrap();
        let expected: Vec<f64> = (0..30)
            .flat_map(|_| pulse.next(start, 500).unwrap().readings())
            .map(|reading| reading.value)
            .collect();
        assert!(found == expected, "device {index}");
    }
    assert_eq!(verify(&site).0, 0);
    assert_eq!(site.terminate(), 0);
}
