//! Whether a stored message is what its device signed, decided without any patient's key.
//!
//! Time: a certificate that expired, or was revoked, after the device signed vouches for what was signed before. When that
//! was, the device says (`issued_at`, signed); its clock is not ours to set, so the moment when the server took the
//! message, which is our own clock's, will do as well. Whether a device was revoked is asked when its message comes in,
//! and never again.
//!
//! What never stands here: keys, readings, and where messages are stored.

use std::collections::HashMap;
use std::sync::OnceLock;

use jiff::Timestamp;
use vitalseal_crypto::{
    AtRest, CertificateError, DeviceCertificate, Rejection, Thumbprint, default_backend,
};

use crate::registry::RegistryError;
use crate::store::Store;

/// The certificates of every device that was ever enrolled, and the authorities that may have issued them.
pub(crate) struct Signatures {
    devices: HashMap<Thumbprint, Vouched>,
    authorities: Vec<Vec<u8>>,
}

/// A certificate, and whether an authority vouched for it when its validity began: found out once, when first needed.
struct Vouched {
    certificate: DeviceCertificate,
    issued: OnceLock<Result<(), CertificateError>>,
}

/// Why a stored message proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureFault {
    /// The certificate that it names is not in the registry, or is damaged there.
    #[error("it is signed under the certificate {0}, and no sound one of that name is registered")]
    UnknownCertificate(Thumbprint),
    /// The certificate is in the registry, and no authority issued it.
    #[error("the certificate that it is signed under: {0}")]
    Certificate(CertificateError),
    /// The certificate was valid neither when the device signed, by its own clock, nor when the message came in.
    #[error("the certificate that it is signed under was not valid then")]
    NotValidThen,
    /// The signature does not hold.
    #[error("{0}")]
    Envelope(Rejection),
}

