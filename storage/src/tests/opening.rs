//! Who may open a store, what is made with it, and how refusals read.

use std::os::unix::fs::PermissionsExt as _;

use vitalseal_crypto::{
    CertificateAuthority, DeviceCertificate, KeyEpoch, default_backend, new_device_key_and_csr,
};

use super::*;
use crate::KeyError;
use crate::database;
use crate::ports::Role;
use crate::registry::{DeviceState, NewUser, RegistryError};

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

pub(super) fn certificate(id: &DeviceId) -> DeviceCertificate {
    let new = CertificateAuthority::create(at(0)).unwrap();
    let authority = CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    )
    .unwrap();
    let (_, csr) = new_device_key_and_csr(id).unwrap();
    authority.issue_device(&csr, id, at(1)).unwrap().certificate
}

#[tokio::test]
async fn a_device_s_record_is_never_staler_than_the_last_write() {
    let site = Site::new();
    let store = site.create().await;
    let (a, b) = (patient(&store).await, patient(&store).await);
    let id = device(1);
    let registry = &store.registry;
    let mut changes = registry.subscribe_devices();
    assert!(registry.device(&id).await.unwrap().is_none());
    assert!(matches!(
        registry.assign_device(&id, &a, at(1)).await,
        Err(RegistryError::UnknownDevice(_))
    ));
    let first = certificate(&id);
    registry.enroll_device(&first, at(2)).await.unwrap();
    assert!(
        registry
            .device(&id)
            .await
            .unwrap()
            .unwrap()
            .patient()
            .is_none()
    );
    for (subject, time) in [(&a, 2), (&b, 3), (&a, 4)] {
        registry
            .assign_device(&id, subject, at(time))
            .await
            .unwrap();
        let record = registry.device(&id).await.unwrap().unwrap();
        assert_eq!(
            record.assigned().map(|now| (&now.subject, now.from)),
            Some((subject, at(time)))
        );
    }
    // A renewed certificate; the earlier one stays known, so that what it signed stays verifiable.
    let second = certificate(&id);
    registry.enroll_device(&second, at(5)).await.unwrap();
    let record = registry.device(&id).await.unwrap().unwrap();
    assert_eq!(record.certificate.thumbprint(), second.thumbprint());
    assert_eq!(record.patient(), Some(&a));
    registry.revoke_device(&id, "stolen", at(6)).await.unwrap();
    let record = registry.device(&id).await.unwrap().unwrap();
    assert_eq!(
        (record.state, record.patient()),
        (DeviceState::Revoked, None)
    );
    assert!(matches!(
        registry.enroll_device(&second, at(7)).await,
        Err(RegistryError::DeviceRevoked(_))
    ));
    assert!(matches!(
        registry.assign_device(&id, &a, at(7)).await,
        Err(RegistryError::DeviceRevoked(_))
    ));
    for thumbprint in [first.thumbprint(), second.thumbprint()] {
        let known = registry
            .device_certificate(thumbprint)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(known.thumbprint(), thumbprint);
    }
    let row = registry.devices().await.unwrap().remove(0);
    assert_eq!(
        (row.state_since, row.state_reason.as_deref()),
        (at(6), Some("stolen"))
    );
    let mut told = 0;
    while changes.try_recv().is_ok() {
        told += 1;
    }
    assert_eq!(told, 6);
}

#[tokio::test]
async fn envelope_keys_end_with_their_epoch_and_survive_reopening() {
    let site = Site::new();
    let store = site.create().await;
    let new = CertificateAuthority::create(at(0)).unwrap();
    let authority = CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    )
    .unwrap();
    let mut kids = Vec::new();
    for (epoch, from, until) in [(1, 0, 100), (2, 90, 190)] {
        let epoch = KeyEpoch(epoch);
        let key = authority
            .issue_recipient(epoch, at(from), at(until), default_backend())
            .unwrap();
        kids.push(key.kid().clone());
        store
            .keys
            .put_recipient(&key, epoch, at(from), at(until))
            .await
            .unwrap();
    }
    let current = |t| {
        let keys = store.keys.clone();
        async move {
            keys.current_recipient(at(t))
                .await
                .unwrap()
                .map(|c| c.kid().clone())
        }
    };
    assert_eq!(current(50).await.as_ref(), Some(&kids[0]));
    assert_eq!(current(95).await.as_ref(), Some(&kids[1]));
    assert_eq!(current(190).await, None);
    let ring = store.keys.recipient_ring().await.unwrap();
    assert!(kids.iter().all(|kid| ring.find(kid).is_some()));
    assert_eq!(
        store
            .keys
            .destroy_recipients_ended_before(at(100))
            .await
            .unwrap(),
        []
    );
    let destroyed = store
        .keys
        .destroy_recipients_ended_before(at(101))
        .await
        .unwrap();
    assert_eq!(destroyed, [(KeyEpoch(1), kids[0].clone())]);
    let again = store.keys.destroy_recipients_ended_before(at(101)).await;
    assert_eq!(again.unwrap(), destroyed, "until it is recorded");
    store.keys.recipient_recorded(KeyEpoch(1)).await.unwrap();
    assert_eq!(
        store
            .keys
            .destroy_recipients_ended_before(at(101))
            .await
            .unwrap(),
        []
    );
    store.close().await;
    let store = site.open().await.unwrap();
    let ring = store.keys.recipient_ring().await.unwrap();
    assert!(ring.find(&kids[0]).is_none() && ring.find(&kids[1]).is_some());
    assert_eq!(store.keys.recipients().await.unwrap().len(), 2);
}

