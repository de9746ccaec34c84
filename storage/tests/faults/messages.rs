//! What devices send, sealed once and kept in a directory, so that every process admits the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use vitalseal_crypto::{
    Agreement, AtRest, CertificateAuthority, ContentType, DeviceId, DeviceSigner, KeyEpoch,
    NoSenderKeys, Received, RecipientCertificate, SealRequest, SealedMessage, SubjectPseudonym,
    default_backend, new_device_key_and_csr, seal,
};
use vitalseal_storage::Admission;
use vitalseal_storage::Store;
use vitalseal_storage::inbox::Required;
use vitalseal_vitals::{Reading, senml, signal};

use crate::site::at;

/// Devices; each sends a chain.
pub(crate) const DEVICES: usize = 3;
/// Messages that every device sent before the operation.
pub(crate) const BEFORE: u64 = 3;
/// Messages of every device in all.
pub(crate) const ALL: u64 = 6;

/// A directory of at-rest envelopes, `<device>-<sequence>`, and one that contradicts another of them, `fork`.
pub(crate) struct Messages {
    pub(crate) dir: PathBuf,
}

/// What a message says: a heart rate that is this message's alone.
pub(crate) fn payload(device: usize, sequence: u64) -> Vec<u8> {
    let value = 50 + 10 * u32::try_from(device).unwrap() + u32::try_from(sequence).unwrap();
    senml::encode(&[Reading {
        signal: signal("8867-4").unwrap(),
        value: value.into(),
        at: at(5),
    }])
}

pub(crate) fn device(n: usize) -> DeviceId {
    format!("monitor-{n}").parse().unwrap()
}

impl Messages {
    /// Enrols the devices and seals what they send, each message naming the one before it.
    pub(crate) async fn seal(
        dir: &Path,
        store: &Store,
        patient: &SubjectPseudonym,
    ) -> (Self, CertificateAuthority) {
        fs::create_dir(dir).unwrap();
        let (authority, backend) = (authority(), default_backend());
        let recipient = authority
            .issue_recipient(KeyEpoch(0), at(0), at(86_400), backend)
            .unwrap();
        let keys = &store.keys;
        keys.put_recipient(&recipient, KeyEpoch(0), at(0), at(86_400))
            .await
            .unwrap();
        let certificate =
            RecipientCertificate::from_pem(&recipient.certificate().to_pem()).unwrap();
        let ring = keys.recipient_ring().await.unwrap();
        let kek = keys.patient_keys(patient).await.unwrap().unwrap();
        for n in 0..DEVICES {
            let device = device(n);
            let (key_pem, csr) = new_device_key_and_csr(&device).unwrap();
            let issued = authority.issue_device(&csr, &device, at(0)).unwrap();
            let registry = &store.registry;
            registry
                .enroll_device(&issued.certificate, at(1))
                .await
                .unwrap();
            let signer = DeviceSigner::from_pkcs8_pem(&key_pem, &issued.pem).unwrap();
            let sealed = |sequence, previous, payload: &[u8]| -> SealedMessage {
                let request = SealRequest {
                    content_type: ContentType::SenmlCbor,
                    device: &device,
                    subject: patient,
                    issued_at: at(10),
                    boot: 1,
                    sequence,
                    previous,
                };
                let agreement = Agreement::Ephemeral;
                seal(&request, payload, &certificate, agreement, &signer, backend).unwrap()
            };
            let keep = |name: String, message: &SealedMessage| {
                let received = Received::decode(&message.bytes).unwrap();
                let verified = received.verify(&issued.certificate, backend).unwrap();
                let opened = verified.open(&ring, &NoSenderKeys, backend).unwrap();
                let at_rest = opened.rewrap(kek.current(), backend).unwrap();
                fs::write(dir.join(name), at_rest.as_bytes()).unwrap();
            };
            let mut previous = None;
            for sequence in 1..=ALL {
                let message = sealed(sequence, previous, &payload(n, sequence));
                keep(format!("{n}-{sequence}"), &message);
                if n == 0 && sequence == BEFORE {
                    keep("fork".to_owned(), &sealed(sequence, previous, b"another"));
                }
                previous = Some(message.signed_hash);
            }
        }
        let messages = Self {
            dir: dir.to_path_buf(),
        };
        (messages, authority)
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join(name)).unwrap()
    }

    /// As the pipeline would hand it to the inbox.
    pub(crate) fn admission(&self, name: &str) -> Admission {
        let bytes = self.bytes(name);
        let at_rest = AtRest::decode(&bytes).unwrap();
        let header = at_rest.header();
        Admission {
            message: header.message_id(),
            signed_hash: at_rest.signed_hash(default_backend()),
            previous: header.previous,
            introduced: None,
            subject: header.subject.clone(),
            issued_at: header.issued_at,
            required: Required::default(),
            received_at: at(20),
            first_at: at(5),
            last_at: at(5),
            readings: 1,
            envelope: bytes,
        }
    }
}

/// Names of the messages with these sequences, device by device.
pub(crate) fn names(sequences: std::ops::RangeInclusive<u64>) -> Vec<String> {
    (0..DEVICES)
        .flat_map(|n| {
            sequences
                .clone()
                .map(move |sequence| format!("{n}-{sequence}"))
        })
        .collect()
}

/// A certificate authority.
pub(crate) fn authority() -> CertificateAuthority {
    let made = CertificateAuthority::create(at(0)).unwrap();
    CertificateAuthority::open(
        &made.issuing_key_pem,
        &made.issuing_cert_pem,
        &made.root_cert_pem,
    )
    .unwrap()
}
