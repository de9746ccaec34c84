//! What a backup holds, what it never holds, and what is refused in its name.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::Row as _;

use super::*;
use crate::backup::{BackupManifest, COPIED, manifest_path};
use crate::crash::CrashPoint;
use crate::database;
use crate::keys::KeyCustody;
use crate::restore::{Received, RestoreError};

pub(super) fn custody(site: &Site) -> KeyCustody {
    KeyCustody {
        roots: site.roots(),
        snapshots: vec![site.dir.path().join("keys")],
    }
}

pub(super) async fn create(site: &Site) -> Store {
    Store::create(&site.paths(), custody(site), at(0))
        .await
        .unwrap()
}

pub(super) async fn backup(site: &Site, store: &Store) -> PathBuf {
    let out = site.dir.path().join("backup");
    store.backup(&out, "test", at(10)).await.unwrap();
    out
}

pub(super) fn unpack(site: &Site, from: &Path, data: &Path) -> Result<(), RestoreError> {
    Received::read(from)?
        .authenticate(&custody(site))?
        .unpack(data)
}

/// Every blob of a column of the live registry.
async fn blobs(site: &Site, sql: &'static str) -> Vec<Vec<u8>> {
    let mut conn = site.database().await.fresh_connection().await.unwrap();
    let rows = sqlx::query(sql).fetch_all(&mut conn).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_backup_holds_ciphertext_and_no_key_in_any_form() {
    let site = Site::new();
    let store = create(&site).await;
    let subject = patient(&store).await;
    let mut sent = admission(&subject, 1);
    sent.envelope = (0..600_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    store.inbox.admit(sent.clone()).await.unwrap();
    store.keys.put_secret("tls", b"server key").await.unwrap();
    let mut conn = site.database().await.fresh_connection().await.unwrap();
    let planted = [
        "INSERT INTO users (name, role, password_hash, created_at_us) VALUES ('nora', 'clinician', 'argon2id', 0)",
        "INSERT INTO recipients (epoch, kid, certificate, not_before_us, not_after_us, wrapped, blob) \
         VALUES (0, $2, $2, 0, 1, $1, $1)",
        "INSERT INTO tokens (sha256, user_name, expires_at_us) VALUES ($1, 'nora', 9)",
    ];
    for (n, planted) in planted.into_iter().enumerate() {
        let secret = [0xa7 - u8::try_from(n).unwrap(); 16];
        let mut query = sqlx::query(planted);
        if planted.contains("$1") {
            query = query.bind(secret.to_vec());
        }
        if planted.contains("$2") {
            query = query.bind(vec![1_u8]);
        }
        query.execute(&mut conn).await.unwrap();
    }
    let mut keys = Vec::new();
    for of in [
        "SELECT wrapped FROM keks",
        "SELECT wrapped FROM key_pages",
        "SELECT sealed FROM secrets",
        "SELECT wrapped FROM recipients",
        "SELECT blob FROM recipients",
        "SELECT sha256 FROM tokens",
    ] {
        let found = blobs(&site, of).await;
        assert!(!found.is_empty(), "{of}");
        keys.extend(found);
    }
    let identity = blobs(&site, "SELECT identity FROM patients")
        .await
        .remove(0);
    // What is looked for in vain below is found where it is, if that is a file.
    let live = every_file(&site.data());
    let in_file = keys.iter().chain([&identity]);
    for key in in_file.filter(|_| site.schema.is_none()) {
        assert!(live.iter().any(|(_, bytes)| contains(bytes, key)));
    }

    let out = backup(&site, &store).await;
    let files = every_file(&out);
    for (path, bytes) in &files {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
        for key in &keys {
            assert!(!contains(bytes, key), "{}", path.display());
        }
        assert!(!contains(bytes, b"Nomen Nescio"), "{}", path.display());
    }
    for ciphertext in [&identity, &sent.envelope] {
        assert!(files.iter().any(|(_, bytes)| contains(bytes, ciphertext)));
    }
    assert_eq!(
        names(&out),
        [
            "backup.json",
            "backup.mac",
            "inbox.sqlite",
            "registry.sqlite"
        ]
    );
}

#[tokio::test]
async fn a_backup_of_a_store_that_never_flushed_restores() {
    let site = Site::new();
    let store = create(&site).await;
    let subject = patient(&store).await;
    let from = backup(&site, &store).await;
    store.close().await;
    let paths = StorePaths::new(&site.dir.path().join("new"), Some(&site.roots_dir()));
    let (store, restored) = Store::restore(&from, &paths, custody(&site), at(20))
        .await
        .unwrap();
    assert!(store.keys.patient_keys(&subject).await.unwrap().is_some());
    assert_eq!((restored.patients, restored.messages), (1, 0));
}

/// Whoever adds a table decides: it comes along, or it leads to a key.
#[tokio::test]
async fn every_table_of_the_registry_was_decided_upon() {
    let site = Site::new();
    create(&site).await.close().await;
    let mut conn = site.database().await.fresh_connection().await.unwrap();
    let mut left = database::tables(&mut conn).await.unwrap();
    left.sort();
    left.retain(|table| COPIED.iter().all(|copied| copied.name != table));
    assert_eq!(
        left,
        [
            "joins",
            "keks",
            "key_pages",
            "root_epochs",
            "secrets",
            "snapshot_places",
            "tokens"
        ]
    );
}

#[tokio::test]
async fn a_flush_that_stopped_halfway_leaves_each_message_in_the_backup_once() {
    let site = Site::new();
    let store = create(&site).await;
    let subject = patient(&store).await;
    for n in 0..5 {
        store.inbox.admit(admission(&subject, n)).await.unwrap();
    }
    store.crash().arm(CrashPoint::FlushCatalogued);
    store.flush(at(2)).await.unwrap_err();
    for n in 5..8 {
        store.inbox.admit(admission(&subject, n)).await.unwrap();
    }
    let out = backup(&site, &store).await;
    store.inbox.admit(admission(&subject, 8)).await.unwrap();
    store.close().await;

    let copy = StorePaths::new(&site.dir.path().join("copy"), Some(&site.roots_dir()));
    unpack(&site, &out, copy.data()).unwrap();
    let restored = Store::open(&copy, custody(&site), at(20)).await.unwrap();
    let cut = restored.cut(&authorized(&[&subject])).await.unwrap();
    let flushed: u64 = cut.files.iter().map(|file| file.messages).sum();
    assert_eq!((cut.hot.num_rows(), flushed), (3, 5));
    assert!(
        restored
            .keys
            .patient_keys(&subject)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn unpacking_takes_exactly_what_was_written() {
    let site = Site::new();
    let store = create(&site).await;
    let subject = patient(&store).await;
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    store.flush(at(2)).await.unwrap();
    let out = backup(&site, &store).await;
    let data = site.dir.path().join("unpacked");
    let try_unpacking = || {
        let unpacked = unpack(&site, &out, &data);
        let _ = fs::remove_dir_all(&data);
        unpacked
    };
    try_unpacking().unwrap();

    let described = fs::read_to_string(manifest_path(&out)).unwrap();
    let manifest: BackupManifest = serde_json::from_str(&described).unwrap();
    assert_eq!(manifest.files.len(), 3);
    for file in &manifest.files {
        let path = out.join(&file.path);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for changed in [
            &flipped[..],
            &whole[..whole.len() - 1],
            &[&whole[..], b"x"].concat(),
        ] {
            fs::write(&path, changed).unwrap();
            assert!(matches!(try_unpacking(), Err(RestoreError::Damaged(p)) if p == path));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(try_unpacking(), Err(RestoreError::File(e)) if e.path == path));
        fs::write(&path, whole).unwrap();
    }
    for outside in ["../evil", "/evil", "parquet/../../evil", "./evil", ""] {
        let hostile = described.replace("inbox.sqlite", outside);
        fs::write(manifest_path(&out), hostile).unwrap();
        assert!(
            matches!(try_unpacking(), Err(RestoreError::Outside(p)) if p == outside),
            "{outside}"
        );
    }
    for (from, to) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"format\"", "\"more\": 1, \"format\""),
        ("}", ""),
    ] {
        fs::write(manifest_path(&out), described.replacen(from, to, 1)).unwrap();
        assert!(matches!(
            try_unpacking(),
            Err(RestoreError::Format { found: 2, .. } | RestoreError::NotABackup(..))
        ));
    }
}

#[tokio::test]
async fn a_message_that_does_not_open_is_named_with_its_patient_and_place() {
    let site = Site::new();
    let store = create(&site).await;
    let subject = patient(&store).await;
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    store.flush(at(2)).await.unwrap();
    let out = backup(&site, &store).await;
    store.close().await;
    let copy = StorePaths::new(&site.dir.path().join("copy"), Some(&site.roots_dir()));
    let refused = Store::restore(&out, &copy, custody(&site), at(20)).await;
    // The envelopes of these tests are no envelopes.
    match refused.unwrap_err() {
        RestoreError::Unopened {
            subject: named,
            place,
            ..
        } => {
            assert_eq!(named, subject);
            assert!(place.ends_with(".parquet"), "{place}");
        }
        other => panic!("{}", chain(&other)),
    }
}
