//! Whose a place is: a catalog that is older than a bucket, or a disk that is not mounted, removes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use jiff::SignedDuration;
use vitalseal_storage::{
    Actor, FilesError, KeyCustody, ObjectsPlace, S3Place, Store, StoreError, StorePaths, Unwatched,
};

use crate::bucket::{BUCKET, Server, place};
use crate::errors::chain;
use crate::files::copy_tree;
use crate::forgetting::Log;
use crate::postgres::Schema;
use crate::s3::{admit, create, open, patient, roots, visible};
use crate::site::{Site, at};

async fn collect(store: &Store) -> Result<u64, StoreError> {
    let none = SignedDuration::ZERO;
    let log = Log::default();
    let collected = store.collect_garbage(at(300), none, Actor::System, &log);
    collected.await.map(|report| report.files)
}

fn is_foreign(error: &StoreError) -> bool {
    matches!(error, StoreError::Files(FilesError::Foreign { .. }))
}

fn is_away(error: &StoreError) -> bool {
    matches!(error, StoreError::Files(FilesError::Away { .. }))
}

/// A second store, with the registry and the inbox of the first as they are now.
fn copy_without_owner(of: &Site) -> Site {
    let copy = Site {
        dir: tempfile::tempdir().unwrap(),
        schema: of.schema.as_ref().map(Schema::copy),
    };
    copy_tree(of.path(), copy.path());
    fs::remove_file(copy.path().join("data/parquet.owner")).unwrap();
    copy
}

#[tokio::test]
async fn a_bucket_has_one_store_and_a_second_one_changes_nothing_in_it() {
    let (server, site) = (Server::start().await, Site::new());
    let first = site.paths_in_bucket(server.address);
    let store = create(&first).await;
    let subject = patient(&store).await;
    admit(&store, &subject, 1).await;
    store.flush(at(50)).await.unwrap();
    let second = Site::new();
    let other = second.paths().with_objects(first.objects());
    let refused = Store::create(&other, roots(&other), at(0)).await;
    let refused = refused.err().unwrap();
    assert!(is_foreign(&refused), "{}", chain(&refused));
    assert!(chain(&refused).contains("s3://ward/north/store"));
    admit(&store, &subject, 2).await;
    store.flush(at(60)).await.unwrap();
    assert_eq!(visible(&store, &subject).await, [1, 2]);
}

#[tokio::test]
async fn an_older_copy_of_a_store_does_not_clear_what_the_newer_one_lives_by() {
    let (server, site) = (Server::start().await, Site::new());
    let first = site.paths_in_bucket(server.address);
    let store = create(&first).await;
    let subject = patient(&store).await;
    admit(&store, &subject, 1).await;
    store.flush(at(50)).await.unwrap();
    store.close().await;
    // As a copy finds it that was made between the upload of a file and its commit.
    let second = copy_without_owner(&site);
    let copy = second.paths().with_objects(first.objects());
    let planned = "data_files SET state = 'planned'";
    match &second.schema {
        Some(schema) => drop(schema.ask(&format!("UPDATE {}.{planned}", schema.name()))),
        None => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(copy.registry());
            let mut db = sqlx::ConnectOptions::connect(&options).await.unwrap();
            let planned = format!("UPDATE {planned}");
            let planned = sqlx::query(sqlx::AssertSqlSafe(planned));
            planned.execute(&mut db).await.unwrap();
            sqlx::Connection::close(db).await.unwrap();
        }
    }
    let refused = open(&copy).await.unwrap_err();
    assert!(is_foreign(&refused), "{}", chain(&refused));
    let store = open(&first).await.unwrap();
    assert_eq!(visible(&store, &subject).await, [1]);

    // Somebody says that the copy is the store from now on.
    let taken = fs::read(copy.data().join("parquet.owner")).unwrap();
    let path = format!("/{BUCKET}/north/store/owner");
    let answer = server.send("PUT", &path, &taken).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    admit(&store, &subject, 2).await;
    assert!(is_foreign(&store.flush(at(60)).await.unwrap_err()));
    assert!(is_foreign(&collect(&store).await.unwrap_err()));
    store.close().await;
    open(&copy).await.unwrap().close().await;
}

fn custody(site: &Site) -> KeyCustody {
    KeyCustody {
        roots: roots(&site.paths()),
        snapshots: vec![site.path().join("keys")],
    }
}

