//! The seeds of the fuzz targets of envelopes, certificates and clone proofs, replayed as they are and damaged.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "tests argue with unwrap; the shared files are public in the fuzz crate"
)]

#[path = "../../fuzz/src/certificate.rs"]
mod certificate;
#[path = "../../fuzz/src/clone_proof.rs"]
mod clone_proof;
#[path = "../../fuzz/src/envelope.rs"]
mod envelope;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

use proptest::prelude::*;

#[test]
fn every_seed_is_taken_or_refused_as_its_name_says() {
    seeds::replay("envelope_decode", envelope::decode);
    seeds::replay("certificate_parse", certificate::parse);
    seeds::replay("clone_proof_decode", clone_proof::decode);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_envelopes_break_nothing(bytes in seeds::damaged("envelope_decode")) {
        envelope::decode(&bytes);
    }

    #[test]
    fn damaged_certificates_break_nothing(bytes in seeds::damaged("certificate_parse")) {
        certificate::parse(&bytes);
    }

    #[test]
    fn damaged_clone_proofs_break_nothing(bytes in seeds::damaged("clone_proof_decode")) {
        clone_proof::decode(&bytes);
    }
}

/// `cargo test -p vitalseal-crypto --test corpus -- --ignored`
///
/// Some certificates are made anew, so those change each time.
#[cfg(feature = "authority")]
#[test]
#[ignore = "writes fuzz/corpus anew"]
fn write_seeds() {
    use serde_json::Value;
    use vitalseal_crypto::{
        CertificateAuthority, DeviceId, SenderKeyId, Signed, new_device_key_and_csr,
    };

    let file: Value = serde_json::from_str(include_str!("vectors/envelope.json")).unwrap();
    let bytes = |value: &Value, field: &str| hex::decode(value[field].as_str().unwrap()).unwrap();

    for (index, vector) in file["valid"].as_array().unwrap().iter().enumerate() {
        let wire = bytes(vector, "wire");
        let mode = vector["mode"].as_str().unwrap();
        seeds::write("envelope_decode", &format!("ok-{mode}-{index}"), &wire);
        seeds::write(
            "envelope_decode",
            &format!("ok-at-rest-{index}"),
            &bytes(vector, "at_rest"),
        );
        let evidence = Signed::decode(&wire).unwrap();
        seeds::write(
            "envelope_decode",
            &format!("ok-evidence-{index}"),
            evidence.as_bytes(),
        );
        if mode == "ss" {
            let backend = vitalseal_crypto::rust_crypto();
            let scalar = bytes(&file, "session_private_scalar").try_into().unwrap();
            let session = *backend.p256_from_scalar(&scalar).unwrap().public();
            let key = hex::encode(session.x()) + "225820" + &hex::encode(session.y());
            let named = SenderKeyId::of(&session, backend).to_string();
            // -2: the key in full, or -3: its thumbprint. Neither is signed.
            let named = hex::encode(&wire).replace(
                &format!("21a401022001215820{key}"),
                &format!("225820{named}"),
            );
            assert!(named.len() < 2 * wire.len());
            let named = hex::decode(named).unwrap();
            seeds::write("envelope_decode", &format!("ok-ss-named-{index}"), &named);
        }
    }
    for vector in file["invalid"].as_array().unwrap() {
        let name: String = vector["name"]
            .as_str()
            .unwrap()
            .chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' => c.to_ascii_lowercase(),
                _ => '-',
            })
            .collect();
        seeds::write(
            "envelope_decode",
            &format!("no-{name}"),
            &bytes(vector, "wire"),
        );
    }

    let target = "clone_proof_decode";
    let proofs: Value = serde_json::from_str(include_str!("vectors/clone_proof.json")).unwrap();
    for (index, vector) in proofs["proofs"].as_array().unwrap().iter().enumerate() {
        let proof = bytes(vector, "proof");
        seeds::write(target, &format!("ok-proof-{index}"), &proof);
        seeds::write(
            target,
            &format!("no-cut-{index}"),
            &proof[..proof.len() - 1],
        );
        // The head, the text and the version are 24 bytes; then come four byte strings of 16-bit lengths.
        let (head, mut rest) = proof.split_at(24);
        let parts: Vec<&[u8]> = std::iter::from_fn(|| {
            let length = u16::from_be_bytes([*rest.get(1)?, *rest.get(2)?]);
            let (part, after) = rest.split_at(3 + usize::from(length));
            rest = after;
            Some(part)
        })
        .collect();
        // A message is no proof against itself.
        let same = [head, parts[0], parts[1], parts[0], parts[1]].concat();
        seeds::write(target, &format!("no-same-{index}"), &same);
        let three = [head, parts[0], parts[1], parts[2]].concat();
        seeds::write(target, &format!("no-message-{index}"), &three);
    }

    let target = "certificate_parse";
    seeds::write(
        target,
        "ok-device.der",
        &bytes(&file, "device_certificate_der"),
    );
    seeds::write(
        target,
        "ok-authority.der",
        &bytes(&file, "ca_certificate_der"),
    );
    seeds::write(target, "ok-recipient.der", envelope::RECIPIENT);
    let key = rcgen::KeyPair::generate().unwrap();
    for (seed, name) in [
        ("ok-both-usages.der", "monitor-003"),
        ("no-device-name.der", "a name with spaces"),
    ] {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::DigitalSignature,
            rcgen::KeyUsagePurpose::KeyAgreement,
        ];
        seeds::write(target, seed, params.self_signed(&key).unwrap().der());
    }

    let now = jiff::Timestamp::from_second(1_767_312_000).unwrap();
    let new = CertificateAuthority::create(now).unwrap();
    let issuing = CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    );
    let device: DeviceId = "monitor-002".parse().unwrap();
    let (_, request) = new_device_key_and_csr(&device).unwrap();
    let issued = issuing
        .unwrap()
        .issue_device(&request, &device, now)
        .unwrap();
    let chain = [&issued.pem, &new.issuing_cert_pem, &new.root_cert_pem]
        .map(String::as_str)
        .concat();
    seeds::write(target, "ok-chain.pem", chain.as_bytes());
    seeds::write(
        target,
        "no-cut.pem",
        &chain.as_bytes()[..chain.len() / 2 - 300],
    );
    seeds::write(target, "no-request.pem", request.as_bytes());
}
