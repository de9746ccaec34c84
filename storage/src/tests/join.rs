//! A data directory of any age, today's root keys, the newest key snapshot: the erased stay gone, the others stay
//! readable; what cannot hold both is refused and left as it is.

use vitalseal_crypto::{KeyEpoch, default_backend};

use super::erasure::{assert_erased, assert_intact, ward};
use super::opening::certificate;
use super::snapshot::{ONE, TWO, beside, copy_by_hand, create, manifests, open};
use super::*;
use crate::inbox::InboxError;
use crate::keys::{JoinRefused, SnapshotError};
use crate::registry::{DeviceState, NewUser, PatientState};

fn refusal(opened: Result<Store, StoreError>) -> JoinRefused {
    match opened {
        Err(StoreError::Join { cause, .. }) => cause,
        Err(other) => panic!("refused otherwise: {}", chain(&other)),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn a_copy_from_before_three_erasures_loses_three_patients_and_nobody_else() {
    let site = Site::new();
    let store = create(&site, TWO).await;
    let ward = ward(&store).await;
    let (second, third) = (patient(&store).await, patient(&store).await);
    store.inbox.admit(admission(&second, 30)).await.unwrap();
    let lost = device(7);
    let registry = &store.registry;
    registry
        .enroll_device(&certificate(&lost), at(2))
        .await
        .unwrap();
    registry
        .assign_device(&lost, &ward.stays, at(3))
        .await
        .unwrap();
    let user: crate::ports::UserName = "n.okafor".parse().unwrap();
    let new = NewUser {
        name: user.clone(),
        role: crate::ports::Role::Clinician,
        password_hash: "$argon2id$…".into(),
        totp_secret: b"a totp secret of twenty-odd bytes",
    };
    registry.add_user(new, at(3)).await.unwrap();
    registry.grant(&user, &ward.gone, at(3)).await.unwrap();
    registry.put_token([7; 32], &user, at(9_000)).await.unwrap();
    let copy = copy_by_hand(&site);

    store.keys.erase(&ward.gone, "e1", at(10)).await.unwrap();
    let rotated = registry.rotate_kek(&ward.stays, at(11)).await.unwrap();
    store.keys.erase(&second, "e2", at(12)).await.unwrap();
    let late = patient(&store).await;
    let unheard = device(8);
    registry
        .enroll_device(&certificate(&unheard), at(13))
        .await
        .unwrap();
    for id in [&lost, &unheard] {
        registry.revoke_device(id, "stolen", at(14)).await.unwrap();
    }
    store.keys.erase(&third, "e3", at(15)).await.unwrap();

    beside(&copy, &site);
    let joined = open(&copy, TWO).await.unwrap();
    let report = joined.keys.joined().await.unwrap().unwrap();
    assert_eq!(
        (
            report.erasures_replayed,
            report.patients_added,
            report.devices_revoked,
            report.patients
        ),
        (3, 1, 2, 2)
    );
    assert_eq!(
        (report.id.root_epoch, report.taken_at),
        (KeyEpoch(3), at(15))
    );
    assert!(report.snapshot.starts_with(copy.dir.path()));
    for subject in [&ward.gone, &second, &third] {
        assert!(joined.keys.patient_keys(subject).await.unwrap().is_none());
        let row = joined.registry.patient(subject).await.unwrap().unwrap();
        assert_eq!((row.state, row.identity), (PatientState::Erased, None));
        let rows = joined.cut(&authorized(&[subject])).await.unwrap();
        assert_eq!(rows.hot.num_rows(), 0);
        let late_message = joined.inbox.admit(admission(subject, 90)).await;
        assert!(matches!(late_message, Err(InboxError::Erased(_))));
    }
    let ledger = joined.keys.erasure_ledger().await.unwrap();
    assert_eq!(ledger.len(), 3);
    assert!(ledger.iter().all(|row| row.completed_at.is_some()));
    assert_intact(&joined, &ward).await;
    let keys = joined
        .keys
        .patient_keys(&ward.stays)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*keys.current().kid(), rotated.current);
    let row = joined.registry.patient(&late).await.unwrap().unwrap();
    assert_eq!((row.state, row.identity), (PatientState::Active, None));
    assert!(joined.keys.patient_keys(&late).await.unwrap().is_some());
    for id in [&lost, &unheard] {
        let record = joined.registry.device(id).await.unwrap().unwrap();
        assert_eq!(
            (record.state, record.patient()),
            (DeviceState::Revoked, None)
        );
    }
    assert_eq!(joined.registry.grants_of(&user, at(20)).await.unwrap(), []);
    assert_eq!(joined.registry.token([7; 32]).await.unwrap(), None);
    assert!(joined.registry.user(&user).await.unwrap().is_some());
    // It is a store like any other: once the join is on record it opens without a word, takes patients, erases.
    joined.keys.join_recorded().await.unwrap();
    joined.close().await;
    let again = open(&copy, TWO).await.unwrap();
    assert!(again.keys.joined().await.unwrap().is_none());
    let next = patient(&again).await;
    again.keys.erase(&next, "e4", at(30)).await.unwrap();
    assert_eq!(copy.root_files(), ["root-4.key"]);
    assert_intact(&again, &ward).await;
}

#[tokio::test]
async fn a_join_is_told_at_every_opening_until_it_is_recorded() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let second = patient(&store).await;
    let copy = copy_by_hand(&site);
    store.keys.erase(&ward.gone, "e1", at(9)).await.unwrap();
    beside(&copy, &site);
    open(&copy, ONE).await.unwrap().close().await;

    // Nobody recorded it, and the copy falls behind once more.
    store.keys.erase(&second, "e2", at(10)).await.unwrap();
    beside(&copy, &site);
    for _ in 0..2 {
        let joined = open(&copy, ONE).await.unwrap();
        let report = joined.keys.joined().await.unwrap().unwrap();
        assert_eq!(
            (
                report.erasures_replayed,
                report.patients,
                report.id.root_epoch
            ),
            (2, 1, KeyEpoch(2))
        );
        assert!(report.snapshot.is_file());
        joined.close().await;
    }
    let joined = open(&copy, ONE).await.unwrap();
    joined.keys.join_recorded().await.unwrap();
    joined.close().await;
    let quiet = open(&copy, ONE).await.unwrap();
    assert_eq!(quiet.keys.joined().await.unwrap(), None);
}

