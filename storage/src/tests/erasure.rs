//! Forgetting is final: at every moment that power may fail, and for every copy made before.

use vitalseal_crypto::{DeviceId, KeyEpoch};

use super::*;
use crate::crash::CrashPoint;
use crate::inbox::{InboxError, Judgement, NewQuarantine};
use crate::keys::KeyError;
use crate::ports::QuarantineReason;
use crate::registry::PatientState;

pub(super) struct Ward {
    pub(super) gone: SubjectPseudonym,
    pub(super) stays: SubjectPseudonym,
    /// Something sealed under the KEK of the one who stays.
    keepsake: Vec<u8>,
}

pub(super) async fn ward(store: &Store) -> Ward {
    let (gone, stays) = (patient(store).await, patient(store).await);
    for n in 0..5 {
        store.inbox.admit(admission(&gone, n)).await.unwrap();
        store.inbox.admit(admission(&stays, n + 10)).await.unwrap();
    }
    store.keys.put_secret("tls", b"server key").await.unwrap();
    let keys = store.keys.patient_keys(&stays).await.unwrap().unwrap();
    let keepsake = keys.current().seal(b"test", b"still readable").unwrap();
    Ward {
        gone,
        stays,
        keepsake,
    }
}

/// Everything that must hold once an erasure is over, however it got there.
pub(super) async fn assert_erased(site: &Site, store: &Store, ward: &Ward) {
    assert!(store.keys.patient_keys(&ward.gone).await.unwrap().is_none());
    let row = store.registry.patient(&ward.gone).await.unwrap().unwrap();
    assert_eq!((row.state, row.identity), (PatientState::Erased, None));
    assert_intact(store, ward).await;
    let cut = store.cut(&authorized(&[&ward.gone])).await.unwrap();
    assert_eq!(cut.hot.num_rows(), 0);
    let status = store.keys.status().await.unwrap();
    assert_eq!((status.keks, status.erasures), (1, 1));
    assert_eq!(
        site.root_files(),
        [format!("root-{}.key", status.root_epoch)]
    );
    let ledger = store.keys.erasure_ledger().await.unwrap();
    assert!(
        ledger.len() == 1 && ledger[0].completed_at.is_some(),
        "{ledger:?}"
    );
    assert!(matches!(
        store.inbox.admit(admission(&ward.gone, 77)).await,
        Err(InboxError::Erased(_))
    ));
    assert!(matches!(
        store.keys.erase(&ward.gone, "again", at(9)).await,
        Err(KeyError::AlreadyErased(_))
    ));
}

/// Everybody else and the service go on.
pub(super) async fn assert_intact(store: &Store, ward: &Ward) {
    let keys = store.keys.patient_keys(&ward.stays).await.unwrap().unwrap();
    let opened = keys
        .all()
        .find_map(|kek| kek.open(b"test", &ward.keepsake).ok());
    assert_eq!(opened.unwrap().as_slice(), b"still readable");
    let row = store.registry.patient(&ward.stays).await.unwrap().unwrap();
    assert_eq!(row.identity.unwrap().mrn.as_deref(), Some("MRN-0042"));
    assert_eq!(
        store.keys.secret("tls").await.unwrap().unwrap().as_slice(),
        b"server key"
    );
    let cut = store.cut(&authorized(&[&ward.stays])).await.unwrap();
    assert_eq!(cut.hot.num_rows(), 5);
}

#[tokio::test]
async fn an_erasure_takes_one_patient_and_the_root_that_could_bring_it_back() {
    let site = Site::new();
    let store = site.create().await;
    let ward = ward(&store).await;
    let kid = store
        .keys
        .patient_keys(&ward.gone)
        .await
        .unwrap()
        .unwrap()
        .current()
        .kid()
        .clone();
    let done = store
        .keys
        .erase(&ward.gone, "erasure-1", at(9))
        .await
        .unwrap();
    assert_eq!(
        (done.root_epoch_destroyed, done.root_epoch),
        (KeyEpoch(0), KeyEpoch(1))
    );
    // Service, quarantine and one patient page; the other patient's KEK.
    assert_eq!(
        (
            done.pages_rewrapped,
            done.keks_rewrapped,
            done.kek_kids.clone()
        ),
        (3, 1, vec![kid])
    );
    assert_eq!(
        store.keys.erasure("erasure-1").await.unwrap().as_ref(),
        Some(&done)
    );
    assert_eq!(
        store
            .keys
            .erase(&ward.gone, "erasure-1", at(10))
            .await
            .unwrap(),
        done
    );
    assert_erased(&site, &store, &ward).await;
    store.close().await;
    let store = site.open().await.unwrap();
    assert_erased(&site, &store, &ward).await;
    // The page still takes new patients.
    let next = patient(&store).await;
    assert!(store.keys.patient_keys(&next).await.unwrap().is_some());
}

