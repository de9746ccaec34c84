//! Who may open a store, what is made with it, and how refusals read.

use std::os::unix::fs::PermissionsExt as _;

use vitalseal_crypto::{
    CertificateAuthority, DeviceCertificate, KeyEpoch, default_backend, new_device_key_and_csr,
};

use super::*;
use crate::KeyError;
use crate::database;

#[tokio::test]
async fn one_process_at_a_time() {
    let site = Site::new();
    let store = site.create().await;
    let refused = site.open().await.unwrap_err();
    assert!(matches!(refused, StoreError::Locked(_)), "{refused:?}");
    assert!(
        refused.to_string().contains("stop that one first"),
        "{refused}"
    );
    assert!(matches!(
        Store::create(&site.paths(), site.roots(), at(0)).await,
        Err(StoreError::Locked(_))
    ));
    store.close().await;
    site.open().await.unwrap().close().await;
    assert!(matches!(
        Store::create(&site.paths(), site.roots(), at(0)).await,
        Err(StoreError::Exists(_))
    ));
}

#[tokio::test]
async fn an_inbox_from_before_what_the_catalog_knows_takes_no_message_that_would_be_lost() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    store.close().await;
    let older = fs::read(site.paths().inbox()).unwrap();
    let store = site.open().await.unwrap();
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    store.flush(at(10)).await.unwrap();
    store.close().await;
    let newer = fs::read(site.paths().inbox()).unwrap();
    fs::write(site.paths().inbox(), older).unwrap();
    let refused = site.open().await.unwrap_err();
    assert!(matches!(refused, StoreError::InboxBehind(_)), "{refused:?}");
    fs::write(site.paths().inbox(), newer).unwrap();
    site.open().await.unwrap();
}

#[tokio::test]
async fn no_new_key_is_drawn_beside_files_that_an_old_one_sealed() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    store.flush(at(10)).await.unwrap();
    let mut tx = store.registry.database().begin().await.unwrap();
    sqlx::query("DELETE FROM secrets WHERE name LIKE 'store-key/%'")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    store.close().await;
    let refused = site.open().await.unwrap_err();
    assert!(
        matches!(refused, StoreError::Key(KeyError::NoStoreKey)),
        "{refused:?}"
    );
}

/// The data directory is locked by a file; a registry that two directories name is claimed on its server.
#[tokio::test]
async fn one_server_at_a_time_has_a_registry_and_none_is_planted_among_tables() {
    let site = Site::new();
    let Some(schema) = &site.schema else { return };
    let store = site.create().await;
    let other = Site::with_file();
    copy_tree(&site.data(), &other.data());
    let place = place_at(&schema.address());
    let paths = StorePaths::new(&other.data(), None).with_registry(place.clone());
    let refused = Store::open(&paths, site.roots(), at(1)).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::RegistryInUse(_)),
        "{refused:?}"
    );
    store.close().await;
    let fresh = Site::with_file();
    let paths = StorePaths::new(&fresh.data(), None).with_registry(place);
    let refused = Store::create(&paths, fresh.roots(), at(1))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, StoreError::RegistryTaken(_)),
        "{refused:?}"
    );
    site.open().await.unwrap();
}

#[tokio::test]
async fn a_store_dropped_without_a_word_lets_go_of_its_lock() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    drop(store);
    for _ in 0..500 {
        match site.open().await {
            Ok(store) => return assert_eq!(store.inbox.pending().await.unwrap().0, 1),
            Err(StoreError::Locked(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await
            }
            Err(e) => panic!("{}", chain(&e)),
        }
    }
    panic!("the lock was never let go of");
}

#[tokio::test]
async fn nobody_else_may_read_any_of_it() {
    let site = Site::new();
    let store = site.create().await;
    let subject = patient(&store).await;
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    store.flush(at(10)).await.unwrap();
    store.inbox.admit(admission(&subject, 2)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for dir in [site.data(), site.roots_dir(), site.data().join("parquet")] {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
    }
    let files = every_file(site.dir.path());
    // Two databases with log and index, lock, one Parquet file and, twice, whose it is, one root.
    let expected = if site.schema.is_some() { 8 } else { 11 };
    assert_eq!(
        files.len(),
        expected,
        "{:?}",
        files.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
    for (path, _) in files {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn what_is_no_whole_store_of_ours_is_refused_by_name() {
    let site = Site::new();
    assert!(matches!(site.open().await, Err(StoreError::NotFound(_))));
    fs::create_dir(site.data()).unwrap();
    fs::write(site.data().join("thesis.tex"), b"").unwrap();
    fs::set_permissions(site.data(), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = Store::create(&site.paths(), site.roots(), at(0))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::NotEmpty(_)), "{refused:?}");
    assert_eq!(
        fs::metadata(site.data()).unwrap().permissions().mode() & 0o777,
        0o755
    );
    fs::remove_dir_all(site.data()).unwrap();
    site.roots()
        .create(KeySlot::Root(KeyEpoch(4)), default_backend())
        .unwrap();
    let refused = Store::create(&site.paths(), site.roots(), at(0))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, StoreError::RootKeysExist { .. }),
        "{refused:?}"
    );
    site.roots().destroy(KeySlot::Root(KeyEpoch(4))).unwrap();
    site.create().await.close().await;

    // Other root keys of the same epoch: another store's.
    let other = Site::new();
    other.create().await.close().await;
    let mixed = site.power_cut();
    fs::remove_dir_all(mixed.roots_dir()).unwrap();
    copy_tree(&other.roots_dir(), &mixed.roots_dir());
    let refused = mixed.open().await.unwrap_err();
    assert!(
        chain(&refused).contains("belong to another store"),
        "{}",
        chain(&refused)
    );

    for (version, expected) in [(0, "never completed"), (9, "version 9")] {
        let copy = site.power_cut();
        let db = copy.database().await;
        let mut conn = db.fresh_connection().await.unwrap();
        database::mark(version, &mut conn).await.unwrap();
        db.close().await;
        let refused = copy.open().await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}

/// Tables, columns and indexes of a registry, one a line.
async fn shape(db: &Database) -> Vec<String> {
    let tables = "SELECT m.name || '.' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || c.pk \
                  FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' \
                  UNION SELECT 'index ' || name || ' on ' || tbl_name FROM sqlite_schema WHERE type = 'index' \
                  ORDER BY 1";
    sqlx::query_scalar(tables)
        .fetch_all(db.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_registry_of_an_earlier_version_gets_the_tables_of_a_new_one() {
    let (site, new) = (Site::with_file(), Site::with_file());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v3/data");
    copy_tree(&fixture, &site.data());
    crate::opening::open(&site.paths())
        .await
        .unwrap()
        .close()
        .await;
    new.create().await.close().await;
    assert_eq!(
        shape(&site.database().await).await,
        shape(&new.database().await).await
    );
}

pub(super) fn authority() -> CertificateAuthority {
    let new = CertificateAuthority::create(at(0)).unwrap();
    CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    )
    .unwrap()
}

pub(super) fn certificate(id: &DeviceId) -> DeviceCertificate {
    let (_, csr) = new_device_key_and_csr(id).unwrap();
    let issued = authority().issue_device(&csr, id, at(1)).unwrap();
    issued.certificate
}