impl Signatures {
    /// Every device's certificate in the registry. `authorities` (DER) are whom to trust; without any, the registry is
    /// believed.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn load(
        store: &Store,
        authorities: &[Vec<u8>],
    ) -> Result<Self, RegistryError> {
        let certificates = store.registry.device_certificates().await?;
        Ok(Self::new(certificates, authorities))
    }

    fn new(certificates: Vec<DeviceCertificate>, authorities: &[Vec<u8>]) -> Self {
        let vouched = |certificate: DeviceCertificate| {
            let issued = OnceLock::new();
            let name = *certificate.thumbprint();
            (
                name,
                Vouched {
                    certificate,
                    issued,
                },
            )
        };
        Self {
            devices: certificates.into_iter().map(vouched).collect(),
            authorities: authorities.to_vec(),
        }
    }

    /// Checks the device's signature on a stored message that came in at `received_at`.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub(crate) fn verify(
        &self,
        envelope: &AtRest,
        received_at: Timestamp,
    ) -> Result<(), SignatureFault> {
        let signer = envelope.signer();
        let vouched = self
            .devices
            .get(signer)
            .ok_or(SignatureFault::UnknownCertificate(*signer))?;
        let certificate = &vouched.certificate;
        (*vouched.issued.get_or_init(|| self.issued(certificate)))
            .map_err(SignatureFault::Certificate)?;
        let valid = |at| certificate.not_before() <= at && at <= certificate.not_after();
        if !valid(envelope.header().issued_at) && !valid(received_at) {
            return Err(SignatureFault::NotValidThen);
        }
        envelope
            .verify(certificate, default_backend())
            .map_err(SignatureFault::Envelope)
    }

    fn issued(&self, certificate: &DeviceCertificate) -> Result<(), CertificateError> {
        if self.authorities.is_empty() {
            return Ok(());
        }
        let trusted: Vec<_> = self.authorities.iter().map(Vec::as_slice).collect();
        let began = certificate.not_before();
        certificate.verify_chain(&trusted, &[], began, default_backend())
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use vitalseal_crypto::{
        Agreement, CertificateAuthority, ContentType, DeviceId, DeviceSigner, Kek, KeyEpoch,
        NoSenderKeys, Received, RecipientKeyRing, SealRequest, SubjectPseudonym,
        new_device_key_and_csr, seal,
    };

    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn began() -> Timestamp {
        "2026-05-04T03:02:01Z".parse().unwrap()
    }

    fn authority() -> CertificateAuthority {
        let new = CertificateAuthority::create(began()).unwrap();
        let (issuing, root) = (&new.issuing_cert_pem, &new.root_cert_pem);
        CertificateAuthority::open(&new.issuing_key_pem, issuing, root).unwrap()
    }

    /// A stored message of a new device, which says that it sealed it `age` after its certificate began.
    fn stored(
        authority: &CertificateAuthority,
        age: SignedDuration,
    ) -> (DeviceCertificate, AtRest) {
        let (backend, now) = (default_backend(), began());
        let device: DeviceId = "monitor-1".parse().unwrap();
        let (key, csr) = new_device_key_and_csr(&device).unwrap();
        let issued = authority.issue_device(&csr, &device, now).unwrap();
        let recipient = authority
            .issue_recipient(KeyEpoch(1), now, now + DAY, backend)
            .unwrap();
        let subject = SubjectPseudonym::random(backend).unwrap();
        let request = SealRequest {
            content_type: ContentType::SenmlCbor,
            device: &device,
            subject: &subject,
            issued_at: now + age,
            boot: 1,
            sequence: 0,
            previous: None,
        };
        let signer = DeviceSigner::from_pkcs8_pem(&key, &issued.pem).unwrap();
        let to = recipient.certificate().clone();
        let sealed = seal(
            &request,
            b"any",
            &to,
            Agreement::Ephemeral,
            &signer,
            backend,
        )
        .unwrap();
        let opened = Received::decode(&sealed.bytes)
            .unwrap()
            .verify(&issued.certificate, backend)
            .unwrap()
            .open(
                &RecipientKeyRing::new(vec![recipient]),
                &NoSenderKeys,
                backend,
            )
            .unwrap();
        let stored = opened.rewrap(&Kek::generate(backend).unwrap(), backend);
        (issued.certificate, stored.unwrap())
    }

    #[test]
    fn a_message_is_believed_under_a_registered_certificate_of_the_authority_and_no_other() {
        let (authority, stranger) = (authority(), authority());
        let trusted = |authority: &CertificateAuthority| {
            [authority.issuing_der(), authority.root_der()].map(<[u8]>::to_vec)
        };
        let (certificate, message) = stored(&authority, SignedDuration::ZERO);
        let (other, _) = stored(&authority, SignedDuration::ZERO);
        let verify = |certificates: &[&DeviceCertificate], authorities: &[Vec<u8>]| {
            let certificates = certificates.iter().map(|one| (*one).clone()).collect();
            Signatures::new(certificates, authorities).verify(&message, began())
        };
        assert_eq!(
            verify(&[&other, &certificate], &trusted(&authority)),
            Ok(())
        );
        assert_eq!(verify(&[&certificate], &[]), Ok(()));
        assert_eq!(
            verify(&[&certificate], &trusted(&stranger)),
            Err(SignatureFault::Certificate(CertificateError::ForeignIssuer))
        );
        assert_eq!(
            verify(&[&other], &trusted(&authority)),
            Err(SignatureFault::UnknownCertificate(
                *certificate.thumbprint()
            ))
        );
    }

    #[test]
    fn a_changed_message_is_no_longer_its_devices() {
        let authority = authority();
        let (certificate, message) = stored(&authority, SignedDuration::ZERO);
        let signatures = Signatures::new(vec![certificate], &[]);
        let mut bytes = message.into_bytes();
        // The recipient takes some 70 bytes at the end; before it lies the ciphertext.
        let at = bytes.len() - 80;
        bytes[at] ^= 1;
        let changed = AtRest::decode(&bytes).unwrap();
        assert!(matches!(
            signatures.verify(&changed, began()),
            Err(SignatureFault::Envelope(_))
        ));
    }

    #[test]
    fn a_certificate_vouches_for_the_time_of_its_validity_by_either_clock() {
        let authority = authority();
        let year = 367 * DAY;
        for (signed, received, expected) in [
            (SignedDuration::ZERO, year, Ok(())),
            (-DAY, DAY, Ok(())),
            (year, DAY, Ok(())),
            (-DAY, year, Err(SignatureFault::NotValidThen)),
            (year, year, Err(SignatureFault::NotValidThen)),
        ] {
            let (certificate, message) = stored(&authority, signed);
            let signatures = Signatures::new(vec![certificate], &[]);
            let found = signatures.verify(&message, began() + received);
            assert_eq!(found, expected, "{signed} {received}");
        }
    }
}
