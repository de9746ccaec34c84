//! The key tree: what is wrapped comes back under its own key only.
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
    Kek, KeyEpoch, KeyError, PageKey, PatientKeys, RootKey, danger, default_backend,
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
    assert!(
        page.open(b"tls", &page.seal(b"tls", b"").unwrap())
            .unwrap()
            .is_empty()
    );
}

/// A paper sealed under the root opens under that root, in that place, and under no key of another kind.
#[test]
fn each_kind_of_key_opens_its_own_seals_even_where_the_bytes_are_the_same() {
    let backend = default_backend();
    let bytes = [7; 32];
    let root = danger::root_key_from_bytes(KeyEpoch(0), &bytes).unwrap();
    let kek =
        danger::test_doors::kek_from_bytes(Kek::generate(backend).unwrap().kid().clone(), &bytes);
    let page = root
        .unwrap_page(&backend.wrap(&bytes, &bytes).unwrap())
        .unwrap();
    let of_root = root.seal(b"snapshot", b"keys").unwrap();
    assert_eq!(*root.open(b"snapshot", &of_root).unwrap(), b"keys");
    assert_eq!(root.open(b"backup", &of_root).unwrap_err(), KeyError::Open);
    assert_eq!(
        root.open(b"snapshot", &of_root[..12]).unwrap_err(),
        KeyError::Malformed
    );
    let of_page = page.seal(b"snapshot", b"keys").unwrap();
    let of_kek = kek.seal(b"snapshot", b"keys").unwrap();
    let open: [&dyn Fn(&[u8]) -> _; 3] = [
        &|sealed| root.open(b"snapshot", sealed),
        &|sealed| page.open(b"snapshot", sealed),
        &|sealed| kek.open(b"snapshot", sealed),
    ];
    for (of, sealed) in [of_root, of_page, of_kek].iter().enumerate() {
        for (by, open) in open.iter().enumerate() {
            assert_eq!(open(sealed).is_ok(), of == by, "seal {of}, key {by}");
        }
    }
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
