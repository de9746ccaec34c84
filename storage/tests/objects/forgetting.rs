//! What a bucket keeps of the erased, and that nobody is told of an end which was none.

use std::sync::Mutex;

use jiff::SignedDuration;
use vitalseal_storage::{
    Actor, AuditError, AuditEvent, AuditRecord, AuditSink, GarbageReport, Store, Unwatched,
};

use crate::bucket::{BUCKET, Server};
use crate::s3::{admit, create, open, patient};
use crate::site::{Site, at};

#[derive(Default, Debug)]
pub(crate) struct Log(Mutex<Vec<AuditEvent>>);

#[async_trait::async_trait]
impl AuditSink for Log {
    async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(record.event);
        Ok(())
    }
}

async fn collect(store: &Store, log: &Log) -> GarbageReport {
    let none = SignedDuration::ZERO;
    let collected = store.collect_garbage(at(200), none, Actor::System, log);
    collected.await.unwrap()
}

async fn keep_versions(server: &Server) {
    let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                <Status>Enabled</Status></VersioningConfiguration>";
    let path = format!("/{BUCKET}?versioning");
    let answer = server.send("PUT", &path, body.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn the_end_of_ciphertext_is_noted_only_where_a_removal_is_one() {
    for versions in [false, true] {
        let (server, site) = (Server::start().await, Site::new());
        if versions {
            keep_versions(&server).await;
        }
        let paths = site.paths_in_bucket(server.address);
        let store = create(&paths).await;
        let (gone, stays) = (patient(&store).await, patient(&store).await);
        for sequence in 0..6 {
            let whose = if sequence % 2 == 0 { &gone } else { &stays };
            admit(&store, whose, sequence).await;
        }
        store.flush(at(50)).await.unwrap();
        store.keys.erase(&gone, "e", at(60)).await.unwrap();
        let report = store.vacuum(at(100), &Unwatched).await.unwrap();
        assert_eq!(
            (report.files_in, report.files_out, report.messages),
            (1, 1, 3)
        );
        assert_eq!(server.objects().await, 2);
        // Another process, which wrote nothing that would have told it.
        store.close().await;
        let store = open(&paths).await.unwrap();
        let log = Log::default();
        let first = collect(&store, &log).await;
        assert_eq!((first.files, server.objects().await), (1, 1));
        let again = collect(&store, &log).await;
        let noted = store
            .catalog
            .tombstones()
            .await
            .unwrap()
            .remove(0)
            .dropped_at;
        let told = log.0.lock().unwrap().len();
        if versions {
            assert!(first.dropped.is_empty() && again.dropped.is_empty());
            assert_eq!((noted, told), (None, 0));
        } else {
            assert_eq!((first.dropped, noted, told), (vec![gone], Some(at(200)), 1));
        }
        store.close().await;
    }
}

#[tokio::test]
async fn versions_that_were_turned_on_later_are_seen_before_an_end_is_noted() {
    let (server, site) = (Server::start().await, Site::new());
    let store = create(&site.paths_in_bucket(server.address)).await;
    let (gone, stays) = (patient(&store).await, patient(&store).await);
    admit(&store, &stays, 1).await;
    store.flush(at(50)).await.unwrap();
    keep_versions(&server).await;
    admit(&store, &gone, 2).await;
    store.flush(at(60)).await.unwrap();
    store.keys.erase(&gone, "e", at(70)).await.unwrap();
    store.close().await;
    let store = open(&site.paths_in_bucket(server.address)).await.unwrap();
    let report = store.vacuum(at(100), &Unwatched).await.unwrap();
    assert_eq!((report.files_in, report.files_out), (1, 0));
    // What is left is older than the versions, and tells of none.
    let collected = collect(&store, &Log::default()).await;
    assert_eq!((collected.files, collected.dropped), (1, vec![]));
    store.close().await;
}