#[tokio::test]
async fn without_a_snapshot_the_old_copy_opens_for_nobody() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let copy = copy_by_hand(&site);
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    beside(&copy, &site);
    fs::remove_dir_all(copy.dir.path().join("keys")).unwrap();
    let refused = refusal(open(&copy, ONE).await);
    assert!(
        matches!(&refused, JoinRefused::Place(SnapshotError::Away(_))),
        "{refused:?}"
    );
    fs::create_dir(copy.dir.path().join("keys")).unwrap();
    for (places, named) in [(ONE, "/keys"), (&[][..], "none is configured")] {
        let refused = open(&copy, places).await.unwrap_err();
        assert!(
            matches!(refused, StoreError::RootMissing { .. }),
            "{refused:?}"
        );
        assert!(refused.to_string().contains(named), "{refused}");
    }
    // Another store's snapshot is none of ours, even under our name.
    let other = Site::new();
    let others = create(&other, ONE).await;
    let theirs = patient(&others).await;
    others.keys.erase(&theirs, "e", at(9)).await.unwrap();
    copy_tree(
        &other.dir.path().join("keys"),
        &copy.dir.path().join("keys"),
    );
    let refused = open(&copy, ONE).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::RootMissing { .. }),
        "{refused:?}"
    );
    let (from, id) = (
        copy.dir.path().join("keys"),
        names(&site.dir.path().join("keys")),
    );
    fs::rename(from.join(&names(&from)[0]), from.join(&id[0])).unwrap();
    assert!(matches!(
        refusal(open(&copy, ONE).await),
        JoinRefused::Newest {
            cause: SnapshotError::Damaged(_),
            ..
        }
    ));
}