#[tokio::test]
async fn a_crash_at_any_step_is_finished_or_undone_on_open() {
    for point in [
        CrashPoint::RootCreated,
        CrashPoint::TreeCommitted,
        CrashPoint::InboxPurged,
        CrashPoint::ReadBack,
        CrashPoint::SnapshotWritten,
        CrashPoint::RootDestroyed,
    ] {
        let site = Site::new();
        let store = site.create().await;
        let ward = ward(&store).await;
        store.crash().arm(point);
        assert!(
            store.keys.erase(&ward.gone, "e", at(9)).await.is_err(),
            "{point:?}"
        );
        let copy = site.power_cut();
        let opened = copy.open().await.unwrap();
        if point == CrashPoint::RootCreated {
            // Undone: the patient is there, the unused root wraps nothing, and the next erasure
            // passes it by.
            assert!(
                opened
                    .keys
                    .patient_keys(&ward.gone)
                    .await
                    .unwrap()
                    .is_some()
            );
            assert_intact(&opened, &ward).await;
            assert_eq!(copy.root_files(), ["root-0.key", "root-1.key"]);
            let done = opened.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
            assert_eq!(done.root_epoch, KeyEpoch(2));
            assert_eq!(
                copy.root_files(),
                ["root-2.key"],
                "the root of the failed turn goes too"
            );
        } else {
            assert_erased(&copy, &opened, &ward).await;
        }
        // Nor did the store that only saw an error come to harm: it finishes with the next erasure.
        assert_intact(&store, &ward).await;
    }
}

#[tokio::test]
async fn an_erasure_that_failed_half_way_is_finished_by_the_next_one() {
    let site = Site::new();
    let store = site.create().await;
    let ward = ward(&store).await;
    store.crash().arm(CrashPoint::TreeCommitted);
    assert!(store.keys.erase(&ward.gone, "first", at(9)).await.is_err());
    store.crash().arm(CrashPoint::FlushPlanned);
    store
        .keys
        .erase(&ward.stays, "second", at(10))
        .await
        .unwrap();
    let ledger = store.keys.erasure_ledger().await.unwrap();
    assert!(ledger.len() == 2 && ledger.iter().all(|row| row.completed_at.is_some()));
    assert_eq!(site.root_files(), ["root-2.key"]);
}

