//! A restore by somebody whose backup lay on a hostile medium: what anybody may have written is not opened, and what
//! fails leaves keys as they were.

use sha2::{Digest as _, Sha256};

use super::backup::{backup, create, custody, unpack};
use super::erasure::{Ward, ward};
use super::*;
use crate::backup::{SECRET, manifest_path};
use crate::crash::CrashPoint;
use crate::database::{self, Place};
use crate::restore::{Received, RestoreError, Restored};

async fn restore(site: &Site, from: &Path, to: &str) -> Result<(Store, Restored), RestoreError> {
    let paths = StorePaths::new(&site.dir.path().join(to), Some(&site.roots_dir()));
    Store::restore(from, &paths, custody(site), at(50)).await
}

/// Root keys and places, byte for byte.
fn keys_of(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = every_file(&site.roots_dir());
    files.extend(every_file(&site.dir.path().join("keys")));
    files.sort();
    files
}

/// Rewrites a backup as anybody can who has the medium: one statement in its registry, and its digest put right.
async fn rewrite(backup: &Path, statement: String) {
    let registry = backup.join("registry.sqlite");
    let mut conn = database::connect(&Place::Copy(registry.clone()))
        .await
        .unwrap();
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::Connection::close(conn).await.unwrap();
    let bytes = fs::read(&registry).unwrap();
    let mut described: serde_json::Value =
        serde_json::from_slice(&fs::read(manifest_path(backup)).unwrap()).unwrap();
    let files = described["files"].as_array_mut().unwrap();
    let file = files
        .iter_mut()
        .find(|file| file["path"] == "registry.sqlite");
    let file = file.unwrap();
    file["size"] = bytes.len().into();
    file["sha256"] = hex::encode(Sha256::digest(&bytes)).into();
    fs::write(manifest_path(backup), described.to_string()).unwrap();
}

#[tokio::test]
async fn nothing_of_a_rewritten_backup_is_opened_or_even_copied() {
    let site = Site::new();
    let store = create(&site).await;
    patient(&store).await;
    let from = backup(&site, &store).await;
    store.close().await;
    let victim = site.dir.path().join("victim");
    fs::write(&victim, "of somebody else").unwrap();
    let planned = format!(
        "INSERT INTO data_files (file, state, written_at_us) VALUES ('{}', 'planned', 0)",
        victim.display()
    );
    rewrite(&from, planned).await;
    let before = keys_of(&site);
    let refused = restore(&site, &from, "new").await.unwrap_err();
    assert!(matches!(refused, RestoreError::Forged(_)), "{refused:?}");
    assert!(victim.exists());
    assert!(!site.dir.path().join("new").exists());
    assert_eq!(keys_of(&site), before);
}

#[tokio::test]
async fn what_is_unpacked_is_what_was_proved_even_on_a_medium_that_changes_its_mind() {
    let site = Site::new();
    let store = create(&site).await;
    patient(&store).await;
    let from = backup(&site, &store).await;
    store.close().await;
    let own = fs::read(manifest_path(&from)).unwrap();
    rewrite(&from, "UPDATE patients SET state = 'active'".to_owned()).await;
    let hostile = Received::read(&from).unwrap();
    // The second answer is the honest one.
    fs::write(manifest_path(&from), own).unwrap();
    let refused = hostile.authenticate(&custody(&site)).unwrap_err();
    assert!(matches!(refused, RestoreError::Forged(_)), "{refused:?}");
}

#[tokio::test]
async fn a_store_id_that_leads_elsewhere_is_never_made_a_path() {
    let site = Site::new();
    let store = create(&site).await;
    let from = backup(&site, &store).await;
    let described = fs::read_to_string(manifest_path(&from)).unwrap();
    let id = names(&site.dir.path().join("keys")).remove(0);
    for elsewhere in ["../elsewhere", "/elsewhere", "", &id[1..]] {
        let hostile = described.replace(&id, elsewhere);
        assert_ne!(hostile, described);
        fs::write(manifest_path(&from), hostile).unwrap();
        let refused = Received::read(&from).unwrap_err();
        assert!(
            matches!(refused, RestoreError::NotABackup(..)),
            "{refused:?}"
        );
    }
}

