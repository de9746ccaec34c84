//! Two holders of one device's key: the second one is refused, and what it sent proves it to anybody.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;
use vitalseal_crypto::certificates_in_pem;
use vitalseal_vitals::{Reading, signal};

use crate::common::Site;
use crate::common::device::Device;
use crate::python;

const DEVICE: &str = "monitor-7";

fn readings(value: f64) -> Vec<Reading> {
    let now = Timestamp::now().as_second();
    (0..3)
        .map(|second| Reading {
            signal: signal("8867-4").unwrap(),
            value,
            at: Timestamp::from_second(now - 3 + second).unwrap(),
        })
        .collect()
}

/// The device's directory in other hands: its key and certificates, and an outbox of its own.
fn cloned(site: &Site, original: &Path) -> PathBuf {
    let clone = site.dir.path().join("clone").join(DEVICE);
    fs::create_dir_all(&clone).unwrap();
    for name in ["key.pem", "cert.pem", "ca.pem"] {
        fs::copy(original.join(name), clone.join(name)).unwrap();
    }
    clone
}

fn verifying<'a>(file: &'a str, ca: &'a Path) -> [&'a str; 5] {
    let ca = ca.to_str().unwrap();
    ["device", "verify-clone-proof", file, "--ca", ca]
}

#[test]
fn a_cloned_key_is_proven_to_whoever_trusts_the_authority_without_a_server_and_without_our_code() {
    let mut site = Site::init();
    // Nobody is shut out here, so that it is the proof alone that tells.
    let settings = site.data.join("vitalseal.toml");
    let text = fs::read_to_string(&settings).unwrap();
    assert!(text.contains("on_clone = \"suspend\""), "{text}");
    let text = text.replace("on_clone = \"suspend\"", "on_clone = \"alert\"");
    fs::write(&settings, text).unwrap();
    site.serve();
    let patient = site.patient();
    let original = site.device(DEVICE, &patient);
    let clone = cloned(&site, &original);
    for (directory, value) in [(&original, 61.0), (&clone, 62.0)] {
        let mut device = Device::load(directory, &patient, &site);
        device.push(&readings(value));
        device.drain();
    }
    let chain = site.json(&["device", "chain", DEVICE]);
    assert_eq!(
        chain,
        json!([{"boot": 0, "first": 0, "last": 0, "messages": 1, "missing": 0, "gaps": [], "forks": 1}])
    );
    let proof = site.dir.path().join("proof.cbor");
    let (file, ca) = (proof.to_str().unwrap(), site.ca_file());
    site.json(&["device", "clone-proof", DEVICE, "--out", file]);
    let refused = site.refused(&["device", "clone-proof", DEVICE, "--out", file]);
    assert!(refused.contains("proof.cbor"), "{refused}");
    let nothing = site.dir.path().join("nothing.cbor");
    let nothing = nothing.to_str().unwrap();
    let refused = site.refused(&["device", "clone-proof", "monitor-8", "--out", nothing]);
    assert!(refused.contains("no proof"), "{refused}");

    site.terminate();
    let statement = site.json(&verifying(file, &ca));
    assert_eq!(statement["device"], DEVICE);
    assert_eq!(statement["kind"], "same counters");
    assert_eq!(statement["sequences"], json!([0, 0]));

    // Another site's authority vouches for nothing here.
    let stranger = Site::serving();
    let refused = site.refused(&verifying(file, &stranger.ca_file()));
    assert!(refused.contains("proves nothing"), "{refused}");

    let issuing = &certificates_in_pem(&fs::read_to_string(&ca).unwrap()).unwrap()[0];
    let published = site.dir.path().join("published.json");
    let bytes = fs::read(&proof).unwrap();
    let vector = json!({
        "issuing_certificate_der": hex::encode(issuing),
        "proofs": [{"proof": hex::encode(&bytes), "statement": statement}],
    });
    fs::write(&published, vector.to_string()).unwrap();
    let checked = python::run("check_clone_proofs.py", &[published.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}
