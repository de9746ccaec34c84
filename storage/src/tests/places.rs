//! Places for key snapshots that are away, new, damaged or full, and copies of one store that share them.

use vitalseal_crypto::KeyEpoch;

use super::erasure::{assert_erased, assert_intact, ward};
use super::snapshot::{ONE, TWO, beside, copy_by_hand, create, custody, manifests, open};
use super::*;
use crate::crash::CrashPoint;
use crate::keys::{JoinRefused, KeyError, SnapshotError};

/// A copy of the data directory, served beside the store: the same root keys, the same places.
async fn second_copy(site: &Site, places: &[&str]) -> (Site, Store) {
    let copy = copy_by_hand(site);
    let shared = custody(site, places);
    let store = Store::open(&copy.paths(), shared, at(2)).await.unwrap();
    (copy, store)
}

fn assert_overtaken<T: std::fmt::Debug>(answer: Result<T, KeyError>) {
    let refused = answer.unwrap_err();
    assert!(matches!(refused, KeyError::Overtaken(_)), "{refused:?}");
    let text = chain(&refused);
    assert!(text.contains("another copy of this store"), "{text}");
}

#[tokio::test]
async fn a_copy_that_was_overtaken_erases_nobody_and_the_erased_do_not_come_back() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let (_copy, behind) = second_copy(&site, ONE).await;
    let old = copy_by_hand(&site);
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    let place = site.dir.path().join("keys");
    let written = manifests(&place);

    // Root 0, still in its memory, would do for a whole tree under a root 2, with the patient in it.
    assert_overtaken(behind.keys.erase(&ward.stays, "other", at(10)).await);
    assert_overtaken(behind.keys.rotate_root(at(10)).await);
    assert_overtaken(behind.keys.resume(at(10)).await);
    assert_overtaken(behind.keys.snapshot(at(10)).await);
    assert_eq!(site.root_files(), ["root-1.key"]);
    assert_eq!(manifests(&place), written);

    assert_erased(&site, &store, &ward).await;
    beside(&old, &site);
    let joined = open(&old, ONE).await.unwrap();
    assert_erased(&old, &joined, &ward).await;
}

#[tokio::test]
async fn an_erasure_that_waits_for_a_place_is_seen_by_the_other_copy_at_the_other_place() {
    let site = Site::new();
    let store = create(&site, TWO).await;
    let ward = ward(&store).await;
    let (_copy, behind) = second_copy(&site, TWO).await;
    let away = site.dir.path().join(TWO[1]);
    fs::remove_dir(&away).unwrap();
    assert!(store.keys.erase(&ward.gone, "e", at(9)).await.is_err());
    assert_eq!(site.root_files(), ["root-0.key", "root-1.key"]);
    assert_overtaken(behind.keys.erase(&ward.stays, "other", at(10)).await);
    assert_eq!(site.root_files(), ["root-0.key", "root-1.key"]);
    fs::create_dir(&away).unwrap();
    store.keys.resume(at(11)).await.unwrap();
    assert_erased(&site, &store, &ward).await;
}

