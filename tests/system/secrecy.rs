//! Planted values are looked for wherever vitalseal writes or answers: nothing may hold them.
//!
//! Counts as a failure: a planted reading, name, record number, password, token or key, in any usual
//! spelling, in a log at `trace`, in any file of the store, or in an error that a client sees.

use std::path::Path;

use vitalseal_vitals::signal::PULSE_WAVEFORM;
use vitalseal_vitals::{Period, Reading, Waveform, senml, signal};

use crate::common::device::{Device, tamper};
use crate::common::{Site, files_below};

/// A temperature that no clock, port or counter will print by accident.
const PLANTED: f64 = 38.374_951;
/// The same in millionths, as a column of a chunk may hold it.
const PLANTED_SCALED: i32 = 38_374_951;
const NAME: &str = "Zephyrine Quastel-Obst";
const MRN: &str = "MRN-7750913-QX";

#[test]
fn nothing_planted_rests_in_the_clear() {
    let mut site = Site::serving();
    let added = site.json(&["patient", "add", "--name", NAME, "--mrn", MRN]);
    let patient = added["patient"].as_str().unwrap().to_owned();
    let directory = site.device("planted-01", &patient);
    let clinician = site.json(&["user", "add", "nora", "--role", "clinician"]);
    site.json(&["user", "grant", "nora", "--patient", &patient]);
    let token = site.token(&clinician);

    let reading = Reading {
        signal: signal("8310-5").unwrap(),
        value: PLANTED,
        at: "2026-03-04T05:06:07Z".parse().unwrap(),
    };
    let mut device = Device::load(&directory, &patient, &site);
    device.push(&[reading]);
    let period = Period::new(1_000_000, 250).unwrap();
    let pulse = signal(PULSE_WAVEFORM).unwrap();
    let samples = vec![PLANTED_SCALED; 50];
    device.push_waveform(&Waveform::new(pulse, reading.at, period, 1e-6, 0.0, samples).unwrap());
    device.drain();
    // One whose bytes the test knows, so that they can be looked for below.
    let known = device.seal(&[reading]);
    device.publish_raw(known.clone());
    // A firmware bug: the payload is published without an envelope. It is quarantined, sealed.
    device.publish_raw(senml::encode(&[reading]));
    device
        .publish_raw(format!("{{\"temperature\": {PLANTED}, \"name\": \"{NAME}\"}}").into_bytes());
    // A broken and a forged message.
    let sealed = device.seal(&[reading]);
    device.publish_raw(tamper(&sealed));

    // Asked by someone who may, so that every layer has held the value in clear.
    let asked = format!("SELECT DISTINCT value FROM vitals WHERE value = {PLANTED}");
    assert_eq!(
        site.psql("nora", &token, &asked).unwrap(),
        [PLANTED.to_string()]
    );
    let asked_wave = "SELECT round(samples[1] * 1000000) FROM waveforms";
    assert_eq!(
        site.psql("nora", &token, asked_wave).unwrap(),
        [PLANTED_SCALED.to_string()]
    );
    let mut said = Vec::new();
    for bad in [
        format!("SELECT value / (value - {PLANTED})::BIGINT FROM vitals"),
        "SELECT CAST(code || ' x' AS DOUBLE) + value FROM vitals".to_owned(),
        "SELECT CAST(CAST(value AS VARCHAR) || 'x' AS DOUBLE) FROM vitals".to_owned(),
        "SELECT CAST(name AS DOUBLE) FROM patients".to_owned(),
        format!("SELECT no_such_column FROM vitals WHERE value = {PLANTED}"),
        "EXPLAIN ANALYZE SELECT value FROM vitals".to_owned(),
    ] {
        if let Err(error) = site.psql("nora", &token, &bad) {
            // psql echoes the statement's own line under the error: that is the client, not us.
            said.extend(
                error
                    .lines()
                    .filter(|line| !line.starts_with("LINE "))
                    .map(str::to_owned),
            );
        }
    }
    said.push(
        site.psql("nora", "vs_not-the-token", "SELECT 1")
            .unwrap_err(),
    );
    // What follows searches files as they are, which proves something only where a search finds what is there: until the
    // flush, the inbox holds the message as it is.
    let header = &known[..96];
    assert!(header.windows(10).any(|window| window == b"planted-01"));
    let holding = |ending: &str| {
        files_below(&site.data)
            .into_iter()
            .filter(|file| file.to_str().unwrap().contains(ending))
            .filter(|file| holds(&std::fs::read(file).unwrap(), header))
            .count()
    };
    assert!(
        holding("inbox") > 0,
        "no file holds the signed header of a message"
    );
    site.json(&["flush"]);
    assert_eq!(
        holding(".parquet"),
        0,
        "a data file tells of a device in the clear"
    );
    site.json(&["store", "compact", "--force"]);
    // Rows and chunks of both tables: what was merged stays for a while.
    let files = data_files(&site);
    for kind in ["r-", "c-"] {
        let of_kind = files.iter().filter(|(name, _)| name.starts_with(kind));
        assert!(of_kind.count() >= 2, "files of kind {kind}");
    }
    for (name, bytes) in &files {
        look(&metadata(&patient, reading.at), name, bytes);
    }
    for asked in [&asked, asked_wave] {
        assert_eq!(site.psql("nora", &token, asked).unwrap().len(), 1);
    }
    let shown = site.json(&["patient", "show", &patient]);
    assert_eq!(shown["name"], NAME);
    assert_eq!(
        site.json(&["quarantine", "list"]).as_array().unwrap().len(),
        3
    );
    said.push(site.json(&["quarantine", "list"]).to_string());
    said.push(site.json(&["audit", "tail", "-n", "500"]).to_string());

    let planted = planted(&site, &clinician, &token, &directory);
    let live = site.log_text();
    assert!(
        live.contains("TRACE") || live.contains("DEBUG"),
        "the log is not at trace"
    );
    look(&planted, "the log at trace", live.as_bytes());
    look(
        &planted,
        "an error or an answer",
        said.join("\n").as_bytes(),
    );
    for file in files_below(&site.data) {
        look(
            &planted,
            &file.display().to_string(),
            &std::fs::read(&file).unwrap(),
        );
    }
    site.kill();
    for file in files_below(&site.data) {
        look(
            &planted,
            &file.display().to_string(),
            &std::fs::read(&file).unwrap(),
        );
    }
    site.serve();
    assert_eq!(site.terminate(), 0);
    look(&planted, "the log of a stop", site.log_text().as_bytes());
}

