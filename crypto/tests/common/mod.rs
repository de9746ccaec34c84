//! A site, a device and a patient to test with.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::cell::RefCell;
use std::collections::HashMap;

use jiff::Timestamp;
use p256::pkcs8::EncodePrivateKey as _;
use vitalseal_crypto::{
    Agreement, Backend, CertificateAuthority, ContentType, DeviceCertificate, DeviceId,
    DeviceSigner, KeyEpoch, Opened, P256Point, RecipientCertificate, RecipientKeyRing, SealRequest,
    SealedMessage, SenderKeyId, SenderKeys, SubjectPseudonym, new_device_key_and_csr, seal,
};

pub fn backends() -> Vec<&'static dyn Backend> {
    vec![
        vitalseal_crypto::rust_crypto(),
        #[cfg(feature = "aws-lc")]
        vitalseal_crypto::aws_lc(),
    ]
}

pub fn now() -> Timestamp {
    "2026-05-04T03:02:01Z".parse().unwrap()
}

pub fn later(from: Timestamp, days: i64) -> Timestamp {
    from + jiff::SignedDuration::from_hours(24 * days)
}

pub struct Site {
    pub authority: CertificateAuthority,
    pub signer: DeviceSigner,
    pub certificate: DeviceCertificate,
    pub recipient: RecipientCertificate,
    pub ring: RecipientKeyRing,
    pub subject: SubjectPseudonym,
}

impl Site {
    pub fn new() -> Self {
        let backend = vitalseal_crypto::default_backend();
        let authority = authority();
        let device: DeviceId = "monitor-007".parse().unwrap();
        let (key, csr) = new_device_key_and_csr(&device).unwrap();
        let issued = authority.issue_device(&csr, &device, now()).unwrap();
        let recipient = authority
            .issue_recipient(KeyEpoch(1), now(), later(now(), 1), backend)
            .unwrap();
        Self {
            authority,
            signer: DeviceSigner::from_pkcs8_pem(&key, &issued.pem).unwrap(),
            certificate: issued.certificate,
            recipient: recipient.certificate().clone(),
            ring: RecipientKeyRing::new(vec![recipient]),
            subject: SubjectPseudonym::random(backend).unwrap(),
        }
    }

    pub fn request(&self) -> SealRequest<'_> {
        SealRequest {
            content_type: ContentType::SenmlCbor,
            device: self.signer.device(),
            subject: &self.subject,
            issued_at: now(),
            boot: 3,
            sequence: 14,
            previous: None,
        }
    }

    pub fn seal(
        &self,
        payload: &[u8],
        agreement: Agreement<'_>,
        backend: &dyn Backend,
    ) -> SealedMessage {
        seal(
            &self.request(),
            payload,
            &self.recipient,
            agreement,
            &self.signer,
            backend,
        )
        .unwrap()
    }
}

pub fn authority() -> CertificateAuthority {
    let new = CertificateAuthority::create(now()).unwrap();
    CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    )
    .unwrap()
}

/// The session keys that opened messages carried in full.
#[derive(Default)]
pub struct Met(RefCell<HashMap<(DeviceId, SenderKeyId), P256Point>>);

impl Met {
    pub fn meet(&self, opened: &Opened) {
        if let Some((id, key)) = opened.introduced_sender() {
            let device = opened.header().device.clone();
            self.0.borrow_mut().insert((device, id), key);
        }
    }
}

impl SenderKeys for Met {
    fn find(&self, device: &DeviceId, id: &SenderKeyId) -> Option<P256Point> {
        self.0.borrow().get(&(device.clone(), *id)).copied()
    }
}

/// A certificate for an envelope key that is given as a scalar, as vectors give it.
pub fn recipient_certificate(scalar: &[u8]) -> RecipientCertificate {
    let der = p256::SecretKey::from_slice(scalar)
        .unwrap()
        .to_pkcs8_der()
        .unwrap();
    let key = rcgen::KeyPair::try_from(der.as_bytes()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement];
    RecipientCertificate::from_der(params.self_signed(&key).unwrap().der()).unwrap()
}
