//! An authority, an enrolled device, and an envelope key: what every test here starts from.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{
    CertificateAuthority, DeviceCertificate, DeviceId, KeyEpoch, RecipientKey, SubjectPseudonym,
    default_backend, new_device_key_and_csr,
};
use vitalseal_device::DeviceIdentity;

/// The instant at which all of this happens: certificates are issued and checked at it.
///
/// TLS checks the server's certificate against the real clock, so tests of TLS take their own.
pub(crate) const NOW_S: i64 = 1_767_312_000;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW_S).unwrap()
}

pub(crate) fn device() -> DeviceId {
    "monitor-001".parse().unwrap()
}

pub(crate) fn subject() -> SubjectPseudonym {
    "pd4e9ab304d4896f9e17fd8f0816496da".parse().unwrap()
}

pub(crate) fn authority(now: Timestamp) -> CertificateAuthority {
    let new = CertificateAuthority::create(now).unwrap();
    CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    )
    .unwrap()
}

pub(crate) fn enrol(
    authority: &CertificateAuthority,
    now: Timestamp,
) -> (Arc<DeviceIdentity>, DeviceCertificate) {
    let (key_pem, csr_pem) = new_device_key_and_csr(&device()).unwrap();
    let issued = authority.issue_device(&csr_pem, &device(), now).unwrap();
    let identity = DeviceIdentity::from_pem(key_pem, issued.pem, authority.bundle_pem()).unwrap();
    (Arc::new(identity), issued.certificate)
}

pub(crate) fn recipient(authority: &CertificateAuthority, now: Timestamp) -> RecipientKey {
    let until = now + SignedDuration::from_hours(24);
    authority
        .issue_recipient(KeyEpoch(0), now, until, default_backend())
        .unwrap()
}