/// An erasure since the backup whose end is outstanding, and a message that does not open: the one is not finished for a
/// store that the other refuses.
#[tokio::test]
async fn a_restore_that_fails_leaves_places_and_roots_as_they_were() {
    let site = Site::new();
    let store = create(&site).await;
    let Ward { gone, .. } = ward(&store).await;
    let from = backup(&site, &store).await;
    store.crash().arm(CrashPoint::SnapshotWritten);
    store.keys.erase(&gone, "e", at(20)).await.unwrap_err();
    store.close().await;
    assert_eq!(site.root_files(), ["root-0.key", "root-1.key"]);
    let before = keys_of(&site);
    // The envelopes of these tests are no envelopes.
    let refused = restore(&site, &from, "new").await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::Unopened { .. }),
        "{refused:?}"
    );
    assert_eq!(keys_of(&site), before);
}

#[tokio::test]
async fn a_restore_that_succeeds_ends_what_an_erasure_left_open() {
    let site = Site::new();
    let store = create(&site).await;
    let (gone, stays) = (patient(&store).await, patient(&store).await);
    let from = backup(&site, &store).await;
    store.crash().arm(CrashPoint::SnapshotWritten);
    store.keys.erase(&gone, "e", at(20)).await.unwrap_err();
    store.close().await;
    let (store, restored) = restore(&site, &from, "new").await.unwrap();
    assert_eq!((restored.patients, restored.erased), (1, 1));
    assert!(store.keys.patient_keys(&gone).await.unwrap().is_none());
    assert!(store.keys.patient_keys(&stays).await.unwrap().is_some());
    assert_eq!(site.root_files(), ["root-1.key"]);
}

#[tokio::test]
async fn two_first_backups_at_once_are_both_the_stores_own() {
    let site = Site::new();
    let store = create(&site).await;
    patient(&store).await;
    assert!(store.keys.secret(SECRET).await.unwrap().is_some());
    let outs = ["one", "two"].map(|name| site.dir.path().join(name));
    let (one, two) = tokio::join!(
        store.backup(&outs[0], "test", at(10)),
        store.backup(&outs[1], "test", at(11)),
    );
    assert!(one.is_ok() && two.is_ok());
    for out in &outs {
        unpack(&site, out, &out.with_extension("new")).unwrap();
    }
}

/// Where there is no server, from a file to a file, which is what all others do as well.
#[tokio::test]
async fn a_backup_of_either_registry_is_restored_to_either() {
    for server in [false, true] {
        let site = Site::new();
        let store = create(&site).await;
        let (ada, gone) = (patient(&store).await, patient(&store).await);
        let from = backup(&site, &store).await;
        store.keys.erase(&gone, "e", at(20)).await.unwrap();
        store.close().await;
        let target = if server {
            Site::new()
        } else {
            Site::with_file()
        };
        let data = site.dir.path().join("new");
        let paths =
            StorePaths::new(&data, Some(&site.roots_dir())).with_registry(target.registry());
        let restored = Store::restore(&from, &paths, custody(&site), at(50)).await;
        let (store, restored) = restored.unwrap();
        assert_eq!((restored.erased, restored.erasures_replayed), (1, 1));
        assert!(store.keys.patient_keys(&gone).await.unwrap().is_none());
        assert!(store.keys.patient_keys(&ada).await.unwrap().is_some());
        let held = paths.registry().exists();
        assert_eq!(held, target.schema.is_none(), "in one place only");
        store.close().await;
        Store::open(&paths, custody(&site), at(60)).await.unwrap();
    }
}

#[tokio::test]
async fn a_restore_that_fails_leaves_nothing_on_the_server() {
    let site = Site::new();
    let store = create(&site).await;
    let subject = patient(&store).await;
    store.inbox.admit(admission(&subject, 1)).await.unwrap();
    let from = backup(&site, &store).await;
    store.close().await;
    let target = Site::new();
    let data = site.dir.path().join("new");
    let paths = StorePaths::new(&data, Some(&site.roots_dir())).with_registry(target.registry());
    // What a device sent is no envelope: it does not open.
    let refused = Store::restore(&from, &paths, custody(&site), at(50)).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, RestoreError::Unopened { .. }),
        "{refused:?}"
    );
    if target.schema.is_some() {
        let db = target.database().await;
        assert!(db.is_empty().await.unwrap());
    }
}
