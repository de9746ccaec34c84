//! Key snapshots on their way to every place: nothing is final before they are there and read back, nothing in them
//! names anybody.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicI32, Ordering};

use vitalseal_crypto::{Backend, KeyEpoch, RootKey, default_backend};

use super::erasure::{assert_erased, assert_intact, ward};
use super::*;
use crate::crash::CrashPoint;
use crate::keys::{KeyCustody, KeyError, NewRoot, RootError};

pub(super) const ONE: &[&str] = &["keys"];
pub(super) const TWO: &[&str] = &["keys", "keys-elsewhere"];

pub(super) fn custody(site: &Site, places: &[&str]) -> KeyCustody {
    KeyCustody {
        roots: site.roots(),
        snapshots: places.iter().map(|p| site.dir.path().join(p)).collect(),
    }
}

pub(super) async fn create(site: &Site, places: &[&str]) -> Store {
    let custody = custody(site, places);
    Store::create(&site.paths(), custody, at(0)).await.unwrap()
}

pub(super) async fn open(site: &Site, places: &[&str]) -> Result<Store, StoreError> {
    Store::open(&site.paths(), custody(site, places), at(1_000)).await
}

/// The data directory alone, as an administrator copies it from under the running server.
pub(super) fn copy_by_hand(site: &Site) -> Site {
    let copy = Site::new();
    site.copy_data(&copy);
    copy
}

/// Puts today's root keys and places beside an old copy.
pub(super) fn beside(copy: &Site, today: &Site) {
    for dir in fs::read_dir(today.dir.path()).unwrap() {
        let dir = dir.unwrap();
        if dir.file_name() == "data" {
            continue;
        }
        let target = copy.dir.path().join(dir.file_name());
        let _ = fs::remove_dir_all(&target);
        copy_tree(&dir.path(), &target);
    }
}

pub(super) fn manifests(place: &Path) -> Vec<PathBuf> {
    let files = every_file(place).into_iter().map(|(path, _)| path);
    let mut found: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ext| ext == "keys"))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn an_erasure_is_not_final_before_every_place_has_the_snapshot() {
    let site = Site::new();
    let store = create(&site, TWO).await;
    let ward = ward(&store).await;
    let in_the_way = site.dir.path().join(TWO[1]);
    fs::remove_dir(&in_the_way).unwrap();
    fs::write(&in_the_way, b"").unwrap();
    let refused = store.keys.erase(&ward.gone, "e", at(9)).await.unwrap_err();
    let KeyError::Snapshot { place, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(*place, in_the_way);
    assert!(
        chain(&refused).contains("no root key was destroyed"),
        "{}",
        chain(&refused)
    );
    assert_eq!(site.root_files(), ["root-0.key", "root-1.key"]);
    let ledger = store.keys.erasure_ledger().await.unwrap();
    assert!(ledger[0].completed_at.is_none());
    assert_intact(&store, &ward).await;
    assert!(store.keys.patient_keys(&ward.gone).await.unwrap().is_none());
    let places = store.keys.snapshots().await.unwrap();
    let (id, _) = places[0].newest.as_ref().unwrap().unwrap();
    assert_eq!(id.root_epoch, KeyEpoch(1));
    assert!(places[1].newest.is_err(), "{places:?}");

    fs::remove_file(&in_the_way).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    store.keys.erase(&ward.gone, "e", at(10)).await.unwrap();
    assert_erased(&site, &store, &ward).await;
    for place in store.keys.snapshots().await.unwrap() {
        let (id, taken_at) = place.newest.unwrap().unwrap();
        assert_eq!((id.root_epoch, taken_at), (KeyEpoch(1), at(10)));
    }
}

/// Gives another key than the one it keeps, at one load of the many.
#[derive(Debug)]
struct Fickle {
    keeps: Arc<dyn RootProvider>,
    loads_until: AtomicI32,
}

impl RootProvider for Fickle {
    fn name(&self) -> &str {
        self.keeps.name()
    }

    fn load(&self, slot: KeySlot, blob: &[u8]) -> Result<RootKey, RootError> {
        let key = self.keeps.load(slot, blob)?;
        match self.loads_until.fetch_sub(1, Ordering::Relaxed) {
            0 => Ok(RootKey::generate(slot.epoch(), default_backend()).unwrap()),
            _ => Ok(key),
        }
    }

    fn create(&self, slot: KeySlot, backend: &dyn Backend) -> Result<NewRoot, RootError> {
        self.keeps.create(slot, backend)
    }

    fn destroy(&self, slot: KeySlot) -> Result<(), RootError> {
        self.keeps.destroy(slot)
    }

    fn slots(&self) -> Result<Vec<KeySlot>, RootError> {
        self.keeps.slots()
    }
}

#[tokio::test]
async fn an_old_root_outlives_a_snapshot_that_does_not_read_back() {
    let site = Site::new();
    let roots = Arc::new(Fickle {
        keeps: site.roots(),
        loads_until: AtomicI32::new(-1),
    });
    let mut fickle = custody(&site, ONE);
    fickle.roots = Arc::clone(&roots) as _;
    let store = Store::create(&site.paths(), fickle, at(0)).await.unwrap();
    let ward = ward(&store).await;
    // Loads of one erasure: before it (only to see that it is there), the read-back of the tree, the writing of the
    // snapshot, its read-back.
    for load in 1..4 {
        roots.loads_until.store(load, Ordering::Relaxed);
        let refused = store.keys.erase(&ward.gone, "e", at(9)).await;
        assert!(refused.is_err(), "load {load}");
        assert!(site.roots_dir().join("root-0.key").is_file(), "load {load}");
        assert_intact(&store, &ward).await;
    }
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    assert_erased(&site, &store, &ward).await;
    let newest = store
        .keys
        .snapshots()
        .await
        .unwrap()
        .remove(0)
        .newest
        .unwrap();
    assert_eq!(newest.unwrap().0.root_epoch, KeyEpoch(1));
}

#[tokio::test]
async fn wherever_power_fails_neither_the_store_nor_an_old_copy_brings_the_patient_back() {
    for point in [
        CrashPoint::TreeCommitted,
        CrashPoint::InboxPurged,
        CrashPoint::ReadBack,
        CrashPoint::SnapshotWritten,
        CrashPoint::RootDestroyed,
    ] {
        let site = Site::new();
        let store = create(&site, ONE).await;
        let ward = ward(&store).await;
        let copy = copy_by_hand(&site);
        store.crash().arm(point);
        assert!(store.keys.erase(&ward.gone, "e", at(9)).await.is_err());
        let cut = site.power_cut();
        beside(&cut, &site);
        let opened = open(&cut, ONE).await.unwrap();
        assert!(opened.keys.joined().await.unwrap().is_none(), "{point:?}");
        assert_erased(&cut, &opened, &ward).await;

        // Once the snapshot is written the copy knows better, even beside an old root that is still there.
        let survived = site.root_files().contains(&"root-0.key".to_owned());
        assert_eq!(survived, point != CrashPoint::RootDestroyed);
        let written = !manifests(&site.dir.path().join("keys")).is_empty();
        beside(&copy, if written { &site } else { &cut });
        let joined = open(&copy, ONE).await.unwrap();
        assert_eq!(
            joined
                .keys
                .joined()
                .await
                .unwrap()
                .unwrap()
                .erasures_replayed,
            1,
            "{point:?}"
        );
        assert_erased(&copy, &joined, &ward).await;
    }
}

#[tokio::test]
async fn what_a_copy_wrote_to_the_same_place_is_not_taken_for_the_store_s_own() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    store.keys.snapshot(at(5)).await.unwrap();
    let copy = site.power_cut();
    let mut custody = custody(&site, ONE);
    custody.roots = copy.roots();
    let astray = Store::open(&copy.paths(), custody, at(6)).await.unwrap();
    patient(&astray).await;
    astray.keys.snapshot(at(6)).await.unwrap();

    // Both changed the same page once since the snapshot that they share.
    let own = patient(&store).await;
    let old = copy_by_hand(&site);
    store.keys.rotate_root(at(9)).await.unwrap();
    beside(&old, &site);
    let joined = open(&old, ONE).await.unwrap();
    assert!(joined.keys.patient_keys(&own).await.unwrap().is_some());
    assert_intact(&joined, &ward).await;

    // From here on the copy would cover the store's snapshots with older ones, and says so.
    let refused = astray.keys.snapshot(at(11)).await.unwrap_err();
    assert!(
        chain(&refused).contains("another copy of this store"),
        "{}",
        chain(&refused)
    );
}

