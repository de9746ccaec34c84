//! New keys for old ones: everything stays readable, and an erasure takes the retired ones along.

use vitalseal_crypto::{CertificateAuthority, KeyEpoch, Kid, default_backend};

use super::*;
use crate::keys::KeyError;
use crate::registry::{PatientState, RegistryError};

async fn kids(store: &Store, subject: &SubjectPseudonym) -> Vec<Kid> {
    let keys = store.keys.patient_keys(subject).await.unwrap().unwrap();
    keys.all().map(|kek| kek.kid().clone()).collect()
}

#[tokio::test]
async fn a_rotated_patient_key_opens_old_and_new_and_dies_whole() {
    let site = Site::new();
    let store = site.create().await;
    let (ada, grace) = (patient(&store).await, patient(&store).await);
    let before = store.keys.patient_keys(&ada).await.unwrap().unwrap();
    let old = before.current().seal(b"test", b"under the first").unwrap();
    let first = store.registry.rotate_kek(&ada, at(1)).await.unwrap();
    let second = store.registry.rotate_kek(&ada, at(2)).await.unwrap();
    assert_eq!(first.current, second.retired);

    store.close().await;
    let store = site.open().await.unwrap();
    let keys = store.keys.patient_keys(&ada).await.unwrap().unwrap();
    assert_eq!(*keys.current().kid(), second.current);
    let oldest = keys.find(&first.retired).unwrap();
    assert_eq!(*oldest.open(b"test", &old).unwrap(), b"under the first");
    let identity = store
        .registry
        .patient(&ada)
        .await
        .unwrap()
        .unwrap()
        .identity;
    assert_eq!(identity.unwrap().mrn.as_deref(), Some("MRN-0042"));
    let status = store.keys.status().await.unwrap();
    assert_eq!((status.keks, status.keks_retired), (4, 2));

    let copy = site.power_cut();
    let erased = store.keys.erase(&ada, "e", at(3)).await.unwrap();
    assert_eq!(erased.kek_kids[0], second.current);
    let mut gone = erased.kek_kids.clone();
    gone.sort();
    let mut all = vec![first.retired, first.current, second.current];
    all.sort();
    assert_eq!(gone, all);
    assert_eq!(erased.keks_rewrapped, 1, "the other patient's");
    assert_eq!(kids(&store, &grace).await.len(), 1);
    assert_eq!(store.keys.erasure("e").await.unwrap(), Some(erased));
    // The copy knows the retired keys; the root that led to them is gone.
    fs::remove_dir_all(copy.roots_dir()).unwrap();
    copy_tree(&site.roots_dir(), &copy.roots_dir());
    assert!(copy.open().await.is_err());
}

#[tokio::test]
async fn a_patient_who_is_not_there_gets_no_key_by_rotation() {
    let site = Site::new();
    let store = site.create().await;
    let ada = patient(&store).await;
    let stranger = SubjectPseudonym::random(store.keys.backend()).unwrap();
    let refused = store.registry.rotate_kek(&stranger, at(1)).await;
    assert!(matches!(refused, Err(RegistryError::UnknownPatient(_))));
    store.keys.erase(&ada, "e", at(2)).await.unwrap();
    let refused = store.registry.rotate_kek(&ada, at(3)).await;
    assert!(matches!(refused, Err(RegistryError::PatientErased(_))));
    assert!(store.keys.patient_keys(&ada).await.unwrap().is_none());
    let tombstone = store.registry.patient(&ada).await.unwrap().unwrap();
    assert_eq!(tombstone.state, PatientState::Erased);
}

/// Whoever loads keys while they rotate gets a whole set, and after the rotation nobody is given the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_loaded_during_rotations_always_hold_the_current_one() {
    let site = Site::new();
    let store = site.create().await;
    let ada = patient(&store).await;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, ada) = (store.clone(), ada.clone());
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < 20 {
                    seen = kids(&store, &ada).await.len();
                    // What is in memory is never waited for, and the runtime has others to serve.
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for n in 0..20 {
        let rotation = store.registry.rotate_kek(&ada, at(n)).await.unwrap();
        assert_eq!(kids(&store, &ada).await[0], rotation.current);
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn an_envelope_key_that_is_destroyed_opens_nothing_even_if_the_next_one_resists() {
    let site = Site::new();
    let store = site.create().await;
    let made = CertificateAuthority::create(at(0)).unwrap();
    let (key, cert, root) = (
        &made.issuing_key_pem,
        &made.issuing_cert_pem,
        &made.root_cert_pem,
    );
    let authority = CertificateAuthority::open(key, cert, root).unwrap();
    let mut kids = Vec::new();
    for epoch in [KeyEpoch(1), KeyEpoch(2)] {
        let key = authority.issue_recipient(epoch, at(0), at(100), default_backend());
        let key = key.unwrap();
        let put = store.keys.put_recipient(&key, epoch, at(0), at(100));
        put.await.unwrap();
        kids.push((epoch, key.kid().clone()));
    }
    let ring = store.keys.recipient_ring().await.unwrap();
    assert!(kids.iter().all(|(_, kid)| ring.find(kid).is_some()));

    // A directory in the place of the second cover cannot be overwritten.
    let cover = site.roots_dir().join("recipient-2.key");
    let away = site.dir.path().join("away");
    fs::rename(&cover, &away).unwrap();
    fs::create_dir(&cover).unwrap();
    let ended = store.keys.destroy_recipients_ended_before(at(101)).await;
    assert!(matches!(ended, Err(KeyError::Root(_))), "{ended:?}");
    fs::remove_dir(&cover).unwrap();
    fs::rename(&away, &cover).unwrap();
    let ring = store.keys.recipient_ring().await.unwrap();
    assert!(ring.find(&kids[0].1).is_none() && ring.find(&kids[1].1).is_some());

    // Both ends are told, the first one although it had come before.
    let ended = store.keys.destroy_recipients_ended_before(at(101)).await;
    assert_eq!(ended.unwrap(), kids);
    let ring = store.keys.recipient_ring().await.unwrap();
    assert!(kids.iter().all(|(_, kid)| ring.find(kid).is_none()));
}
