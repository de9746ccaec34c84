//! The published envelope vectors, through both backends.
//!
//! More files of the same form may be named in `VITALSEAL_VECTORS`, separated by `:`. A file that cannot be read fails
//! the test: vectors that silently did not run prove nothing.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;
use vitalseal_crypto::{
    AtRest, Backend, ContentType, DeviceCertificate, Kek, Kid, Opened, Received, RecipientKeyRing,
    Rejection, Rule, danger,
};
use vitalseal_vitals::{senml, waveform};

#[test]
fn valid_messages_open_and_rewrap_and_invalid_ones_are_refused_for_their_reason() {
    for path in files() {
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for backend in common::backends() {
            let world = World::of(&file, backend);
            let valid = file["valid"].as_array().unwrap();
            let invalid = file["invalid"].as_array().unwrap();
            assert!(
                !valid.is_empty() && !invalid.is_empty(),
                "{}",
                path.display()
            );
            for (index, vector) in valid.iter().enumerate() {
                world.takes(vector, &format!("{} valid {index}", path.display()));
            }
            for vector in invalid {
                world.refuses(vector, &format!("{} {}", path.display(), vector["name"]));
            }
        }
    }
}

fn files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("tests/vectors/envelope.json")];
    if let Some(more) = std::env::var_os("VITALSEAL_VECTORS") {
        files.extend(std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()));
    }
    files
}

/// The keys that a file of vectors is about.
struct World {
    certificate: DeviceCertificate,
    ring: RecipientKeyRing,
    senders: common::Met,
    kek: Kek,
    backend: &'static dyn Backend,
}

impl World {
    fn of(file: &Value, backend: &'static dyn Backend) -> Self {
        let kid = |field| Kid::from_bytes(&bytes(file, field)).unwrap();
        let scalar = bytes(file, "server_private_scalar");
        let server = danger::test_doors::recipient_key_under_kid(
            kid("server_kid"),
            &scalar,
            common::recipient_certificate(&scalar),
        );
        let kek = bytes(file, "patient_kek").try_into().unwrap();
        Self {
            certificate: DeviceCertificate::from_der(&bytes(file, "device_certificate_der"))
                .unwrap(),
            ring: RecipientKeyRing::new(vec![server.unwrap()]),
            senders: common::Met::default(),
            kek: danger::test_doors::kek_from_bytes(kid("patient_kek_kid"), &kek),
            backend,
        }
    }

    fn takes(&self, vector: &Value, name: &str) {
        let opened = self.open(&bytes(vector, "wire")).unwrap_or_else(|error| {
            panic!("{name}: {error}");
        });
        assert_eq!(opened.payload(), bytes(vector, "payload"), "{name}");
        assert_eq!(
            Some(opened.header().boot),
            vector["boot"].as_u64(),
            "{name}"
        );
        assert_eq!(
            Some(opened.header().sequence),
            vector["sequence"].as_u64(),
            "{name}"
        );
        assert_eq!(
            Some(opened.header().issued_at.as_second()),
            vector["issued_at"].as_i64()
        );
        let signed = self.backend.sha256(&[&bytes(vector, "to_be_signed")]);
        assert_eq!(*opened.signed_hash(), signed, "{name}");

        same_readings(&opened, &vector["readings"], name);

        let at_rest = opened.rewrap(&self.kek, self.backend).unwrap();
        assert_eq!(
            hex::encode(at_rest.as_bytes()),
            vector["at_rest"].as_str().unwrap(),
            "{name}"
        );

        let stored = AtRest::decode(&bytes(vector, "at_rest")).unwrap();
        assert_eq!(
            stored.verify(&self.certificate, self.backend),
            Ok(()),
            "{name}"
        );
        assert_eq!(stored.signed_hash(self.backend), signed, "{name}");
        assert_eq!(
            *stored.open(&self.kek, self.backend).unwrap(),
            opened.payload(),
            "{name}"
        );
    }

    fn refuses(&self, vector: &Value, name: &str) {
        let rule = match self.open(&bytes(vector, "wire")) {
            Ok(_) => panic!("{name}: taken"),
            Err(rejection) => rejection.rule,
        };
        let allowed: &[Rule] = match vector["why"].as_str().unwrap() {
            "shape" => &[Rule::Shape],
            "algorithm" => &[Rule::Algorithm],
            "identity" => &[Rule::Identity],
            "signature" => &[Rule::Signature],
            "unknown key" | "unknown_key" => &[Rule::UnknownKey],
            "unwrap" => &[Rule::Unwrap],
            "commitment" => &[Rule::Commitment],
            "open" => &[Rule::Open],
            "commitment or open" => &[Rule::Commitment, Rule::Open],
            other => panic!("{name}: no such reason: {other}"),
        };
        assert!(
            allowed.contains(&rule),
            "{name}: {rule} instead of {}",
            vector["why"]
        );
    }

    fn open(&self, wire: &[u8]) -> Result<Opened, Rejection> {
        let opened = Received::decode(wire)?
            .verify(&self.certificate, self.backend)?
            .open(&self.ring, &self.senders, self.backend)?;
        self.senders.meet(&opened);
        Ok(opened)
    }
}

/// The payload, decoded as its content type says, holds the published readings.
fn same_readings(opened: &Opened, published: &Value, name: &str) {
    let readings = match opened.header().content_type {
        ContentType::SenmlCbor => senml::decode(opened.payload()),
        ContentType::Waveform => waveform::decode(opened.payload()),
    };
    let readings = readings.unwrap_or_else(|error| panic!("{name}: {error}"));
    let published = published.as_array().unwrap();
    assert_eq!(readings.len(), published.len(), "{name}");
    for (reading, published) in readings.iter().zip(published) {
        assert_eq!(
            Some(reading.signal.code),
            published["code"].as_str(),
            "{name}"
        );
        assert_eq!(
            Some(reading.signal.unit),
            published["unit"].as_str(),
            "{name}"
        );
        let near = |ours: f64, theirs: &Value| (ours - theirs.as_f64().unwrap()).abs() < 1e-6;
        assert!(near(reading.value, &published["value"]), "{name}");
        let seconds = reading
            .at
            .duration_since(Timestamp::UNIX_EPOCH)
            .as_secs_f64();
        assert!(near(seconds, &published["time"]), "{name}");
    }
}

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(
        value[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field}")),
    )
    .unwrap()
}