#[tokio::test]
async fn a_registry_without_keys_takes_those_of_the_newest_snapshot() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let report = store.keys.snapshot(at(5)).await.unwrap();
    assert_eq!((report.root_epoch, report.serial), (KeyEpoch(0), 1));
    store.keys.snapshot(at(6)).await.unwrap();
    let copy = copy_by_hand(&site);
    let db = copy.database().await;
    for table in ["keks", "key_pages", "root_epochs", "secrets"] {
        let empty = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
        sqlx::query(empty).execute(db.pool()).await.unwrap();
    }
    db.close().await;
    let refused = refusal(open(&copy, &[]).await);
    assert!(matches!(refused, JoinRefused::NoKeys(_)), "{refused:?}");
    beside(&copy, &site);
    let joined = open(&copy, ONE).await.unwrap();
    assert_eq!(joined.keys.joined().await.unwrap().unwrap().id.serial, 2);
    assert_intact(&joined, &ward).await;
    assert!(
        joined
            .keys
            .patient_keys(&ward.gone)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn no_altered_byte_of_a_snapshot_is_believed() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let copy = copy_by_hand(&site);
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    beside(&copy, &site);
    let files = every_file(&copy.dir.path().join("keys"));
    assert_eq!(files.len(), 2, "a manifest and a page");
    for (path, bytes) in files {
        let manifest = path.extension().is_some_and(|ext| ext == "keys");
        for position in (0..bytes.len()).step_by(11).chain(0..16) {
            let mut altered = bytes.clone();
            altered[position] ^= 1 << (position % 8);
            let mut attempts = vec![altered.clone(), bytes[..position].to_vec()];
            if manifest && position < bytes.len() - 32 {
                // A forger can make the digest fit.
                let body = altered.len() - 32;
                let digest = default_backend().sha256(&[&altered[..body]]);
                altered[body..].copy_from_slice(&digest);
                attempts.push(altered);
            }
            for attempt in attempts {
                fs::write(&path, &attempt).unwrap();
                let refused = refusal(open(&copy, ONE).await);
                let JoinRefused::Newest { cause, .. } = refused else {
                    panic!("byte {position}: {refused:?}");
                };
                let named = matches!(&cause, SnapshotError::Damaged(p) | SnapshotError::Forged(p) if *p == path);
                assert!(named, "byte {position}: {cause:?}");
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    // None of these attempts left a trace.
    let joined = open(&copy, ONE).await.unwrap();
    assert_erased(&copy, &joined, &ward).await;
}

#[tokio::test]
async fn one_whole_place_of_two_is_enough_and_an_older_one_is_not() {
    let site = Site::new();
    let store = create(&site, TWO).await;
    let ward = ward(&store).await;
    let copy = copy_by_hand(&site);
    store.keys.rotate_root(at(8)).await.unwrap();
    let earlier = site.dir.path().join("keys-elsewhere");
    let rolled_back = tempfile::tempdir().unwrap();
    copy_tree(&earlier, rolled_back.path());
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    beside(&copy, &site);
    let [first, second] = TWO else { unreachable!() };
    let (first, second) = (copy.dir.path().join(first), copy.dir.path().join(second));

    // The newest of one place is damaged: the other's copy of it. Both: not an older one.
    let newest = manifests(&first).pop().unwrap();
    fs::write(&newest, b"").unwrap();
    let trial = copy.power_cut();
    beside(&trial, &copy);
    let joined = open(&trial, TWO).await.unwrap();
    assert!(
        joined
            .keys
            .joined()
            .await
            .unwrap()
            .unwrap()
            .snapshot
            .starts_with(trial.dir.path().join(TWO[1]))
    );
    assert_erased(&trial, &joined, &ward).await;
    fs::write(manifests(&second).pop().unwrap(), b"").unwrap();
    let refused = refusal(open(&copy, TWO).await);
    assert!(
        refused.to_string().contains(newest.to_str().unwrap()),
        "{refused}"
    );

    // One place is as it was before the erasure; the root of that snapshot is gone, but it would not do if it were not.
    beside(&copy, &site);
    fs::remove_dir_all(&second).unwrap();
    copy_tree(rolled_back.path(), &second);
    let joined = open(&copy, TWO).await.unwrap();
    assert!(
        joined
            .keys
            .joined()
            .await
            .unwrap()
            .unwrap()
            .snapshot
            .starts_with(&first)
    );
    assert_erased(&copy, &joined, &ward).await;
}

#[tokio::test]
async fn old_data_beside_old_roots_is_held_against_the_newest_snapshot() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let copy = site.power_cut();
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    copy_tree(&site.dir.path().join("keys"), &copy.dir.path().join("keys"));
    let refused = refusal(open(&copy, ONE).await);
    assert!(
        matches!(
            &refused,
            JoinRefused::Newest {
                cause: SnapshotError::Root(_),
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(
        chain(&refused).contains("root key of epoch 1 is not in"),
        "{}",
        chain(&refused)
    );
}

#[tokio::test]
async fn a_copy_that_went_its_own_way_is_refused_by_name_and_left_alone() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let copy = site.power_cut();
    let astray = copy.open().await.unwrap();
    let own = patient(&astray).await;
    astray.close().await;
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    let kept = copy.power_cut();
    beside(&copy, &site);
    for _ in 0..2 {
        match refusal(open(&copy, ONE).await) {
            JoinRefused::Unreadable { lost, revived, .. } => {
                assert_eq!((lost, revived), (vec![own.clone()], vec![]));
            }
            other => panic!("{other:?}"),
        }
    }
    let untouched = kept.open().await.unwrap();
    assert!(
        untouched
            .keys
            .patient_keys(&ward.gone)
            .await
            .unwrap()
            .is_some()
    );

    // Nor does a snapshot undo an erasure that only the copy knows.
    untouched
        .keys
        .erase(&ward.stays, "other", at(9))
        .await
        .unwrap();
    untouched.close().await;
    store.keys.rotate_root(at(10)).await.unwrap();
    beside(&kept, &site);
    let refused = refusal(open(&kept, ONE).await);
    let text = refused.to_string();
    match refused {
        JoinRefused::Unreadable { lost, revived, .. } => {
            assert_eq!(
                (lost, revived),
                (vec![own.clone()], vec![ward.stays.clone()])
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(
        text.contains(&own.to_string()) && !text.contains(own.as_str()),
        "{text}"
    );
}