#[tokio::test]
async fn a_backup_of_a_bucket_is_whole_and_is_restored_only_to_a_place_that_is_nobodys() {
    let (server, site) = (Server::start().await, Site::new());
    let first = site.paths_in_bucket(server.address);
    let store = Store::create(&first, custody(&site), at(0)).await.unwrap();
    let subject = patient(&store).await;
    admit(&store, &subject, 1).await;
    store.flush(at(50)).await.unwrap();
    let backup = site.path().join("backup");
    store.backup(&backup, "test", at(60)).await.unwrap();
    assert_eq!(fs::read_dir(backup.join("parquet")).unwrap().count(), 1);
    let restored_to = |target: &Site, objects: Option<ObjectsPlace>| {
        let data = target.path().join("data");
        let paths = StorePaths::new(&data, Some(first.root_keys()));
        let paths = paths.with_registry(target.registry());
        objects.map_or(paths.clone(), |objects| paths.with_objects(objects))
    };
    let elsewhere = ObjectsPlace::S3(S3Place {
        prefix: "restored".to_owned(),
        ..place(server.address, site.path())
    });
    // The bucket of the store itself, which goes on meanwhile.
    let target = Site::new();
    let own = restored_to(&target, Some(first.objects()));
    let refused = Store::restore(&backup, &own, custody(&site), at(70)).await;
    let refused = chain(&refused.err().unwrap());
    assert!(refused.contains("belongs to another store"), "{refused}");
    assert_eq!(
        (server.objects().await, visible(&store, &subject).await),
        (1, vec![1])
    );
    // No envelope here opens, so the restore fails: what it brought to the other place is gone again.
    let target = Site::new();
    let failed = restored_to(&target, Some(elsewhere.clone()));
    let failed = Store::restore(&backup, &failed, custody(&site), at(70)).await;
    let failed = chain(&failed.err().unwrap());
    assert!(failed.contains("does not open"), "{failed}");
    assert_eq!(server.objects().await, 1);
    // Those of an erased patient are not looked at.
    store.keys.erase(&subject, "e", at(80)).await.unwrap();
    // On the disk there is beside the files what says whose they are.
    for (place, in_bucket, on_disk) in [(None, 1, 3), (Some(elsewhere), 3, 0)] {
        let target = Site::new();
        let paths = restored_to(&target, place);
        let restored = Store::restore(&backup, &paths, custody(&site), at(90)).await;
        let (restored, report) = restored.unwrap();
        assert_eq!((report.messages, report.erased), (1, 1));
        assert_eq!(visible(&restored, &subject).await, [1]);
        admit(&restored, &patient(&restored).await, 2).await;
        restored.flush(at(100)).await.unwrap();
        let there = fs::read_dir(paths.parquet()).unwrap().count();
        assert_eq!((server.objects().await, there), (in_bucket, on_disk));
        restored.close().await;
    }
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_neither_emptied_nor_written_below() {
    let site = Site::new();
    let store = site.create().await;
    let (gone, stays) = (patient(&store).await, patient(&store).await);
    for (sequence, whose) in [(1, &gone), (2, &stays)] {
        admit(&store, whose, sequence).await;
    }
    store.flush(at(50)).await.unwrap();
    store.keys.erase(&gone, "e", at(60)).await.unwrap();
    store.vacuum(at(100), &Unwatched).await.unwrap();
    let (place, mounted) = (site.paths().parquet(), site.dir.path().join("disk"));
    fs::rename(&place, &mounted).unwrap();
    fs::create_dir(&place).unwrap();
    let there = || -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(&mounted).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let before = there();
    assert_eq!(before.len(), 3, "two files and whose they are");
    admit(&store, &stays, 3).await;
    let refused = store.flush(at(110)).await.unwrap_err();
    assert!(chain(&refused).contains("is its disk mounted"));
    for error in [refused, collect(&store).await.unwrap_err()] {
        assert!(is_away(&error), "{}", chain(&error));
    }
    assert_eq!(store.catalog.ended().await.unwrap().len(), 1);
    let stone = store.catalog.tombstones().await.unwrap().remove(0);
    assert_eq!(stone.dropped_at, None);
    store.close().await;

    // It opens all the same: devices deliver.
    let store = open(&site.paths()).await.unwrap();
    admit(&store, &stays, 4).await;
    assert!(is_away(&store.flush(at(120)).await.unwrap_err()));
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    fs::remove_dir(&place).unwrap();
    fs::rename(&mounted, &place).unwrap();
    store.flush(at(130)).await.unwrap();
    assert_eq!(collect(&store).await.unwrap(), 1);
    assert_eq!(visible(&store, &stays).await, [2, 3, 4]);
    let stone = store.catalog.tombstones().await.unwrap().remove(0);
    assert_eq!(stone.dropped_at, Some(at(300)));
    store.close().await;
}
