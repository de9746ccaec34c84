//! Whom the server keeps out: revoked for ever, suspended until somebody decides, found twice. What its own doors do, and
//! what the published list tells others, who know OpenSSL and nothing of us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Runtime;
use vitalseal::mqtt_client::Session;
use vitalseal::tls;
use vitalseal_vitals::{Reading, signal};

use crate::common::Site;
use crate::common::device::Device;
use crate::faults;

fn readings(value: f64) -> Vec<Reading> {
    let at = Timestamp::from_second(Timestamp::now().as_second() - 1).unwrap();
    let signal = signal("8867-4").unwrap();
    vec![Reading { signal, value, at }]
}

async fn connect(site: &Site, directory: &Path) -> anyhow::Result<Session> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let tls = tls::device(&read("ca.pem"), &read("cert.pem"), &read("key.pem")).unwrap();
    let name = directory.file_name().unwrap().to_str().unwrap();
    Session::connect(site.address("mqtt"), name, Arc::new(tls)).await
}

fn openssl(args: &[&str]) -> Output {
    Command::new("openssl")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// What OpenSSL says of a handshake with the device's certificate.
fn handshake(site: &Site, directory: &Path) -> String {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let address = site.address("mqtt").to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    // In TLS 1.2 the client hears of it within the handshake, whatever it does then.
    said(&openssl(&[
        "s_client",
        "-tls1_2",
        "-connect",
        &address,
        "-CAfile",
        &ca,
        "-cert",
        &cert,
        "-key",
        &key,
        "-cert_chain",
        &cert,
    ]))
}

/// The newest list as a DER file, from the command line; the same as `GET /crl` serves.
fn list(site: &Site, name: &str) -> PathBuf {
    let file = site.dir.path().join(name);
    site.json(&["ca", "crl", "--der", file.to_str().unwrap()]);
    let (head, body) = site.get("/crl");
    assert!(head.contains("application/pkix-crl"), "{head}");
    assert_eq!(body, fs::read(&file).unwrap());
    file
}

/// What OpenSSL makes of the list.
fn listed(site: &Site, list: &Path) -> String {
    let (list, ca) = (list.to_str().unwrap(), site.ca_file());
    let ca = ca.to_str().unwrap();
    let shown = openssl(&[
        "crl", "-inform", "DER", "-in", list, "-CAfile", ca, "-noout", "-text",
    ]);
    let shown = said(&shown);
    assert!(shown.contains("verify OK"), "{shown}");
    shown
}

/// Whether OpenSSL believes the certificate, given the list.
fn believed(site: &Site, directory: &Path, list: &Path) -> Result<(), String> {
    let pem = list.with_extension("pem");
    let (list, pem) = (list.to_str().unwrap(), pem.to_str().unwrap());
    openssl(&["crl", "-inform", "DER", "-in", list, "-out", pem]);
    let (ca, cert) = (site.ca_file(), directory.join("cert.pem"));
    let verified = openssl(&[
        "verify",
        "-crl_check",
        "-CRLfile",
        pem,
        "-CAfile",
        ca.to_str().unwrap(),
        cert.to_str().unwrap(),
    ]);
    match verified.status.success() {
        true => Ok(()),
        false => Err(said(&verified)),
    }
}

fn serial(directory: &Path) -> String {
    let cert = directory.join("cert.pem");
    let shown = openssl(&["x509", "-in", cert.to_str().unwrap(), "-noout", "-serial"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    shown.trim().trim_start_matches("serial=").to_owned()
}

fn device_row(site: &Site, device: &str) -> serde_json::Value {
    let rows = site.json(&["device", "list"]);
    let mut rows = rows.as_array().unwrap().iter();
    rows.find(|row| row["device"] == device).unwrap().clone()
}

#[test]
fn a_revoked_device_is_put_out_refused_in_the_handshake_and_named_to_everybody() {
    let mut site = Site::serving();
    let patient = site.patient();
    let lost = site.device("monitor-1", &patient);
    let kept = site.device("monitor-2", &patient);
    let before = list(&site, "before.crl");
    assert!(listed(&site, &before).contains("No Revoked Certificates"));
    assert_eq!(believed(&site, &lost, &before), Ok(()));

    let runtime = Runtime::new().unwrap();
    let mut session = runtime.block_on(connect(&site, &lost)).unwrap();
    let mut bystander = runtime.block_on(connect(&site, &kept)).unwrap();
    let revoked = site.json(&["device", "revoke", "monitor-1", "--reason", "left on a bus"]);
    assert_eq!(revoked["state"], "revoked");
    runtime.block_on(session.ended()).unwrap();
    let anything = bystander.publish("v1/d/monitor-2/vitals", vec![0; 40]);
    runtime.block_on(anything).unwrap();

    // On the answer, not some time after.
    let again = runtime.block_on(connect(&site, &lost)).unwrap_err();
    assert!(
        format!("{again:#}").contains("CertificateRevoked"),
        "{again:#}"
    );
    let refused = handshake(&site, &lost);
    assert!(refused.contains("certificate revoked"), "{refused}");
    let after = list(&site, "after.crl");
    let shown = listed(&site, &after);
    assert!(
        shown.contains(&serial(&lost)) && !shown.contains(&serial(&kept)),
        "{shown}"
    );
    assert!(!shown.contains("left on a bus"), "{shown}");
    let disbelieved = believed(&site, &lost, &after).unwrap_err();
    assert!(disbelieved.contains("certificate revoked"), "{disbelieved}");
    assert_eq!(believed(&site, &kept, &after), Ok(()));

    // A restart forgets nothing.
    assert_eq!(site.terminate(), 0);
    site.serve();
    let refused = handshake(&site, &lost);
    assert!(refused.contains("certificate revoked"), "{refused}");
    assert_eq!(
        fs::read(list(&site, "restarted.crl")).unwrap(),
        fs::read(&after).unwrap()
    );
    let welcome = handshake(&site, &kept);
    assert!(!welcome.contains("alert"), "{welcome}");
    let refused = site.refused(&["device", "reinstate", "monitor-1", "--reason", "found"]);
    assert!(refused.contains("enrol it under a new id"), "{refused}");
}

#[test]
fn a_suspended_device_comes_back_when_it_is_reinstated_and_the_list_says_hold_meanwhile() {
    let site = Site::serving();
    let patient = site.patient();
    let directory = site.device("monitor-1", &patient);
    let runtime = Runtime::new().unwrap();
    let mut session = runtime.block_on(connect(&site, &directory)).unwrap();
    let mut device = Device::load(&directory, &patient, &site);
    device.push(&readings(61.0));

    site.json(&["device", "suspend", "monitor-1", "--reason", "mislaid"]);
    runtime.block_on(session.ended()).unwrap();
    assert!(runtime.block_on(connect(&site, &directory)).is_err());
    let held = list(&site, "held.crl");
    assert!(listed(&site, &held).contains("Certificate Hold"));
    let row = device_row(&site, "monitor-1");
    assert_eq!(
        (&row["state"], &row["state_reason"]),
        (&"suspended".into(), &"mislaid".into())
    );
    let refused = site.refused(&["device", "suspend", "monitor-1", "--reason", "again"]);
    assert!(refused.contains("suspended already"), "{refused}");

    site.json(&[
        "device",
        "reinstate",
        "monitor-1",
        "--reason",
        "in the sluice room",
    ]);
    let free = list(&site, "free.crl");
    assert!(listed(&site, &free).contains("No Revoked Certificates"));
    device.drain();
    let chain = site.json(&["device", "chain", "monitor-1"]);
    assert_eq!(chain[0]["messages"], 1);
    let audited = site.json(&["audit", "tail", "-n", "100"]);
    let events = audited.as_array().unwrap().iter();
    let of_state = events.filter(|entry| entry["reason"].is_string());
    let told: Vec<_> = of_state
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    let expected = ["device_suspended", "device_reinstated"];
    let mut told = told.into_iter().filter(|event| expected.contains(event));
    assert!(expected.into_iter().eq(told.by_ref()), "{audited}");
}

#[test]
fn nobody_is_shut_out_before_it_is_on_record_who_decided_it_and_asking_again_does_both() {
    let mut site = Site::serving();
    let patient = site.patient();
    site.device("monitor-1", &patient);
    site.terminate();
    faults::strike(&mut site, "switches", 0);
    // Only the audit log has no room.
    let log = site.data.join("audit.sqlite");
    site.environment.push(("VS_FAULT_DIR", log.into()));
    site.serve();
    let full = site.dir.path().join("hit.full");
    for (verb, before, after) in [
        ("suspend", "active", "suspended"),
        ("revoke", "suspended", "revoked"),
    ] {
        let order = ["device", verb, "monitor-1", "--reason", "lost"];
        fs::write(&full, "").unwrap();
        site.refused(&order);
        assert_eq!(device_row(&site, "monitor-1")["state"], before);
        fs::remove_file(&full).unwrap();
        assert_eq!(site.json(&order)["state"], after);
        let audited = site.json(&["audit", "tail", "-n", "100"]);
        let event = format!("device_{after}");
        let mut events = audited.as_array().unwrap().iter();
        assert!(events.any(|entry| entry["event"] == event), "{audited}");
    }
}

#[test]
fn two_clients_with_one_certificate_are_both_held_until_an_operator_decides() {
    let site = Site::serving();
    let patient = site.patient();
    let directory = site.device("monitor-1", &patient);
    let runtime = Runtime::new().unwrap();
    let fight = async {
        let mut holder = connect(&site, &directory).await.unwrap();
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Ok(other) = connect(&site, &directory).await else {
                return;
            };
            // The one that was put out comes back as soon as it sees it, as the other one will.
            let _ = holder.ended().await;
            holder = other;
        }
        panic!("they go on");
    };
    runtime.block_on(fight);
    let row = device_row(&site, "monitor-1");
    assert_eq!(row["state"], "suspended");
    assert!(
        row["state_reason"].as_str().unwrap().contains("takeovers"),
        "{row}"
    );
    assert_eq!(site.metric("alerts_total"), 1);
    let audited = site.json(&["audit", "tail", "-n", "100"]);
    let mut events = audited.as_array().unwrap().iter();
    assert!(
        events.any(|entry| entry["event"] == "clone_suspected"),
        "{audited}"
    );
    assert!(site.log_text().contains("clone_suspected"));

    site.json(&[
        "device",
        "reinstate",
        "monitor-1",
        "--reason",
        "the twin was a test",
    ]);
    let mut device = Device::load(&directory, &patient, &site);
    device.push(&readings(61.0));
    device.drain();
    assert_eq!(
        site.json(&["device", "chain", "monitor-1"])[0]["messages"],
        1
    );
}
