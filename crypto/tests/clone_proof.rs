//! What proves that a device's key is in two hands, and what does not.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use common::{Site, authority, backends, later, now};
use coset::TaggedCborSerializable as _;
use serde_json::{Value, json};
use vitalseal_crypto::{
    Agreement, CertificateError, CloneKind, CloneProof, CloneStatement, DeviceCertificate,
    DeviceId, DeviceSigner, Kek, Link, NoProof, NoSenderKeys, Received, RecipientCertificate, Rule,
    SealRequest, SealedMessage, SubjectPseudonym, danger, default_backend, new_device_key_and_csr,
    seal,
};

/// Seals message `sequence` of boot 3, chained to `previous`.
fn chained(
    site: &Site,
    sequence: u64,
    previous: Option<[u8; 32]>,
    payload: &[u8],
) -> SealedMessage {
    let mut request = site.request();
    (request.sequence, request.previous) = (sequence, previous);
    sealed(&request, payload, &site.recipient, &site.signer)
}

fn sealed(
    request: &SealRequest<'_>,
    payload: &[u8],
    recipient: &RecipientCertificate,
    signer: &DeviceSigner,
) -> SealedMessage {
    let backend = default_backend();
    seal(
        request,
        payload,
        recipient,
        Agreement::Ephemeral,
        signer,
        backend,
    )
    .unwrap()
}

fn at_rest(site: &Site, wire: &[u8]) -> Vec<u8> {
    let backend = default_backend();
    Received::decode(wire)
        .and_then(|received| received.verify(&site.certificate, backend))
        .and_then(|verified| verified.open(&site.ring, &NoSenderKeys, backend))
        .unwrap()
        .rewrap(&Kek::generate(backend).unwrap(), backend)
        .unwrap()
        .into_bytes()
}

#[test]
fn two_histories_under_one_key_prove_a_clone_to_whoever_trusts_the_authority() {
    let site = Site::new();
    let one = chained(&site, 1, None, b"62");
    let clone = chained(&site, 1, None, b"63");
    let next = chained(&site, 2, Some(clone.signed_hash), b"64");
    for backend in backends() {
        for (second, kind, sequences) in [
            (&clone, CloneKind::SameCounters, [1, 1]),
            (&next, CloneKind::BrokenLink, [1, 2]),
        ] {
            let made = |a: &[u8], b: &[u8]| {
                CloneProof::new(a, b, &[&site.certificate], backend)
                    .unwrap()
                    .encode()
            };
            let proof = made(&one.bytes, &second.bytes);
            assert_eq!(proof, made(&second.bytes, &one.bytes), "in either order");
            assert_eq!(
                proof,
                made(&at_rest(&site, &one.bytes), &second.bytes),
                "stored or on the wire"
            );
            let decoded = CloneProof::decode(&proof).unwrap();
            assert_eq!(decoded.encode(), proof);
            let statement = decoded
                .verify(
                    &[site.authority.root_der(), site.authority.issuing_der()],
                    backend,
                )
                .unwrap();
            assert_eq!(statement.device, *site.signer.device());
            assert_eq!((statement.boot, statement.kind), (3, kind));
            assert_eq!(statement.sequences, sequences);
            let mut hashes = statement.signed_hashes;
            let mut expected = [one.signed_hash, second.signed_hash];
            hashes.sort_unstable();
            expected.sort_unstable();
            assert_eq!(hashes, expected);

            let stranger = authority();
            assert_eq!(
                decoded.verify(&[stranger.issuing_der()], backend),
                Err(NoProof::ForeignIssuer(CertificateError::ForeignIssuer))
            );
            assert!(decoded.verify(&[], backend).is_err());
        }
    }
}

/// A renewal in mid-boot puts the two messages under two certificates.
#[test]
fn a_proof_may_span_a_renewal() {
    let site = Site::new();
    let backend = default_backend();
    let (key, csr) = new_device_key_and_csr(site.signer.device()).unwrap();
    let renewed = site
        .authority
        .issue_device(&csr, site.signer.device(), later(now(), 300))
        .unwrap();
    let renewed_signer = DeviceSigner::from_pkcs8_pem(&key, &renewed.pem).unwrap();
    let one = chained(&site, 1, None, b"62");
    let mut request = site.request();
    (request.sequence, request.previous) = (2, Some([7; 32]));
    let two = sealed(&request, b"63", &site.recipient, &renewed_signer);

    assert_eq!(
        CloneProof::new(&one.bytes, &two.bytes, &[&site.certificate], backend).unwrap_err(),
        NoProof::UnknownSigner
    );
    let both = [&renewed.certificate, &site.certificate];
    let proof = CloneProof::new(&one.bytes, &two.bytes, &both, backend).unwrap();
    let statement = proof
        .verify(&[site.authority.issuing_der()], backend)
        .unwrap();
    assert_eq!(statement.kind, CloneKind::BrokenLink);
    assert_eq!(
        proof.certificates(),
        [&site.certificate, &renewed.certificate]
    );
}

