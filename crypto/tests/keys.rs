//! The key tree: what is wrapped comes back under its own key only, and nothing secret prints.
#![cfg(feature = "authority")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests argue with unwrap"
)]

mod common;

use common::{Site, later, now};
use vitalseal_crypto::{
    Agreement, CertificateAuthority, Kek, KeyEpoch, KeyError, NoSenderKeys, PageKey, PatientKeys,
    Received, RootKey, SessionKey, danger, default_backend,
};

#[test]
fn the_tree_is_climbed_from_the_root_down() {
    let backend = default_backend();
    let root = RootKey::generate(KeyEpoch(4), backend).unwrap();
    let page = PageKey::generate(backend).unwrap();
    let kek = Kek::generate(backend).unwrap();
    assert_eq!(kek.kid().as_bytes().len(), 16);
    let (wrapped_page, wrapped_kek) =
        (root.wrap_page(&page).unwrap(), page.wrap_kek(&kek).unwrap());
    let name = kek.seal(b"patient 1", b"Ada").unwrap();

    let kept = danger::root_key_to_bytes(&root);
    let root = danger::root_key_from_bytes(KeyEpoch(4), kept.as_slice()).unwrap();
    assert_eq!(root.epoch(), KeyEpoch(4));
    let page = root.unwrap_page(&wrapped_page).unwrap();
    let kek = page.unwrap_kek(kek.kid().clone(), &wrapped_kek).unwrap();
    assert_eq!(*kek.open(b"patient 1", &name).unwrap(), b"Ada");

    let next = RootKey::generate(KeyEpoch(5), backend).unwrap();
    assert_eq!(
        next.unwrap_page(&wrapped_page).unwrap_err(),
        KeyError::Unwrap,
        "after an erasure"
    );
    assert_eq!(
        root.unwrap_page(&wrapped_page[1..]).unwrap_err(),
        KeyError::Malformed
    );
    assert_eq!(
        danger::root_key_from_bytes(KeyEpoch(4), &kept[1..]).unwrap_err(),
        KeyError::Malformed
    );
}

#[test]
fn a_patient_has_the_current_key_and_those_before_it() {
    let backend = default_backend();
    let draw = || Kek::generate(backend).unwrap();
    let keys = PatientKeys::new(draw(), vec![draw(), draw()]);
    let kids: Vec<_> = keys.all().map(|kek| kek.kid().clone()).collect();
    assert_eq!(kids.len(), 3);
    assert_eq!(kids[0], *keys.current().kid());
    for kid in &kids {
        assert_eq!(keys.find(kid).unwrap().kid(), kid);
    }
    assert!(keys.find(draw().kid()).is_none());
}

