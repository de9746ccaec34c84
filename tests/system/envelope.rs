//! One message in the hands of somebody who has certificates and nothing else: our command and a foreign library.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use vitalseal_crypto::{
    Agreement, CertificateAuthority, ContentType, DeviceId, DeviceSigner, Kek, KeyEpoch,
    NoSenderKeys, Received, RecipientKeyRing, SealRequest, Signed, SubjectPseudonym,
    certificates_in_pem, default_backend, new_device_key_and_csr, seal,
};

use crate::common::VITALSEAL;
use crate::python;

/// A site's certificates and one message in every form, as files.
struct Kit {
    dir: TempDir,
    device: DeviceId,
    subject: SubjectPseudonym,
    /// As it is stored.
    stored: Vec<u8>,
}

impl Kit {
    /// The message is sealed `age` after the device's certificate was issued.
    fn new(age: SignedDuration) -> Self {
        let backend = default_backend();
        let now: Timestamp = "2026-05-04T03:02:01Z".parse().unwrap();
        let new = CertificateAuthority::create(now).unwrap();
        let (issuing, root) = (&new.issuing_cert_pem, &new.root_cert_pem);
        let authority = CertificateAuthority::open(&new.issuing_key_pem, issuing, root).unwrap();
        let tomorrow = now + SignedDuration::from_hours(24);
        let recipient = authority.issue_recipient(KeyEpoch(1), now, tomorrow, backend);
        let recipient = recipient.unwrap();
        let device: DeviceId = "monitor-001".parse().unwrap();
        let (key, csr) = new_device_key_and_csr(&device).unwrap();
        let issued = authority.issue_device(&csr, &device, now).unwrap();
        let subject = SubjectPseudonym::random(backend).unwrap();
        let request = SealRequest {
            content_type: ContentType::SenmlCbor,
            device: &device,
            subject: &subject,
            issued_at: now + age,
            boot: 3,
            sequence: 14,
            previous: Some([7; 32]),
        };
        let signer = DeviceSigner::from_pkcs8_pem(&key, &issued.pem).unwrap();
        let for_today = recipient.certificate().clone();
        let ephemeral = Agreement::Ephemeral;
        let sealed = seal(&request, b"any", &for_today, ephemeral, &signer, backend).unwrap();
        let stored = Received::decode(&sealed.bytes)
            .unwrap()
            .verify(&issued.certificate, backend)
            .unwrap()
            .open(
                &RecipientKeyRing::new(vec![recipient]),
                &NoSenderKeys,
                backend,
            )
            .unwrap()
            .rewrap(&Kek::generate(backend).unwrap(), backend)
            .unwrap()
            .into_bytes();
        let evidence = Signed::decode(&stored).unwrap();
        let kit = Self {
            dir: tempfile::tempdir().unwrap(),
            device,
            subject,
            stored,
        };
        kit.write("ca.pem", authority.bundle_pem().as_bytes());
        kit.write("root.pem", root.as_bytes());
        kit.write("cert.pem", issued.pem.as_bytes());
        kit.write("leaf.pem", issued.certificate.to_pem().as_bytes());
        kit.write("wire", &sealed.bytes);
        kit.write("stored", &kit.stored);
        kit.write("evidence", evidence.as_bytes());
        kit.write(
            "digits",
            format!("\\x{}\n", hex::encode(&kit.stored)).as_bytes(),
        );
        kit
    }

    fn write(&self, name: &str, contents: &[u8]) {
        fs::write(self.dir.path().join(name), contents).unwrap();
    }

    /// The command in the directory of the files.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(VITALSEAL)
            .arg("envelope")
            .args(args)
            .current_dir(self.dir.path())
            .env_remove("VITALSEAL_DATA")
            .output()
            .unwrap()
    }

    fn verify(&self, file: &str, ca: &str, certificate: &str) -> (i32, Value) {
        let args = [
            "verify",
            file,
            "--ca",
            ca,
            "--certificate",
            certificate,
            "--json",
        ];
        let output = self.run(&args);
        let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), said)
    }
}

/// A byte of the ciphertext: the recipient takes some 70 bytes behind it.
fn at_end(stored: &[u8]) -> usize {
    stored.len() - 80
}