#[test]
fn what_an_honest_device_may_do_proves_nothing() {
    let site = Site::new();
    let other_site = Site::new();
    let one = chained(&site, 1, None, b"62");
    let next = chained(&site, 2, Some(one.signed_hash), b"63");
    let unchained = chained(&site, 2, None, b"63");
    let later = chained(&site, 3, Some([7; 32]), b"64");
    let mut request = site.request();
    (request.boot, request.sequence) = (4, 1);
    let rebooted = sealed(&request, b"62", &site.recipient, &site.signer);
    let device: DeviceId = "monitor-008".parse().unwrap();
    let (key, csr) = new_device_key_and_csr(&device).unwrap();
    let issued = site.authority.issue_device(&csr, &device, now()).unwrap();
    let signer = DeviceSigner::from_pkcs8_pem(&key, &issued.pem).unwrap();
    let mut request = site.request();
    (request.device, request.sequence) = (&device, 1);
    let neighbour = sealed(&request, b"62", &site.recipient, &signer);
    let forged = {
        let mut bytes = chained(&site, 1, None, b"99").bytes;
        // The tag of the ciphertext, which stands before the recipients array.
        let recipients = bytes
            .windows(2)
            .rposition(|pair| pair == [0x81, 0x83])
            .unwrap();
        bytes[recipients - 1] ^= 1;
        bytes
    };

    for (name, second, expected) in [
        ("a resend", &one.bytes, NoProof::SameMessage),
        (
            "stored twice",
            &at_rest(&site, &one.bytes),
            NoProof::SameMessage,
        ),
        ("the next", &next.bytes, NoProof::LinkHolds),
        (
            "the next without a chain",
            &unchained.bytes,
            NoProof::NoLink,
        ),
        ("one after a gap", &later.bytes, NoProof::NotConsecutive),
        ("another boot", &rebooted.bytes, NoProof::DifferentBoots),
        (
            "another device",
            &neighbour.bytes,
            NoProof::DifferentDevices,
        ),
    ] {
        let certificates = [&site.certificate, &issued.certificate];
        let refused = CloneProof::new(&one.bytes, second, &certificates, default_backend());
        assert_eq!(refused.unwrap_err(), expected, "{name}");
    }
    let refused = |second: &[u8], certificate: &DeviceCertificate| {
        CloneProof::new(&one.bytes, second, &[certificate], default_backend()).unwrap_err()
    };
    assert!(matches!(
        refused(&forged, &site.certificate),
        NoProof::Unsigned(rejection) if rejection.rule == Rule::Signature
    ));
    assert!(matches!(
        refused(b"", &site.certificate),
        NoProof::Message(_)
    ));
    assert_eq!(
        refused(&one.bytes, &other_site.certificate),
        NoProof::UnknownSigner
    );
}

/// Nobody can turn a sound device's messages into a proof: every flipped bit of a true one is noticed.
#[test]
fn a_changed_proof_proves_nothing() {
    let site = Site::new();
    let backend = default_backend();
    let (one, clone) = (
        chained(&site, 1, None, b"62"),
        chained(&site, 1, None, b"63"),
    );
    let proof = CloneProof::new(&one.bytes, &clone.bytes, &[&site.certificate], backend).unwrap();
    let issuers = [site.authority.issuing_der()];
    let statement = proof.verify(&issuers, backend).unwrap();
    // The IV is not signed, so it may differ; what is stated may not.
    let bytes = proof.encode();
    let mut unsigned = 0;
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(stated) = CloneProof::decode(&changed).and_then(|it| it.verify(&issuers, backend))
        {
            assert_eq!(stated, statement, "bit {bit}");
            unsigned += 1;
        }
    }
    assert_eq!(unsigned, 2 * 96, "the two IVs, bit for bit");
    for length in 0..bytes.len() {
        assert!(CloneProof::decode(&bytes[..length]).is_err());
    }
}

/// A recipient in a proof would be a way to the content key that survives an erasure.
#[test]
fn a_proof_holds_no_recipient() {
    let site = Site::new();
    let backend = default_backend();
    let (one, clone) = (
        chained(&site, 1, None, b"62"),
        chained(&site, 1, None, b"63"),
    );
    let proof = CloneProof::new(&one.bytes, &clone.bytes, &[&site.certificate], backend).unwrap();
    let bytes = proof.encode();
    for wire in [&one.bytes, &clone.bytes] {
        let wrapped = &wire[wire.len() - 40..];
        assert!(!bytes.windows(40).any(|window| window == wrapped));
        assert!(
            bytes.windows(8).any(|window| *window == wire[10..18]),
            "but the header"
        );
    }
    // One that somebody else made with the whole messages is refused.
    let [first, second] = [&one.bytes, &clone.bytes].map(|wire| {
        let mut message = vec![0x59];
        message.extend(u16::try_from(wire.len()).unwrap().to_be_bytes());
        [message.as_slice(), wire].concat()
    });
    let certificate = {
        let der = site.certificate.der();
        let length = u16::try_from(der.len()).unwrap().to_be_bytes();
        [&[0x59], &length[..], der].concat()
    };
    let head = [&[0x86, 0x75], &b"vitalseal clone proof"[..], &[1]].concat();
    let whole = [head, certificate.clone(), first, certificate, second].concat();
    let refused = CloneProof::decode(&whole).unwrap_err();
    assert!(
        matches!(refused, NoProof::Message(rejection) if rejection.detail() == "evidence keeps no recipients"),
        "{refused:?}"
    );
}