/// Names and bytes of all data files.
fn data_files(site: &Site) -> Vec<(String, Vec<u8>)> {
    files_below(&site.data)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "parquet"))
        .map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&file).unwrap())
        })
        .collect()
}

/// Who was measured, by what and when: no data file shows it, though databases do.
fn metadata(patient: &str, at: jiff::Timestamp) -> Vec<(String, Vec<u8>)> {
    let us = at.as_microsecond();
    vec![
        ("the pseudonym".to_owned(), patient.as_bytes().to_vec()),
        ("the device".to_owned(), b"planted-01".to_vec()),
        (
            "the time, little-endian".to_owned(),
            us.to_le_bytes().to_vec(),
        ),
        ("the time, big-endian".to_owned(), us.to_be_bytes().to_vec()),
    ]
}

/// Each secret in the spellings in which it could leak.
fn planted(
    site: &Site,
    clinician: &serde_json::Value,
    token: &str,
    device: &Path,
) -> Vec<(String, Vec<u8>)> {
    let mut planted = vec![
        (
            "the reading as text".to_owned(),
            PLANTED.to_string().into_bytes(),
        ),
        (
            "the reading, big-endian".to_owned(),
            PLANTED.to_be_bytes().to_vec(),
        ),
        (
            "the reading, little-endian".to_owned(),
            PLANTED.to_le_bytes().to_vec(),
        ),
        (
            "the reading as a scaled integer".to_owned(),
            PLANTED_SCALED.to_le_bytes().to_vec(),
        ),
        (
            "the reading as a scaled integer, big-endian".to_owned(),
            PLANTED_SCALED.to_be_bytes().to_vec(),
        ),
        ("the name".to_owned(), NAME.as_bytes().to_vec()),
        ("the record number".to_owned(), MRN.as_bytes().to_vec()),
        ("the token".to_owned(), token.as_bytes().to_vec()),
    ];
    for credentials in [clinician, &site.administrator] {
        for field in ["password", "totp_secret"] {
            let secret = credentials[field].as_str().unwrap();
            planted.push((format!("a {field}"), secret.as_bytes().to_vec()));
        }
    }
    let root = site.data.with_extension("root");
    for file in files_below(&root) {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if bytes.len() <= 64 {
            planted.push((format!("{name} in hex"), hex::encode(&bytes).into_bytes()));
        }
        // The file may carry a header before the key: its last 32 bytes are enough to recognise it.
        planted.push((name, bytes[bytes.len().saturating_sub(32)..].to_vec()));
    }
    let key = std::fs::read_to_string(device.join("key.pem")).unwrap();
    let body: String = key
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    planted.push((
        "the device's private key".to_owned(),
        body.as_bytes()[40..80].to_vec(),
    ));
    planted
}

fn look(planted: &[(String, Vec<u8>)], place: &str, bytes: &[u8]) {
    for (what, secret) in planted {
        assert!(!holds(bytes, secret), "{what} is in {place}");
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