#[tokio::test]
async fn a_copy_from_before_the_erasure_opens_nothing_beside_todays_root() {
    let site = Site::new();
    let store = site.create().await;
    let ward = ward(&store).await;
    store.flush(at(30)).await.unwrap();
    let backup = Site::new();
    site.copy_data(&backup);
    store.keys.erase(&ward.gone, "e", at(40)).await.unwrap();

    copy_tree(&site.roots_dir(), &backup.roots_dir());
    let refused = backup.open().await.unwrap_err();
    assert!(
        matches!(
            refused,
            StoreError::RootMissing {
                epoch: KeyEpoch(0),
                ..
            }
        ),
        "{refused:?}"
    );
    let text = chain(&refused);
    for part in [
        "epoch 0",
        "data.root",
        "held there: 1",
        "nothing in the copy can be decrypted",
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert_eq!(
        backup.root_files(),
        ["root-1.key"],
        "the living store's root was touched"
    );

    // Nor by force: today's root, the epoch in the old registry changed to it.
    let db = backup.database().await;
    let unchecked = match &backup.schema {
        Some(_) => "SET session_replication_role = replica",
        None => "PRAGMA foreign_keys = OFF",
    };
    for table in [
        "UPDATE root_epochs SET epoch = 1",
        "UPDATE key_pages SET root_epoch = 1",
    ] {
        let mut conn = db.fresh_connection().await.unwrap();
        sqlx::query(unchecked).execute(&mut conn).await.unwrap();
        sqlx::query(table).execute(&mut conn).await.unwrap();
    }
    let root = backup
        .roots()
        .load(KeySlot::Root(KeyEpoch(1)), &[])
        .unwrap();
    let wraps: Vec<Vec<u8>> = sqlx::query_scalar("SELECT wrapped FROM key_pages")
        .fetch_all(db.pool())
        .await
        .unwrap();
    assert_eq!(wraps.len(), 3);
    assert!(
        wraps
            .iter()
            .all(|wrapped| root.unwrap_page(wrapped).is_err())
    );
    db.close().await;
    assert!(matches!(
        backup.open().await,
        Err(StoreError::Key(KeyError::Crypto(_)))
    ));
}

#[tokio::test]
async fn nothing_of_the_old_tree_in_the_living_directory_opens_under_the_new_root() {
    // Freed pages, the write-ahead log, anything: no 40 bytes anywhere unwrap to the old page of
    // the erased patient. What a server keeps of it is not in the directory.
    let site = Site::with_file();
    let store = site.create().await;
    let ward = ward(&store).await;
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM keks WHERE subject = $1")
        .bind(ward.gone.as_str())
        .fetch_one(site.database().await.pool())
        .await
        .unwrap();
    let holds = |site: &Site| {
        every_file(&site.data())
            .iter()
            .any(|(_, b)| contains(b, &wrapped))
    };
    assert!(holds(&site), "the test looks for the right bytes");
    store.keys.erase(&ward.gone, "e", at(40)).await.unwrap();
    store.close().await;
    assert!(
        !holds(&site),
        "secure_delete and the checkpoint leave no wrap of the erased key"
    );
}

#[tokio::test]
async fn an_unreadable_body_goes_with_the_patient_whom_its_device_measures() {
    let site = Site::new();
    let store = site.create().await;
    let ward = ward(&store).await;
    let device: DeviceId = device(1);
    let refused = NewQuarantine {
        device,
        message: Some((1, 1)),
        reason: QuarantineReason::Implausible,
        detail: "8867-4 out of range".into(),
        received_at: at(3),
        subject: Some(ward.gone.clone()),
        body: Some(b"not an envelope".to_vec()),
        releasable: None,
        introduced: None,
        place: None,
        clone_proof: None,
    };
    store.quarantine(refused).await.unwrap();
    let id = store.inbox.quarantined(1).await.unwrap()[0].id;
    assert!(store.quarantined_body(id).await.unwrap().is_some());
    store.keys.erase(&ward.gone, "e", at(40)).await.unwrap();
    assert!(store.quarantined_body(id).await.unwrap().is_none());
    assert_eq!(
        store.inbox.admit(admission(&ward.stays, 50)).await.unwrap(),
        Judgement::Stored
    );
}

#[tokio::test]
async fn pages_hold_a_thousand_and_an_erasure_touches_one_page_of_keks() {
    let site = Site::new();
    let store = site.create().await;
    let mut subjects = Vec::new();
    for _ in 0..1_050 {
        subjects.push(store.registry.add_patient(None, None, at(1)).await.unwrap());
    }
    let status = store.keys.status().await.unwrap();
    assert_eq!((status.pages, status.keks), (4, 1_050));
    let first = store.keys.erase(&subjects[3], "a", at(2)).await.unwrap();
    assert_eq!((first.keks_rewrapped, first.pages_rewrapped), (999, 4));
    let second = store
        .keys
        .erase(&subjects[1_020], "b", at(3))
        .await
        .unwrap();
    assert_eq!((second.keks_rewrapped, second.pages_rewrapped), (49, 4));
    store.close().await;
    let store = site.open().await.unwrap();
    let keks = store.keys.keys_of(subjects.iter()).await.unwrap();
    assert_eq!(keks.len(), 1_048);
    assert!(!keks.contains_key(&subjects[3]) && !keks.contains_key(&subjects[1_020]));
}

#[tokio::test]
async fn a_root_turns_without_an_erasure_and_takes_old_secrets_along() {
    let site = Site::new();
    let store = site.create().await;
    let ward = ward(&store).await;
    store
        .keys
        .put_secret("login", b"an old password")
        .await
        .unwrap();
    let backup = site.power_cut();
    store.keys.put_secret("login", b"a new one").await.unwrap();
    let turned = store.keys.rotate_root(at(5)).await.unwrap();
    assert_eq!(
        (turned.root_epoch, turned.pages_rewrapped),
        (KeyEpoch(1), 3)
    );
    assert_intact(&store, &ward).await;
    let secret = store.keys.secret("login").await.unwrap().unwrap();
    assert_eq!(*secret, b"a new one");
    fs::remove_dir_all(backup.roots_dir()).unwrap();
    copy_tree(&site.roots_dir(), &backup.roots_dir());
    assert!(matches!(
        backup.open().await,
        Err(StoreError::RootMissing { .. })
    ));
}
