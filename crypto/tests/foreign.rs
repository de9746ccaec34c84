//! What we seal, store and prove, read by COSE libraries that share no code with us: Python's `cwt` and `pycose`.
//!
//! The other direction, messages that they made, is in `vectors.rs`.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "tests argue with unwrap"
)]

mod common;
#[path = "../../tests/interop/python.rs"]
mod python;

use std::path::Path;
use std::process::Output;

use jiff::SignedDuration;
use serde_json::{Value, json};
use vitalseal_crypto::{
    Agreement, Backend, ContentType, Kid, Received, RecipientKeyRing, SealRequest, SessionKey,
    danger, seal,
};
use vitalseal_vitals::{Period, Reading, Waveform, senml, signal, waveform};

#[test]
fn two_foreign_libraries_verify_open_and_rewrap_what_we_seal_to_the_very_bytes_we_store() {
    for (index, backend) in common::backends().into_iter().enumerate() {
        let checked = check(&messages(backend), &format!("ours-{index}"));
        assert!(checked.status.success(), "{backend:?}: {checked:?}");
    }
}

type Change = fn(&mut Value);

#[test]
fn the_foreign_check_refuses_a_file_in_which_one_thing_is_wrong() {
    let cases: [(&str, Change); 4] = [
        ("payload", |file| {
            file["valid"][0]["payload"] = file["valid"][1]["payload"].clone();
        }),
        ("readings", |file| {
            file["valid"][0]["readings"][0]["value"] = json!(61.0);
        }),
        ("re-wrap", |file| {
            file["patient_kek"] = json!(hex::encode([7; 32]));
        }),
        ("verify", |file| {
            let mut wire = hex::decode(file["valid"][3]["wire"].as_str().unwrap()).unwrap();
            let in_the_ciphertext = wire.len() / 2;
            wire[in_the_ciphertext] ^= 1;
            file["valid"][3]["wire"] = json!(hex::encode(wire));
        }),
    ];
    for (wrong, change) in cases {
        let mut file = messages(vitalseal_crypto::default_backend());
        change(&mut file);
        let checked = check(&file, &format!("wrong-{wrong}"));
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(
            !checked.status.success() && said.contains(wrong),
            "{wrong}: {said}"
        );
    }
}

#[test]
fn two_foreign_libraries_come_to_the_published_statements_of_clone_proofs() {
    let published = "tests/vectors/clone_proof.json";
    let checked = python::run("check_clone_proofs.py", &[published]);
    assert!(checked.status.success(), "{checked:?}");

    // To whoever trusts another authority they prove nothing.
    let mut file: Value =
        serde_json::from_str(&std::fs::read_to_string(published).unwrap()).unwrap();
    file["issuing_certificate_der"] = json!(hex::encode(common::authority().issuing_der()));
    let path = written(&file, "clone_proof-of-a-stranger");
    let checked = python::run("check_clone_proofs.py", &[&path]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(
        !checked.status.success() && said.contains("verify_directly_issued_by"),
        "{said}"
    );
}

/// `check_vectors.py` on a file of messages.
fn check(file: &Value, name: &str) -> Output {
    python::run("check_vectors.py", &[&written(file, name)])
}

fn written(file: &Value, name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    std::fs::write(&path, file.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// One message a kind, chained, each with its stored form; in the form of the published vectors, with all keys.
fn messages(backend: &dyn Backend) -> Value {
    let site = common::Site::new();
    let random = || {
        let mut bytes = [0; 32];
        backend.fill_random(&mut bytes).unwrap();
        bytes
    };
    let (scalar, kek_bytes) = (random(), random());
    let recipient = common::recipient_certificate(&scalar);
    let server = danger::test_doors::recipient_key_under_kid(
        recipient.kid().clone(),
        &scalar,
        recipient.clone(),
    );
    let ring = RecipientKeyRing::new(vec![server.unwrap()]);
    let kek =
        danger::test_doors::kek_from_bytes(Kid::from_bytes(&random()[..16]).unwrap(), &kek_bytes);
    let session = SessionKey::generate(backend).unwrap();
    let senders = common::Met::default();

    let kinds = [
        (Agreement::Ephemeral, Payload::readings(1)),
        (Agreement::Session(&session), Payload::readings(60)),
        (Agreement::NamedSession(&session), Payload::readings(5)),
        (Agreement::Ephemeral, Payload::readings(300)),
        (Agreement::NamedSession(&session), Payload::waveform()),
    ];
    let mut previous = None;
    let valid: Vec<Value> = kinds
        .into_iter()
        .enumerate()
        .map(|(sequence, (agreement, payload))| {
            let request = SealRequest {
                content_type: payload.content_type,
                sequence: sequence as u64,
                previous,
                ..site.request()
            };
            let sealed = seal(
                &request,
                &payload.bytes,
                &recipient,
                agreement,
                &site.signer,
                backend,
            )
            .unwrap();
            previous = Some(sealed.signed_hash);
            let opened = Received::decode(&sealed.bytes)
                .unwrap()
                .verify(&site.certificate, backend)
                .unwrap()
                .open(&ring, &senders, backend)
                .unwrap();
            senders.meet(&opened);
            let mut vector = json!({
                "sequence": sequence,
                "wire": hex::encode(&sealed.bytes),
                "at_rest": hex::encode(opened.rewrap(&kek, backend).unwrap().as_bytes()),
                "payload": hex::encode(&payload.bytes),
            });
            if let Some(readings) = payload.readings {
                vector["readings"] = readings;
            }
            vector
        })
        .collect();
    json!({
        "device": site.signer.device(),
        "device_certificate_der": hex::encode(site.certificate.der()),
        "server_private_scalar": hex::encode(scalar),
        "server_kid": recipient.kid(),
        "patient_kek": hex::encode(kek_bytes),
        "patient_kek_kid": kek.kid(),
        "valid": valid,
        "invalid": [],
    })
}

/// What a message carries, and what the other side must find in it.
struct Payload {
    content_type: ContentType,
    bytes: Vec<u8>,
    readings: Option<Value>,
}

impl Payload {
    /// Heart rates a quarter of a second apart: exact as numbers of seconds in binary and in decimal.
    fn readings(count: u32) -> Self {
        let signal = signal("8867-4").unwrap();
        let step = SignedDuration::from_millis(250);
        let readings: Vec<Reading> = (0..count)
            .map(|index| Reading {
                signal,
                value: f64::from(60 + index % 40) + 0.5,
                at: common::now() + step * i32::try_from(index).unwrap(),
            })
            .collect();
        let told: Vec<Value> = readings
            .iter()
            .map(|reading| {
                json!({
                    "time": reading.at.as_millisecond() as f64 / 1000.0,
                    "code": reading.signal.code,
                    "value": reading.value,
                    "unit": reading.signal.unit,
                })
            })
            .collect();
        Self {
            content_type: ContentType::SenmlCbor,
            bytes: senml::encode(&readings),
            readings: Some(told.into()),
        }
    }

    /// Two seconds at 125 Hz. No library knows the payload, each must hand out its bytes.
    fn waveform() -> Self {
        let signal = signal("8867-4").unwrap();
        let period = Period::new(8_000, 1).unwrap();
        let samples = (0..250).map(|at| 60 + at % 30).collect();
        let waveform = Waveform::new(signal, common::now(), period, 1.0, 0.0, samples).unwrap();
        Self {
            content_type: ContentType::Waveform,
            bytes: waveform::encode(&waveform),
            readings: None,
        }
    }
}