#[test]
fn every_form_of_a_message_verifies_under_the_authority_alone_and_says_the_same() {
    let kit = Kit::new(SignedDuration::from_hours(1));
    let mut hashes = Vec::new();
    for (file, form) in [
        ("wire", "wire"),
        ("stored", "at rest"),
        ("digits", "at rest"),
        ("evidence", "evidence"),
    ] {
        for (ca, certificate) in [
            ("ca.pem", "leaf.pem"),
            ("ca.pem", "cert.pem"),
            ("root.pem", "cert.pem"),
        ] {
            let (code, said) = kit.verify(file, ca, certificate);
            assert_eq!((code, &said["verified"]), (0, &json!(true)), "{file} {ca}");
            assert_eq!(said["form"], form);
            assert_eq!(said["device"], kit.device.as_str());
            assert_eq!(said["patient"], kit.subject.as_str());
            assert_eq!(said["issued_at"], "2026-05-04T04:02:01Z");
            assert_eq!((&said["boot"], &said["sequence"]), (&json!(3), &json!(14)));
            assert_eq!(said["previous"], "07".repeat(32));
            hashes.push(said["signed_hash"].clone());
        }
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");

    // Through a pipe, for people.
    let mut piped = Command::new(VITALSEAL)
        .args(["envelope", "verify", "-", "--ca", "ca.pem"])
        .args(["--certificate", "leaf.pem"])
        .current_dir(kit.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(&kit.stored).unwrap();
    let piped = piped.wait_with_output().unwrap();
    let said = String::from_utf8(piped.stdout).unwrap();
    assert!(
        said.contains("verified") && said.contains("monitor-001"),
        "{said}"
    );

    // Any number of them, as they leave a database.
    let line = |bytes: &[u8]| format!("\\x{}\n", hex::encode(bytes));
    let mut forged = kit.stored.clone();
    forged[at_end(&kit.stored)] ^= 1;
    let all = [&kit.stored, &forged, &kit.stored].map(|one| line(one));
    let all = all.join("\n");
    kit.write("many", all.as_bytes());
    let (code, said) = kit.verify("many", "ca.pem", "leaf.pem");
    let verdicts = [0, 1, 2].map(|at| said[at]["verified"].clone());
    assert_eq!((code, verdicts), (1, [true, false, true].map(Value::from)));

    // A foreign library comes to the same.
    let path = |name: &str| kit.dir.path().join(name).to_str().unwrap().to_owned();
    for file in ["wire", "stored", "evidence"] {
        let (file, cert, ca) = (path(file), path("cert.pem"), path("ca.pem"));
        let foreign = python::run("verify.py", &[&file, "--cert", &cert, "--ca", &ca]);
        let said: Value = serde_json::from_slice(&foreign.stdout).unwrap();
        assert_eq!(said["sequence"], 14, "{file}");
    }
}

#[test]
fn what_does_not_hold_exits_with_1_and_what_cannot_be_found_out_with_2() {
    let kit = Kit::new(SignedDuration::from_hours(1));
    let stranger = Kit::new(SignedDuration::from_hours(1));
    for name in ["ca.pem", "root.pem"] {
        let theirs = fs::read(stranger.dir.path().join(name)).unwrap();
        kit.write(&format!("stranger-{name}"), &theirs);
    }
    let mut longer = kit.stored.clone();
    longer.push(0);
    kit.write("longer", &longer);
    kit.write("nothing", b"");
    kit.write("huge", &vec![b'0'; 600 * 1024]);
    kit.write("large", &vec![0xd8; 600 * 1024]);
    for (file, ca, certificate, rule) in [
        ("stored", "stranger-ca.pem", "cert.pem", "certificate"),
        ("stored", "stranger-root.pem", "cert.pem", "certificate"),
        ("stored", "root.pem", "leaf.pem", "certificate"),
        ("longer", "ca.pem", "cert.pem", "shape"),
        ("nothing", "ca.pem", "cert.pem", "shape"),
        ("huge", "ca.pem", "cert.pem", "shape"),
        ("large", "ca.pem", "cert.pem", "shape"),
    ] {
        let (code, said) = kit.verify(file, ca, certificate);
        assert_eq!(code, 1, "{file} {ca} {certificate}: {said}");
        assert_eq!(said["verified"], false);
        assert_eq!(said["rule"], rule, "{file} {ca} {certificate}: {said}");
    }
    for (file, ca, certificate) in [
        ("missing", "ca.pem", "cert.pem"),
        ("stored", "missing", "cert.pem"),
        ("stored", "stored", "cert.pem"),
        ("stored", "ca.pem", "stranger-ca.pem"),
    ] {
        let (code, said) = kit.verify(file, ca, certificate);
        assert_eq!((code, said), (2, Value::Null), "{file} {ca} {certificate}");
    }
    let said = kit.run(&["verify", "stored", "--ca", "ca.pem"]);
    let said = String::from_utf8(said.stderr).unwrap();
    let leaf = fs::read_to_string(kit.dir.path().join("leaf.pem")).unwrap();
    let signer = &certificates_in_pem(&leaf).unwrap()[0];
    let thumbprint = hex::encode(default_backend().sha256(&[signer]));
    assert!(said.contains(&thumbprint), "{said}");
}

#[test]
fn whatever_is_changed_of_what_is_signed_shows_and_looking_believes_nothing() {
    let kit = Kit::new(SignedDuration::from_hours(1));
    let signed = Signed::decode(&kit.stored).unwrap();
    let evidence = signed.as_bytes().to_vec();
    // The IV is not signed: another one only makes the message unreadable.
    let iv = evidence
        .windows(3)
        .position(|at| at == [0xa2, 0x05, 0x4c])
        .unwrap()
        + 3;
    for at in (0..evidence.len())
        .step_by(7)
        .filter(|at| !(iv..iv + 12).contains(at))
    {
        let mut changed = evidence.clone();
        changed[at] ^= 0x10;
        kit.write("changed", &changed);
        let (code, said) = kit.verify("changed", "ca.pem", "cert.pem");
        // Another signer's name is one that was not given.
        assert!(code == 1 || code == 2, "byte {at}: {said}");
    }
    let mut forged = kit.stored.clone();
    let claim = b"monitor-001";
    let at = forged
        .windows(claim.len())
        .position(|bytes| bytes == claim)
        .unwrap();
    forged[at + 10] = b'2';
    kit.write("forged", &forged);
    let (code, said) = kit.verify("forged", "ca.pem", "cert.pem");
    assert_eq!((code, &said["rule"]), (1, &json!("identity")));

    let looked = kit.run(&["inspect", "forged", "--json"]);
    let looked: Value = serde_json::from_slice(&looked.stdout).unwrap();
    assert_eq!(looked["device"], "monitor-002");
    assert_eq!(looked["verified"], Value::Null, "{looked}");
}

#[test]
fn a_certificate_vouches_for_the_time_of_its_validity_only_and_for_that_for_ever() {
    let day = SignedDuration::from_hours(24);
    for (age, code) in [(-day, 1), (day, 0), (364 * day, 0), (367 * day, 1)] {
        let kit = Kit::new(age);
        let (found, said) = kit.verify("stored", "ca.pem", "cert.pem");
        assert_eq!(found, code, "{age}: {said}");
    }
}