#[tokio::test]
async fn covers_of_envelope_keys_that_no_row_knows_do_not_stay_for_ever() {
    let site = Site::new();
    let store = site.create().await;
    let new = CertificateAuthority::create(at(0)).unwrap();
    let authority = CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    )
    .unwrap();
    let put = async |epoch, from, until| {
        let epoch = KeyEpoch(epoch);
        let key = authority
            .issue_recipient(epoch, at(from), at(until), default_backend())
            .unwrap();
        let put = store.keys.put_recipient(&key, epoch, at(from), at(until));
        put.await.unwrap();
        key
    };
    let first = put(0, 0, 100).await;
    // What is put and not stored leaves nothing behind.
    let twice = store
        .keys
        .put_recipient(&first, KeyEpoch(1), at(0), at(100));
    assert!(twice.await.is_err());
    let covers = || {
        let slots = site.roots().slots().unwrap().into_iter();
        let covers = slots.filter(|slot| matches!(slot, KeySlot::Recipient(_)));
        covers.map(|slot| slot.epoch().0).collect::<Vec<_>>()
    };
    assert_eq!(covers(), [0]);

    // Made after the backup from which this registry came, and after it.
    for unknown in [1, 3] {
        let slot = KeySlot::Recipient(KeyEpoch(unknown));
        site.roots().create(slot, default_backend()).unwrap();
    }
    put(2, 90, 190).await;
    let end = async |now| {
        let ended = store.keys.destroy_recipients_ended_before(at(now));
        ended.await.unwrap();
        covers()
    };
    assert_eq!(end(150).await, [1, 2, 3], "it may still be in use");
    assert_eq!(end(191).await, [3]);
    put(4, 180, 280).await;
    assert_eq!(end(281).await, [0; 0]);
}

#[tokio::test]
async fn people_grants_tokens_and_steps_read_back_and_secrets_are_in_no_file() {
    const TOTP: &[u8] = b"a totp secret of twenty-odd bytes";
    let site = Site::new();
    let store = site.create().await;
    let registry = &store.registry;
    let subject = patient(&store).await;
    let name: crate::ports::UserName = "n.okafor".parse().unwrap();
    let user = || NewUser {
        name: name.clone(),
        role: Role::Clinician,
        password_hash: "$argon2id$…".into(),
        totp_secret: TOTP,
    };
    registry.add_user(user(), at(1)).await.unwrap();
    assert!(matches!(
        registry.add_user(user(), at(1)).await,
        Err(RegistryError::UserExists(_))
    ));
    assert_eq!(
        registry
            .user(&name)
            .await
            .unwrap()
            .unwrap()
            .totp_secret
            .as_slice(),
        TOTP
    );
    for (step, fresh) in [(100, true), (100, false), (99, false), (101, true)] {
        assert_eq!(
            registry.set_totp_step(&name, step).await.unwrap(),
            fresh,
            "step {step}"
        );
    }
    registry.grant(&name, &subject, at(5)).await.unwrap();
    assert_eq!(registry.grants_of(&name, at(4)).await.unwrap(), []);
    assert_eq!(
        registry.grants_of(&name, at(5)).await.unwrap(),
        std::slice::from_ref(&subject)
    );
    registry.put_token([7; 32], &name, at(60)).await.unwrap();
    assert_eq!(
        registry.token([7; 32]).await.unwrap(),
        Some((name.clone(), Role::Clinician, at(60)))
    );
    assert_eq!(registry.token([8; 32]).await.unwrap(), None);
    registry.put_incident("i1", "{}", at(1)).await.unwrap();
    registry
        .put_incident("i1", "{\"a\":1}", at(2))
        .await
        .unwrap();
    assert_eq!(registry.incidents().await.unwrap(), ["{\"a\":1}"]);

    store.keys.erase(&subject, "e", at(9)).await.unwrap();
    assert_eq!(registry.grants_of(&name, at(10)).await.unwrap(), []);
    assert!(matches!(
        registry.grant(&name, &subject, at(10)).await,
        Err(RegistryError::PatientErased(_))
    ));
    assert_eq!(
        registry
            .user(&name)
            .await
            .unwrap()
            .unwrap()
            .totp_secret
            .as_slice(),
        TOTP
    );
    for (path, bytes) in every_file(&site.data()) {
        for needle in [TOTP, b"Nomen Nescio".as_slice(), b"MRN-0042"] {
            assert!(
                !contains(&bytes, needle),
                "{} holds a secret or a name",
                path.display()
            );
        }
    }
    let debug = format!("{:?} {:?}", store, registry.user(&name).await.unwrap());
    assert!(
        !debug.contains("argon2id") && !debug.contains("totp"),
        "{debug}"
    );
}