#[tokio::test]
async fn only_what_changed_is_written_and_what_is_needed_stays() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let nobody = std::iter::repeat_with(|| None).take(1_050);
    let subjects = store.registry.add_patients(nobody, at(1)).await.unwrap();
    let place = site.dir.path().join("keys");
    let pages = || {
        let files = every_file(&place).into_iter().map(|(path, _)| path);
        files
            .filter(|p| p.extension().is_some_and(|ext| ext == "page"))
            .collect::<BTreeSet<_>>()
    };
    let mut seen = Vec::new();
    for (n, erased) in [3, 1_020, 1_021, 1_022].into_iter().enumerate() {
        let copy = copy_by_hand(&site);
        store
            .keys
            .erase(&subjects[erased], &format!("e{n}"), at(9))
            .await
            .unwrap();
        seen.push(pages());
        assert!(manifests(&place).len() <= 2);
        beside(&copy, &site);
        let joined = open(&copy, ONE).await.unwrap();
        assert_eq!(
            joined.keys.joined().await.unwrap().unwrap().patients,
            1_049 - n as u64
        );
        joined.close().await;
    }
    let new = |n: usize| seen[n].difference(&seen[n - 1]).count();
    assert_eq!((seen[0].len(), new(1), new(2), new(3)), (2, 1, 1, 1));
    // Those of the newest two: the first page once, the second page twice.
    assert_eq!(seen[3].len(), 3);
}

#[tokio::test]
async fn nobody_is_named_in_a_place_and_nobody_else_may_read_it() {
    let site = Site::new();
    let store = create(&site, ONE).await;
    let ward = ward(&store).await;
    store.keys.erase(&ward.gone, "e", at(9)).await.unwrap();
    let root = fs::read(site.roots_dir().join("root-1.key")).unwrap();
    let place = site.dir.path().join("keys");
    let needles: [&[u8]; 7] = [
        ward.gone.as_bytes(),
        ward.stays.as_bytes(),
        b"Nomen Nescio",
        b"MRN-0042",
        b"server key",
        b"tls",
        &root[16..48],
    ];
    for (path, bytes) in every_file(&place) {
        for needle in needles {
            assert!(!contains(&bytes, needle), "{}", path.display());
        }
        let text = path.to_str().unwrap();
        assert!(!text.contains(ward.gone.as_str()) && !text.contains(ward.stays.as_str()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(path.parent().unwrap())),
            (0o600, 0o700),
            "{text}"
        );
    }
    assert_eq!(
        fs::metadata(&place).unwrap().permissions().mode() & 0o777,
        0o700
    );
}
