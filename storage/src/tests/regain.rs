//! A registry that went back and knows every erasure: keys, patients and revocations come back from a key snapshot of its
//! own root, nothing that it has goes, and no snapshot that has more is written over.

use vitalseal_crypto::Kid;

use super::compact::found;
use super::opening::certificate;
use super::sealed::Monitor;
use super::snapshot::{ONE, TWO, copy_by_hand, create, open};
use super::*;
use crate::keys::JoinRefused;
use crate::registry::DeviceState;

/// The registry as it was when the copy was made, beside everything else of today.
fn bring_back(site: &mut Site, past: Site) {
    match past.schema {
        Some(schema) => site.schema = Some(schema),
        None => drop(fs::copy(past.paths().registry(), site.paths().registry()).unwrap()),
    }
}

async fn closed_copy(site: &Site, store: Store) -> (Site, Store) {
    store.close().await;
    (copy_by_hand(site), open(site, ONE).await.unwrap())
}

async fn kids(store: &Store, subject: &SubjectPseudonym) -> (Kid, BTreeSet<Kid>) {
    let keys = store.keys.patient_keys(subject).await.unwrap();
    let keys = keys.unwrap_or_else(|| panic!("{subject} is without a key"));
    let all = keys.all().map(|kek| kek.kid().clone()).collect();
    (keys.current().kid().clone(), all)
}

/// Once its join is on record, a store opens without a word, and is one like any other.
async fn assert_quiet(site: &Site, store: Store, gone: &SubjectPseudonym) {
    store.keys.join_recorded().await.unwrap();
    store.close().await;
    let store = open(site, ONE).await.unwrap();
    assert_eq!(store.keys.joined().await.unwrap(), None);
    store.keys.snapshot(at(2_000)).await.unwrap();
    store.keys.erase(gone, "e", at(2_001)).await.unwrap();
    assert!(store.keys.patient_keys(gone).await.unwrap().is_none());
    store.close().await;
    let store = open(site, ONE).await.unwrap();
    assert!(store.keys.patient_keys(gone).await.unwrap().is_none());
    store.close().await;
}

#[tokio::test]
async fn what_was_added_and_shut_out_before_the_snapshot_comes_back_with_it() {
    let mut site = Site::new();
    let store = create(&site, ONE).await;
    let stays = patient(&store).await;
    let monitor = Monitor::enrol(&store, 1).await;
    let stolen = device(7);
    let registry = &store.registry;
    registry
        .enroll_device(&certificate(&stolen), at(2))
        .await
        .unwrap();
    let message = monitor.vitals(&store, &stays, 1, (10, 13), 3).await;
    store.inbox.admit(message).await.unwrap();
    store.flush(at(20)).await.unwrap();
    let (past, store) = closed_copy(&site, store).await;

    let added = patient(&store).await;
    let registry = &store.registry;
    registry.rotate_kek(&stays, at(30)).await.unwrap();
    registry
        .revoke_device(&stolen, "stolen", at(31))
        .await
        .unwrap();
    for (sequence, subject) in [(2, &stays), (3, &added)] {
        let message = monitor.vitals(&store, subject, sequence, (40, 43), 3).await;
        store.inbox.admit(message).await.unwrap();
    }
    store.keys.snapshot(at(50)).await.unwrap();
    store.flush(at(51)).await.unwrap();
    let expected = found(&store, &[&stays, &added]).await;
    let keys = [kids(&store, &stays).await, kids(&store, &added).await];
    assert_eq!(expected.len(), 3);
    store.close().await;

    bring_back(&mut site, past);
    let store = open(&site, ONE).await.unwrap();
    let again = [kids(&store, &stays).await, kids(&store, &added).await];
    assert_eq!(again, keys);
    assert!(found(&store, &[&stays, &added]).await == expected);
    let record = store.registry.device(&stolen).await.unwrap().unwrap();
    assert_eq!(record.state, DeviceState::Revoked);
    let told = store.keys.joined().await.unwrap().unwrap();
    let brought = (
        told.erasures_replayed,
        told.patients_added,
        told.devices_revoked,
        told.patients,
    );
    assert_eq!(brought, (0, 1, 1, 2));
    assert_quiet(&site, store, &added).await;
}

#[tokio::test]
async fn two_that_went_apart_under_one_root_are_put_together() {
    // Before there was a page of patients, and after.
    for early in [true, false] {
        let mut site = Site::new();
        let mut store = create(&site, ONE).await;
        let mut past = None;
        if early {
            let (copy, reopened) = closed_copy(&site, store).await;
            (past, store) = (Some(copy), reopened);
        }
        let first = patient(&store).await;
        if !early {
            let (copy, reopened) = closed_copy(&site, store).await;
            (past, store) = (Some(copy), reopened);
        }
        let second = patient(&store).await;
        store.registry.rotate_kek(&first, at(30)).await.unwrap();
        let (_, mut of_first) = kids(&store, &first).await;
        store.keys.snapshot(at(31)).await.unwrap();
        store.close().await;

        bring_back(&mut site, past.unwrap());
        let store = open(&site, &[]).await.unwrap();
        let third = patient(&store).await;
        if !early {
            store.registry.rotate_kek(&first, at(40)).await.unwrap();
            let (current, all) = kids(&store, &first).await;
            assert!(!of_first.contains(&current));
            of_first.extend(all);
        }
        let (of_third, _) = kids(&store, &third).await;
        store.close().await;

        let store = open(&site, ONE).await.unwrap();
        let (current, all) = kids(&store, &first).await;
        assert_eq!(all, of_first);
        assert_eq!(all.len(), if early { 2 } else { 3 });
        assert!(all.contains(&current));
        assert_eq!(kids(&store, &third).await.0, of_third);
        kids(&store, &second).await;
        let status = store.keys.status().await.unwrap();
        assert_eq!(status.keks, if early { 4 } else { 5 });
        let told = store.keys.joined().await.unwrap().unwrap();
        assert_eq!(told.patients_added, if early { 2 } else { 1 });
        assert_quiet(&site, store, &second).await;
    }
}

