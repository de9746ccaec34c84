//! A failing bucket under the work on files: struck at one request after the other, nothing is lost or doubled, and no file is
//! left out for what the network did.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parquet::arrow::async_reader::AsyncFileReader as _;
use vitalseal_crypto::{MessageId, SubjectPseudonym};
use vitalseal_storage::{
    Actor, CheckOptions, CheckReport, CompactionSettings, DataFile, FileKind, ObjectsPlace,
    Retention, S3Place, Store, StoreError, Unwatched, schema,
};

use crate::bucket::{BUCKET, Server, place};
use crate::errors::chain;
use crate::forgetting::Log;
use crate::messages::{ALL, BEFORE, DEVICES, Messages, device, names};
use crate::proxy::{Fault, Proxy};
use crate::s3::roots;
use crate::site::{Site, at};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Compact,
    Vacuum,
    Retain,
    /// A check, and the repair of what it found.
    Repair,
    Collect,
}

/// What befalls a request; the next one of the operation is befallen by the next of these.
const FAULTS: [Fault; 4] = [
    Fault::Error,
    Fault::LostAnswer,
    Fault::Reset,
    // Nobody waits for it any more when it comes to the server.
    Fault::Slow(Duration::from_millis(1200)),
];

#[tokio::test]
async fn a_compaction_over_a_failing_bucket_loses_doubles_and_leaves_out_nothing() {
    strike(Operation::Compact).await;
}

#[tokio::test]
async fn a_vacuum_over_a_failing_bucket_loses_doubles_and_leaves_out_nothing() {
    strike(Operation::Vacuum).await;
}

#[tokio::test]
async fn a_retention_over_a_failing_bucket_loses_doubles_and_leaves_out_nothing() {
    strike(Operation::Retain).await;
}

#[tokio::test]
async fn a_repair_over_a_failing_bucket_takes_no_silence_for_damage() {
    strike(Operation::Repair).await;
}

#[tokio::test]
async fn removals_over_a_failing_bucket_end_and_none_is_of_a_live_file() {
    strike(Operation::Collect).await;
}

/// One request after the other, until the operation ends before its turn comes.
async fn strike(operation: Operation) {
    let server = Server::start().await;
    for request in 0.. {
        let fault = FAULTS[request % FAULTS.len()];
        let context = format!("{operation:?}, {fault:?} at request {request}");
        let ward = Ward::new(&server, operation, request).await;
        let mut faults = vec![Fault::Slow(Duration::ZERO); request];
        faults.push(fault);
        ward.proxy.fail("", &faults);
        let done = ward.perform(operation).await;
        let struck = ward.proxy.left() == 0;
        ward.proxy.heal();
        match operation {
            // What is damaged cannot be read before it is repaired.
            Operation::Repair => ward.assert_counted(&context).await,
            _ => ward.assert_whole(&context).await,
        }
        // At the same instant, by the same process.
        for operation in [
            operation,
            Operation::Compact,
            Operation::Vacuum,
            Operation::Collect,
        ] {
            let again = ward.perform(operation).await;
            again.unwrap_or_else(|e| panic!("{context}: {operation:?}: {}", chain(&e)));
            ward.assert_whole(&context).await;
        }
        let files = ward.store.catalog.files().await.unwrap();
        let [
            DataFile {
                kind: FileKind::Chunks,
                path,
                ..
            },
        ] = &files[..]
        else {
            panic!("{context}: something was left out: {files:?}");
        };
        let there: Vec<_> = ward.store.files.names().await.unwrap();
        let there: Vec<_> = there.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(there, [path.as_ref()], "{context}");
        ward.store.close().await;
        if !struck {
            done.unwrap();
            assert!(request > 1, "{operation:?} asks the bucket");
            return;
        }
    }
}

struct Ward {
    store: Store,
    proxy: Proxy,
    messages: Messages,
    stays: SubjectPseudonym,
    /// Whoever was erased; of them nothing is looked for.
    gone: SubjectPseudonym,
    _site: Site,
}