/// The place, the key, the purpose and every bit are bound.
#[test]
fn sealed_bytes_know_their_place() {
    let backend = default_backend();
    let page = PageKey::generate(backend).unwrap();
    let kek = Kek::generate(backend).unwrap();
    let sealed = kek.seal(b"patient 1", b"Ada").unwrap();
    assert_eq!(sealed.len(), 1 + 12 + 3 + 16);
    assert_ne!(
        sealed,
        kek.seal(b"patient 1", b"Ada").unwrap(),
        "the IV is new each time"
    );
    assert_eq!(kek.open(b"patient 2", &sealed).unwrap_err(), KeyError::Open);
    let other = Kek::generate(backend).unwrap();
    assert_eq!(
        other.open(b"patient 1", &sealed).unwrap_err(),
        KeyError::Open
    );
    for bit in 8..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            kek.open(b"patient 1", &changed).unwrap_err(),
            KeyError::Open
        );
    }
    for length in 0..sealed.len() {
        assert!(kek.open(b"patient 1", &sealed[..length]).is_err());
    }
    assert_eq!(
        kek.open(b"patient 1", &[&[2], &sealed[1..]].concat())
            .unwrap_err(),
        KeyError::Malformed
    );

    // A page key with the same bytes as a KEK would still not open what the KEK sealed.
    let bytes = [7; 32];
    let kek = danger::kek_from_bytes(kek.kid().clone(), &bytes);
    let root = danger::root_key_from_bytes(KeyEpoch(0), &bytes).unwrap();
    let same = root
        .unwrap_page(&default_backend().wrap(&bytes, &bytes).unwrap())
        .unwrap();
    assert_eq!(
        same.open(b"x", &kek.seal(b"x", b"Ada").unwrap())
            .unwrap_err(),
        KeyError::Open
    );
    assert!(
        page.open(b"tls", &page.seal(b"tls", b"").unwrap())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_recipient_key_survives_storage_and_belongs_to_its_certificate() {
    let site = Site::new();
    let backend = default_backend();
    let issue = |epoch| {
        site.authority
            .issue_recipient(KeyEpoch(epoch), now(), later(now(), 1), backend)
            .unwrap()
    };
    let (one, two) = (issue(1), issue(2));
    assert_ne!(one.kid(), two.kid());
    assert_eq!(
        one.kid().as_bytes(),
        &backend.sha256(&[one.certificate().der()])[..8]
    );
    let cover = RootKey::generate(KeyEpoch(1), backend).unwrap();
    let wrapped = cover.wrap_recipient(&one).unwrap();
    let again = cover
        .unwrap_recipient(&wrapped, one.certificate().clone())
        .unwrap();
    assert_eq!(again.kid(), one.kid());
    assert_eq!(
        cover
            .unwrap_recipient(&wrapped, two.certificate().clone())
            .unwrap_err(),
        KeyError::Mismatch
    );
    let another = RootKey::generate(KeyEpoch(1), backend).unwrap();
    assert_eq!(
        another
            .unwrap_recipient(&wrapped, one.certificate().clone())
            .unwrap_err(),
        KeyError::Unwrap
    );
}

#[test]
fn nothing_secret_prints() {
    let site = Site::new();
    let backend = default_backend();
    let recipient = site
        .authority
        .issue_recipient(KeyEpoch(1), now(), later(now(), 1), backend)
        .unwrap();
    let blank = |value: &dyn std::fmt::Debug, name: &str| {
        assert_eq!(format!("{value:?}"), format!("{name} {{ .. }}"));
        assert_eq!(format!("{value:#?}"), format!("{name} {{ .. }}"));
    };
    blank(&RootKey::generate(KeyEpoch(1), backend).unwrap(), "RootKey");
    blank(&PageKey::generate(backend).unwrap(), "PageKey");
    blank(&Kek::generate(backend).unwrap(), "Kek");
    blank(&SessionKey::generate(backend).unwrap(), "SessionKey");
    blank(&recipient, "RecipientKey");
    blank(&site.ring, "RecipientKeyRing");
    blank(&site.signer, "DeviceSigner");
    blank(&site.authority, "CertificateAuthority");
    blank(
        &CertificateAuthority::create(now()).unwrap(),
        "NewAuthority",
    );
    blank(
        &site.authority.issue_server(&["localhost"], now()).unwrap(),
        "ServerIdentity",
    );

    let wire = site
        .seal(b"top secret", Agreement::Ephemeral, backend)
        .bytes;
    let received = Received::decode(&wire).unwrap();
    let short = "message: MessageId { device: DeviceId(monitor-007), boot: 3, sequence: 14 }, ..";
    assert_eq!(format!("{received:?}"), format!("Received {{ {short} }}"));
    let verified = received.verify(&site.certificate, backend).unwrap();
    assert_eq!(format!("{verified:?}"), format!("Verified {{ {short} }}"));
    let opened = verified.open(&site.ring, &NoSenderKeys, backend).unwrap();
    assert_eq!(format!("{opened:?}"), format!("Opened {{ {short} }}"));
    let stored = opened
        .rewrap(&Kek::generate(backend).unwrap(), backend)
        .unwrap();
    assert_eq!(format!("{stored:?}"), format!("AtRest {{ {short} }}"));
}
