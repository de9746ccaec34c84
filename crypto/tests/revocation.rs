//! Revocation lists: what they say, whom they are believed from.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use common::{authority, backends, later, now};
use vitalseal_crypto::{
    CertificateAuthority, CertificateError, DeviceCertificate, DeviceId, RevocationList,
    RevocationReason, RevokedCertificate, default_backend, new_device_key_and_csr,
};

fn certificates(authority: &CertificateAuthority) -> [DeviceCertificate; 2] {
    let device: DeviceId = "monitor-001".parse().unwrap();
    let (_, csr) = new_device_key_and_csr(&device).unwrap();
    [(), ()].map(|()| {
        let issued = authority.issue_device(&csr, &device, now()).unwrap();
        issued.certificate
    })
}

fn entries(authority: &CertificateAuthority) -> [RevokedCertificate; 2] {
    let [gone, held] = certificates(authority);
    let entry = |certificate: &DeviceCertificate, reason| RevokedCertificate {
        serial: certificate.serial().into(),
        at: later(now(), 1),
        reason,
    };
    [
        entry(&gone, RevocationReason::Revoked),
        entry(&held, RevocationReason::OnHold),
    ]
}

#[test]
fn one_key_certified_twice_can_be_revoked_once() {
    let [first, second] = certificates(&authority());
    assert_eq!(first.public_key().as_sec1(), second.public_key().as_sec1());
    assert_ne!(first.serial(), second.serial());
    // RFC 5280 §4.1.2.2: positive, 20 octets at most.
    assert!((1..=20).contains(&first.serial().len()) && first.serial()[0] < 0x80);
}

#[test]
fn a_list_says_what_was_revoked_and_until_when_it_is_of_use() {
    let authority = authority();
    let entries = entries(&authority);
    for revoked in [&entries[..], &entries[1..], &[]] {
        let list = authority.revocation_list(revoked, 1 << 40, now()).unwrap();
        assert_eq!(list.revoked(), revoked);
        assert_eq!(list.number(), 1 << 40);
        assert!(list.this_update() < now() && list.next_update() == later(now(), 7));
        assert!(list.to_pem().starts_with("-----BEGIN X509 CRL-----\n"));
        for backend in backends() {
            let read = RevocationList::from_der(list.der(), authority.issuing_der(), backend);
            assert_eq!(read.unwrap(), list);
        }
    }
}

#[test]
fn a_list_is_believed_from_its_own_authority_alone() {
    let (authority, stranger) = (authority(), authority());
    let list = authority
        .revocation_list(&entries(&authority), 1, now())
        .unwrap();
    let [leaf, _] = certificates(&authority);
    for issuer in [stranger.issuing_der(), authority.root_der(), leaf.der()] {
        let read = RevocationList::from_der(list.der(), issuer, default_backend());
        assert_eq!(read.unwrap_err(), CertificateError::ForeignIssuer);
    }
}

#[test]
fn a_list_with_any_byte_changed_that_was_signed_or_signs_is_not_believed() {
    let authority = authority();
    let list = authority
        .revocation_list(&entries(&authority), 1, now())
        .unwrap();
    // ecdsa-with-SHA256 beside the signature: not signed, and nothing is taken from it (RFC 5280 §5.1.1.2).
    let named = [
        0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
    ];
    let beside = list.der().windows(12).rposition(|bytes| bytes == named);
    let beside = beside.unwrap()..beside.unwrap() + 12;
    for at in (0..list.der().len()).filter(|at| !beside.contains(at)) {
        let mut der = list.der().to_vec();
        der[at] ^= 1 << (at % 8);
        let read = RevocationList::from_der(&der, authority.issuing_der(), default_backend());
        assert!(read.is_err(), "byte {at}");
    }
    let cut = &list.der()[..list.der().len() - 1];
    assert!(RevocationList::from_der(cut, authority.issuing_der(), default_backend()).is_err());
    let longer = [list.der(), &[0]].concat();
    assert!(RevocationList::from_der(&longer, authority.issuing_der(), default_backend()).is_err());
}
