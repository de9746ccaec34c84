//! Certificates, as anyone can present them in a TLS handshake or an enrolment, in DER or PEM.

use jiff::Timestamp;
use serde_json::Value;
use std::sync::LazyLock;
use vitalseal_crypto::{
    DeviceCertificate, RecipientCertificate, certificates_in_pem, rust_crypto, verify_authority,
};

/// A certificate is of one kind at most, is the bytes it was read from, and survives PEM. What the vectors' authority
/// signed is the vectors' device.
pub fn parse(bytes: &[u8]) -> bool {
    let mut taken = one(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        for der in certificates_in_pem(text).unwrap_or_default() {
            taken |= one(&der);
        }
        if let Ok(first) = DeviceCertificate::from_pem(text) {
            assert!(certificates_in_pem(text).is_ok_and(|all| all[0] == first.der()));
        }
    }
    taken
}

fn one(der: &[u8]) -> bool {
    let (device, recipient) = (
        DeviceCertificate::from_der(der),
        RecipientCertificate::from_der(der),
    );
    assert!(
        device.is_err() || recipient.is_err(),
        "a certificate passes for both kinds"
    );
    let now = Timestamp::from_second(1_767_312_000).expect("within the calendar");
    let known = &*KNOWN;
    if let Ok(device) = &device {
        assert!(device.der() == der);
        assert!(DeviceCertificate::from_pem(&device.to_pem()).as_ref() == Ok(device));
        if device
            .verify_issued_by(&known.authority, now, rust_crypto())
            .is_ok()
        {
            assert!(
                device.device() == known.device.device()
                    && device.public_key() == known.device.public_key(),
                "an authority's signature verifies over what it never signed"
            );
        }
    }
    if let Ok(recipient) = &recipient {
        assert!(recipient.der() == der);
        assert!(RecipientCertificate::from_pem(&recipient.to_pem()).as_ref() == Ok(recipient));
        assert!(
            recipient
                .verify_issued_by(&known.authority, now, rust_crypto())
                .is_err(),
            "the vectors' authority never issued a recipient certificate"
        );
    }
    // As an issuer, as a root, and below a real one.
    let issues = known
        .device
        .verify_issued_by(der, now, rust_crypto())
        .is_ok();
    let is_root = verify_authority(der, der, now, rust_crypto()).is_ok();
    let is_below = verify_authority(der, &known.authority, now, rust_crypto()).is_ok();
    let is_authority = issues || is_root || is_below;
    let is_leaf = device.is_ok() || recipient.is_ok();
    assert!(
        !(is_leaf && is_authority),
        "an end entity passes for an authority"
    );
    is_leaf || is_authority
}

struct Known {
    authority: Vec<u8>,
    device: DeviceCertificate,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let file: Value =
        serde_json::from_str(include_str!("../../crypto/tests/vectors/envelope.json")).unwrap();
    let der = |field: &str| hex::decode(file[field].as_str().unwrap()).unwrap();
    Known {
        authority: der("ca_certificate_der"),
        device: DeviceCertificate::from_der(&der("device_certificate_der")).unwrap(),
    }
});