#[test]
fn a_gap_is_told_from_a_fork() {
    let site = Site::new();
    let header = |sequence, previous| {
        Received::decode(&chained(&site, sequence, previous, b"62").bytes)
            .unwrap()
            .header()
            .clone()
    };
    let known = Some(&[1; 32]);
    assert_eq!(header(0, None).link(None), Link::First);
    assert_eq!(header(5, None).link(known), Link::Unchained);
    assert_eq!(header(5, Some([1; 32])).link(known), Link::Holds);
    assert_eq!(header(5, Some([1; 32])).link(None), Link::Gap);
    assert_eq!(header(5, Some([2; 32])).link(known), Link::Fork);
}

const EXAMPLE: &str = "tests/vectors/clone_proof.json";

/// The published example, for other implementations.
#[test]
fn the_published_proofs_state_what_is_published() {
    let file: Value = serde_json::from_str(&std::fs::read_to_string(EXAMPLE).unwrap()).unwrap();
    let issuing = bytes(&file["issuing_certificate_der"]);
    let proofs = file["proofs"].as_array().unwrap();
    assert_eq!(proofs.len(), 2);
    for published in proofs {
        let proof = CloneProof::decode(&bytes(&published["proof"])).unwrap();
        let stated = proof.verify(&[&issuing], default_backend()).unwrap();
        assert_eq!(statement(&stated), published["statement"]);
        // Another COSE library reads the messages, and makes the same signed bytes of them.
        for (message, hash) in proof.messages().iter().zip(stated.signed_hashes) {
            assert_eq!(hash_by_another_library(message.as_bytes()), hash);
        }
    }
}

fn hash_by_another_library(message: &[u8]) -> [u8; 32] {
    let message = coset::CoseEncrypt0::from_tagged_slice(message).unwrap();
    let (label, countersignature) = &message.unprotected.rest[0];
    assert_eq!(*label, coset::Label::Int(11));
    let sign_protected = countersignature.as_array().unwrap()[0].as_bytes().unwrap();
    let signed = coset::sig_structure_data(
        coset::SignatureContext::CounterSignature,
        message.protected,
        Some(coset::ProtectedHeader {
            original_data: Some(sign_protected.clone()),
            ..Default::default()
        }),
        b"",
        &message.ciphertext.unwrap(),
    );
    default_backend().sha256(&[&signed])
}

/// Makes the example anew, from the keys of `envelope.json`: `cargo test --test clone_proof -- --ignored`.
#[test]
#[ignore = "writes tests/vectors/clone_proof.json"]
fn write_the_published_proofs() {
    let keys = std::fs::read_to_string("tests/vectors/envelope.json").unwrap();
    let keys: Value = serde_json::from_str(&keys).unwrap();
    let certificate = DeviceCertificate::from_der(&bytes(&keys["device_certificate_der"])).unwrap();
    let scalar = bytes(&keys["device_private_scalar"]);
    let signer =
        danger::test_doors::device_signer_from_parts(&scalar, certificate.clone()).unwrap();
    let subject: SubjectPseudonym = keys["pseudonym"].as_str().unwrap().parse().unwrap();
    let site = Site::new();
    let message = |sequence, previous, payload| {
        let mut request = site.request();
        (request.device, request.subject) = (certificate.device(), &subject);
        (request.sequence, request.previous) = (sequence, previous);
        sealed(&request, payload, &site.recipient, &signer)
    };
    let one = message(1, None, b"62");
    let clone = message(1, None, b"63");
    let next = message(2, Some(clone.signed_hash), b"64");
    let issuing = bytes(&keys["ca_certificate_der"]);
    let proofs = [clone, next].map(|second| {
        let backend = default_backend();
        let proof = CloneProof::new(&one.bytes, &second.bytes, &[&certificate], backend).unwrap();
        let stated = proof.verify(&[&issuing], backend).unwrap();
        json!({ "statement": statement(&stated), "proof": hex::encode(proof.encode()) })
    });
    let file = json!({
        "about": "clone proofs as crypto/src/envelope/clone_proof.rs draws them; byte strings are hex",
        "issuing_certificate_der": hex::encode(issuing),
        "proofs": proofs,
    });
    std::fs::write(EXAMPLE, serde_json::to_string_pretty(&file).unwrap() + "\n").unwrap();
}

fn statement(stated: &CloneStatement) -> Value {
    json!({
        "device": stated.device,
        "boot": stated.boot,
        "kind": match stated.kind {
            CloneKind::SameCounters => "same counters",
            CloneKind::BrokenLink => "broken link",
        },
        "sequences": stated.sequences,
        "signed_hashes": stated.signed_hashes.map(hex::encode),
    })
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}