#[tokio::test]
async fn a_registry_that_went_on_since_the_snapshot_stays_as_it_is() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let first = patient(&store).await;
    let back = device(7);
    let registry = &store.registry;
    registry
        .enroll_device(&certificate(&back), at(2))
        .await
        .unwrap();
    registry.suspend_device(&back, "lent", at(3)).await.unwrap();
    store.keys.snapshot(at(10)).await.unwrap();
    registry
        .reinstate_device(&back, "returned", at(11))
        .await
        .unwrap();
    registry.rotate_kek(&first, at(12)).await.unwrap();
    let second = patient(&store).await;
    let keys = [kids(&store, &first).await, kids(&store, &second).await];
    store.close().await;
    let store = open(&site, ONE).await.unwrap();
    assert_eq!(store.keys.joined().await.unwrap(), None);
    let record = store.registry.device(&back).await.unwrap().unwrap();
    assert_eq!(record.state, DeviceState::Active);
    let again = [kids(&store, &first).await, kids(&store, &second).await];
    assert_eq!(again, keys);
}

#[tokio::test]
async fn the_only_copy_of_a_key_is_never_written_over_unread() {
    let mut site = Site::new();
    let store = create(&site, TWO).await;
    patient(&store).await;
    store.close().await;
    let past = copy_by_hand(&site);
    let store = open(&site, TWO).await.unwrap();
    let added = patient(&store).await;
    store.keys.snapshot(at(10)).await.unwrap();
    patient(&store).await;
    store.close().await;
    let [one, two] = TWO else { unreachable!() };

    // The registry has what is in it: no harm.
    flip(&site, one);
    flip(&site, two);
    let store = open(&site, TWO).await.unwrap();
    assert_eq!(store.keys.joined().await.unwrap(), None);
    store.close().await;

    bring_back(&mut site, past);
    let whole = every_file(site.dir.path());
    let refused = open(&site, TWO).await.unwrap_err();
    let is_behind = matches!(
        &refused,
        StoreError::Join {
            cause: JoinRefused::Behind { .. },
            ..
        }
    );
    assert!(is_behind, "{}", chain(&refused));
    let text = chain(&refused);
    assert!(text.contains("it lacks keys of patients"), "{text}");
    let places = |files: Vec<(PathBuf, Vec<u8>)>| -> Vec<_> {
        let of_places = |path: &Path| {
            path.extension()
                .is_some_and(|of| of == "page" || of == "keys")
        };
        files
            .into_iter()
            .filter(|(path, _)| of_places(path))
            .collect()
    };
    assert!(places(every_file(site.dir.path())) == places(whole));

    // One place that has it whole is enough.
    flip(&site, two);
    let store = open(&site, TWO).await.unwrap();
    kids(&store, &added).await;
    assert_eq!(
        store.keys.joined().await.unwrap().unwrap().patients_added,
        1
    );
}

/// Damages the page files of a place, or mends them again.
fn flip(site: &Site, place: &str) {
    for (path, mut bytes) in every_file(&site.dir.path().join(place)) {
        if path.extension().is_some_and(|of| of == "page") {
            bytes[40] ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_running_store_sees_that_keys_are_gone_and_when_a_snapshot_is_due() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let keys = &store.keys;
    let settled = async |second: i64| {
        assert!(!keys.went_back().await.unwrap());
        assert!(keys.is_ahead_of_snapshots().await.unwrap());
        keys.snapshot_changes(at(second)).await.unwrap();
        assert!(!keys.is_ahead_of_snapshots().await.unwrap());
    };
    settled(1).await;
    let subject = patient(&store).await;
    settled(2).await;
    store.registry.rotate_kek(&subject, at(3)).await.unwrap();
    settled(4).await;
    let (registry, stolen) = (&store.registry, device(7));
    let enrolled = certificate(&stolen);
    registry.enroll_device(&enrolled, at(5)).await.unwrap();
    assert!(!keys.is_ahead_of_snapshots().await.unwrap());
    registry
        .revoke_device(&stolen, "stolen", at(6))
        .await
        .unwrap();
    settled(7).await;
    keys.rotate_root(at(8)).await.unwrap();
    assert!(!keys.is_ahead_of_snapshots().await.unwrap());
    assert!(!keys.went_back().await.unwrap());

    // The smallest step back that there is.
    let db = site.database().await;
    let back = "UPDATE key_pages SET generation = generation - 1 WHERE purpose = 'patients'";
    sqlx::query(back).execute(db.pool()).await.unwrap();
    for _ in 0..2 {
        assert!(keys.went_back().await.unwrap());
    }
}