impl Ward {
    /// Two flushed files of one who stays and one who is erased; as the operation wants to find them.
    async fn new(server: &Server, operation: Operation, n: usize) -> Self {
        let site = Site::new();
        let proxy = Proxy::before(server.address).await;
        let paths = site.paths().with_objects(ObjectsPlace::S3(S3Place {
            prefix: format!("{operation:?}-{n}"),
            timeout_s: 1,
            retries: 0,
            ..place(proxy.address, site.path())
        }));
        let store = Store::create(&paths, roots(&paths), at(0)).await.unwrap();
        let registry = &store.registry;
        let stays = registry.add_patient(None, None, at(1)).await.unwrap();
        let gone = registry.add_patient(None, None, at(1)).await.unwrap();
        let (messages, _) = Messages::seal(&site.path().join("messages"), &store, &stays).await;
        for (n, part) in (0..).zip([1..=BEFORE, BEFORE + 1..=ALL]) {
            for name in names(part) {
                store.inbox.admit(messages.admission(&name)).await.unwrap();
            }
            let mut shredded = messages.admission("0-1");
            shredded.message = MessageId {
                device: device(DEVICES),
                boot: 1,
                sequence: n,
            };
            shredded.subject = gone.clone();
            shredded.envelope = vec![0xd8; 600];
            store.inbox.admit(shredded).await.unwrap();
            store.flush(at(30)).await.unwrap();
        }
        store.keys.erase(&gone, "e", at(40)).await.unwrap();
        let ward = Self {
            store,
            proxy,
            messages,
            stays,
            gone,
            _site: site,
        };
        match operation {
            Operation::Collect => ward.perform(Operation::Compact).await.unwrap(),
            Operation::Repair => {
                ward.perform(Operation::Compact).await.unwrap();
                ward.damage(server, &format!("{operation:?}-{n}")).await;
            }
            _ => {}
        }
        ward
    }

    /// A bit of the readings of a chunk flips: its messages are in the evidence once more.
    async fn damage(&self, server: &Server, prefix: &str) {
        let file = self.store.catalog.files().await.unwrap()[0].clone();
        let metadata = self
            .store
            .files
            .reader(&file)
            .get_metadata(None)
            .await
            .unwrap();
        let columns = metadata.row_group(0).columns().iter();
        let mut sealed = columns.filter(|of| of.column_path().string() == schema::SEALED);
        let (start, length) = sealed.next().unwrap().byte_range();
        let mut bytes = self
            .store
            .files
            .bytes(file.path.as_ref())
            .await
            .unwrap()
            .to_vec();
        bytes[usize::try_from(start + length / 2).unwrap()] ^= 1;
        let path = format!("/{BUCKET}/{prefix}/{}", file.path);
        let answer = server.send("PUT", &path, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!self.check().await.unwrap().is_sound());
    }

    async fn check(&self) -> Result<CheckReport, StoreError> {
        let options = CheckOptions {
            keys: true,
            authorities: Vec::new(),
        };
        self.store.check(&options, &Unwatched).await
    }

    async fn perform(&self, operation: Operation) -> Result<(), StoreError> {
        let (store, now, log) = (&self.store, at(7200), Log::default());
        match operation {
            Operation::Compact => {
                let settings = CompactionSettings {
                    force: true,
                    ..CompactionSettings::default()
                };
                while store.compact(now, &settings, &Unwatched).await?.more {}
                Ok(())
            }
            Operation::Vacuum => store.vacuum(now, &Unwatched).await.map(drop),
            Operation::Retain => {
                let retention = Retention {
                    vitals: Some(SignedDuration::from_hours(1)),
                    held: [self.stays.clone()].into(),
                    ..Retention::default()
                };
                let enforced = store.enforce_retention(now, &retention, Actor::System, &log);
                enforced.await.map(drop)
            }
            Operation::Repair => {
                let found = self.check().await?;
                store.repair(&found, &BTreeSet::new(), now).await.map(drop)
            }
            Operation::Collect => {
                let none = SignedDuration::ZERO;
                let collected = store.collect_garbage(now, none, Actor::System, &log);
                collected.await.map(drop)
            }
        }
    }

    async fn held(&self, patient: &SubjectPseudonym) -> u64 {
        let only = [patient.clone()].into();
        let (from, to) = (Timestamp::MIN, Timestamp::MAX);
        let held = self.store.catalog.holdings(Some(&only), None, from, to);
        held.await.unwrap().iter().map(|held| held.messages).sum()
    }

    /// Every message of whoever stays is there as it was sent, once.
    async fn assert_whole(&self, context: &str) {
        for name in &names(1..=ALL) {
            let (n, sequence) = name.split_once('-').unwrap();
            let message = MessageId {
                device: device(n.parse().unwrap()),
                boot: 1,
                sequence: sequence.parse().unwrap(),
            };
            let stored = self.store.stored_envelope(&message).await.unwrap();
            let sent = self.messages.bytes(name);
            assert!(
                stored.is_some_and(|stored| stored == sent),
                "{context}: {name}"
            );
        }
        self.assert_counted(context).await;
    }

    /// So it is by the columns that are in the clear; and no loss is on record.
    async fn assert_counted(&self, context: &str) {
        let all = names(1..=ALL).len() as u64;
        assert_eq!(self.held(&self.stays).await, all, "{context}");
        assert!(self.held(&self.gone).await <= 2, "{context}");
        assert_eq!(self.store.catalog.losses().await.unwrap(), [], "{context}");
    }
}