#[tokio::test]
async fn of_two_copies_that_turn_at_once_one_ends_no_root() {
    // Both turned; the one wrote its snapshot first. Then both did.
    for second in [CrashPoint::ReadBack, CrashPoint::SnapshotWritten] {
        let site = Site::new();
        let store = create(&site, ONE).await;
        let ward = ward(&store).await;
        let (copy, behind) = second_copy(&site, ONE).await;
        behind.crash().arm(second);
        assert!(behind.keys.rotate_root(at(9)).await.is_err());
        store.crash().arm(CrashPoint::SnapshotWritten);
        let erased = store.keys.erase(&ward.gone, "e", at(9)).await;
        if second == CrashPoint::SnapshotWritten {
            assert_overtaken(erased);
            assert_eq!(site.root_files(), ["root-0.key", "root-1.key"]);
            continue;
        }
        assert!(matches!(erased, Err(KeyError::Io(_))), "{erased:?}");
        behind.crash().arm(CrashPoint::FlushPlanned);
        let all = ["root-0.key", "root-1.key", "root-2.key"];
        assert_overtaken(behind.keys.resume(at(10)).await);
        assert_eq!(site.root_files(), all);

        // Started again, it is joined with what the store wrote.
        behind.close().await;
        let again = Store::open(&copy.paths(), custody(&site, ONE), at(11)).await;
        let again = again.unwrap();
        assert!(again.keys.patient_keys(&ward.gone).await.unwrap().is_none());
        again.close().await;
        store.crash().arm(CrashPoint::FlushPlanned);
        store.keys.resume(at(12)).await.unwrap();
        assert_erased(&site, &store, &ward).await;
    }
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_no_place_without_snapshots_and_is_not_written_below() {
    let site = Site::new();
    let store = create(&site, TWO).await;
    let ward = ward(&store).await;
    store.keys.snapshot(at(5)).await.unwrap();
    let (place, mounted) = (site.dir.path().join(TWO[1]), site.dir.path().join("disk"));
    // Once the mount point stays behind, once it is gone too.
    for empty in [true, false] {
        fs::rename(&place, &mounted).unwrap();
        if empty {
            fs::create_dir(&place).unwrap();
        }
        let refused = store.keys.erase(&ward.gone, "e", at(9)).await.unwrap_err();
        assert!(chain(&refused).contains("is its disk mounted?"));
        let KeyError::Snapshot {
            place: named,
            cause,
        } = refused
        else {
            panic!("{refused:?}");
        };
        assert!(matches!(*cause, SnapshotError::Away(_)), "{cause:?}");
        assert_eq!(named, place);
        assert!(site.roots_dir().join("root-0.key").is_file());
        assert_eq!(place.is_dir(), empty);
        let found = store.keys.snapshots().await.unwrap();
        assert!(matches!(found[1].newest, Err(SnapshotError::Away(_))));

        // A newer snapshot may be there: nothing is served without it.
        let copy = copy_by_hand(&site);
        match Store::open(&copy.paths(), custody(&site, TWO), at(10)).await {
            Err(StoreError::Join {
                cause: JoinRefused::Place(SnapshotError::Away(_)),
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
        if empty {
            fs::remove_dir(&place).unwrap();
        }
        fs::rename(&mounted, &place).unwrap();
    }
    store.keys.resume(at(11)).await.unwrap();
    assert_erased(&site, &store, &ward).await;

    // An empty disk in its place is taken once somebody says that it is one.
    fs::rename(&place, &mounted).unwrap();
    fs::create_dir(&place).unwrap();
    let KeyError::Snapshot { cause, .. } = store.keys.snapshot(at(12)).await.unwrap_err() else {
        panic!("not for the place");
    };
    let SnapshotError::Away(wanted) = *cause else {
        panic!("{cause:?}");
    };
    fs::create_dir(wanted).unwrap();
    store.keys.snapshot(at(12)).await.unwrap();
    assert_eq!(manifests(&place).len(), 1);
}

#[tokio::test]
async fn a_page_file_that_rotted_is_written_anew_by_the_next_snapshot() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let old = copy_by_hand(&site);
    store.keys.snapshot(at(5)).await.unwrap();
    let files = every_file(&site.dir.path().join("keys")).into_iter();
    let (path, mut bytes) = files
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|ext| ext == "page"))
        .unwrap();
    bytes[30] ^= 1;
    fs::write(&path, bytes).unwrap();
    store.keys.snapshot(at(6)).await.unwrap();
    // The page is as it was: this one takes over what the last snapshot named.
    store.keys.rotate_root(at(7)).await.unwrap();
    beside(&old, &site);
    let joined = open(&old, ONE).await.unwrap();
    assert_intact(&joined, &ward).await;
}

#[tokio::test]
async fn an_erasure_that_waits_for_a_full_place_does_not_keep_the_store_shut() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    let id = site.dir.path().join("keys").join(store_id(&site).await);
    fs::create_dir(&id).unwrap();
    fs::write(id.join("pages"), b"no room for a directory").unwrap();
    assert!(store.keys.erase(&ward.gone, "e", at(9)).await.is_err());
    store.close().await;
    let store = open(&site, ONE).await.unwrap();
    let status = store.keys.status().await.unwrap();
    assert_eq!((status.roots_retiring, status.erasures_unfinished), (1, 1));
    assert_eq!(status.root_epoch, KeyEpoch(1));
    assert_intact(&store, &ward).await;
    assert!(store.keys.patient_keys(&ward.gone).await.unwrap().is_none());
    fs::remove_file(id.join("pages")).unwrap();
    store.keys.resume(at(10)).await.unwrap();
    assert_erased(&site, &store, &ward).await;
}

async fn store_id(site: &Site) -> String {
    let db = site.database().await;
    let id = sqlx::query_scalar("SELECT store_id FROM store");
    id.fetch_one(db.pool()).await.unwrap()
}
