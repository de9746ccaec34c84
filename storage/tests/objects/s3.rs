//! A store whose data files are in a bucket: the same promises as on a disk, whatever the network does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use vitalseal_crypto::{MessageId, SubjectPseudonym};
use vitalseal_storage::inbox::Required;
use vitalseal_storage::{
    Admission, Authorized, FileKind, FileRootProvider, FilesError, ObjectsPlace, RootProvider,
    S3Place, Store, StoreError, StorePaths, schema,
};

use crate::bucket::{Server, place, s3};
use crate::errors::chain;
use crate::proxy::{Fault, Proxy};
use crate::registry;
use crate::site::{Site, at, name, put, read, rows};

pub(crate) fn roots(paths: &StorePaths) -> Arc<dyn RootProvider> {
    Arc::new(FileRootProvider::new(paths.root_keys()))
}

pub(crate) async fn create(paths: &StorePaths) -> Store {
    Store::create(paths, roots(paths), at(0)).await.unwrap()
}

pub(crate) async fn open(paths: &StorePaths) -> Result<Store, StoreError> {
    Store::open(paths, roots(paths), at(100)).await
}

/// A message; storage looks at no envelope.
pub(crate) async fn admit(store: &Store, subject: &SubjectPseudonym, sequence: u64) {
    let n = i64::try_from(sequence).unwrap();
    let message = MessageId {
        device: "monitor-1".parse().unwrap(),
        boot: 1,
        sequence,
    };
    let admission = Admission {
        message,
        signed_hash: [u8::try_from(sequence).unwrap(); 32],
        previous: None,
        introduced: None,
        subject: subject.clone(),
        issued_at: at(n),
        required: Required::default(),
        received_at: at(n + 1),
        first_at: at(n - 60),
        last_at: at(n),
        readings: 3,
        envelope: vec![0xd8; 8000],
    };
    store.inbox.admit(admission).await.unwrap();
}

/// Sequences that a reader sees, each as often as it does.
pub(crate) async fn visible(store: &Store, subject: &SubjectPseudonym) -> Vec<i64> {
    let who = Authorized::new(BTreeSet::from([subject.clone()]));
    let cut = store.cut(&who).await.unwrap();
    let mut batches = vec![cut.hot];
    for file in cut.files.iter() {
        batches.extend(read(store, file).await.unwrap());
    }
    let sequences = |batch: &arrow::array::RecordBatch| {
        let column = batch.column_by_name(schema::SEQUENCE).unwrap();
        column.as_primitive::<Int64Type>().values().to_vec()
    };
    let mut seen: Vec<i64> = batches.iter().flat_map(sequences).collect();
    seen.sort_unstable();
    seen
}

pub(crate) async fn patient(store: &Store) -> SubjectPseudonym {
    store.registry.add_patient(None, None, at(1)).await.unwrap()
}

#[tokio::test]
async fn a_store_flushes_to_a_bucket_and_reads_from_it() {
    let (server, site) = (Server::start().await, Site::new());
    let paths = site.paths_in_bucket(server.address);
    let store = create(&paths).await;
    let subject = patient(&store).await;
    for sequence in 0..20 {
        admit(&store, &subject, sequence).await;
    }
    assert_eq!(store.flush(at(50)).await.unwrap().messages(), 20);
    admit(&store, &subject, 20).await;
    let all: Vec<i64> = (0..=20).collect();
    assert_eq!(visible(&store, &subject).await, all);
    assert_eq!(
        fs::read_dir(paths.parquet()).map_or(0, Iterator::count),
        0,
        "nothing on the disk"
    );
    assert_eq!(server.objects().await, 1);
    store.close().await;
    let store = open(&paths).await.unwrap();
    assert_eq!(visible(&store, &subject).await, all);
    store.flush(at(60)).await.unwrap();
    assert_eq!(
        (visible(&store, &subject).await, server.objects().await),
        (all, 2)
    );
}

#[tokio::test]
async fn a_name_that_exists_in_a_bucket_is_refused_and_stays_what_it_was() {
    let (server, site) = (Server::start().await, Site::new());
    let store = create(&site.paths_in_bucket(server.address)).await;
    let written = rows(FileKind::Rows, 3, 40);
    let file = put(&store, 1, FileKind::Rows, &written).await;
    let name = name(FileKind::Rows, 1);
    let other = rows(FileKind::Rows, 4, 40);
    let again = store
        .files
        .put(&name, FileKind::Rows, vec![Ok(other)].into_iter())
        .await;
    let refused = again.err().unwrap();
    assert!(
        matches!(refused, StoreError::Files(FilesError::Exists { .. })),
        "{}",
        chain(&refused)
    );
    assert_eq!(read(&store, &file).await.unwrap(), [written]);
    let there: Vec<_> = store.files.names().await.unwrap();
    assert_eq!(there, [(name.clone(), file.size)]);
    for _ in 0..2 {
        store.files.remove(&name).await.unwrap();
        assert_eq!(store.files.size(&name).await.unwrap(), None);
    }
    assert!(matches!(
        read(&store, &file).await.unwrap_err(),
        StoreError::Files(FilesError::Missing { .. })
    ));
}

#[tokio::test]
async fn a_flush_survives_errors_resets_slowness_and_a_lost_answer() {
    let (server, site) = (Server::start().await, Site::new());
    let proxy = Proxy::before(server.address).await;
    let store = create(&site.paths_in_bucket(proxy.address)).await;
    let subject = patient(&store).await;
    let slow = Fault::Slow(Duration::from_millis(500));
    for (sequence, faults) in [
        &[Fault::Error, Fault::Error][..],
        &[Fault::Reset, slow],
        // The object is there, and the second try is told so: what is there is what was sent.
        &[Fault::LostAnswer],
        &[Fault::Error, Fault::LostAnswer, Fault::Reset],
    ]
    .into_iter()
    .enumerate()
    {
        let sequence = u64::try_from(sequence).unwrap();
        admit(&store, &subject, sequence).await;
        proxy.fail("PUT", faults);
        // Which requests are repeated is the client's to know; a flush that fails is taken up by the next.
        let mut flushed = store.flush(at(50)).await;
        while flushed.is_err() && proxy.left() > 0 {
            flushed = store.flush(at(51)).await;
        }
        let flushed = match flushed {
            Ok(flushed) => flushed,
            Err(_) => store.flush(at(52)).await.unwrap(),
        };
        assert_eq!((flushed.messages(), proxy.left()), (1, 0), "{faults:?}");
        let all: Vec<i64> = (0..=sequence).map(u64::cast_signed).collect();
        proxy.fail("GET", &[Fault::Error, slow, Fault::Reset][..faults.len()]);
        assert_eq!(visible(&store, &subject).await, all, "{faults:?}");
        assert_eq!(server.objects().await, all.len(), "{faults:?}: an orphan");
    }
}

#[tokio::test]
async fn an_upload_that_the_server_completes_when_nobody_waits_for_it_any_more_leaves_no_orphan() {
    let (server, site) = (Server::start().await, Site::new());
    let proxy = Proxy::before(server.address).await;
    let hasty = ObjectsPlace::S3(S3Place {
        timeout_s: 1,
        retries: 0,
        ..place(proxy.address, site.path())
    });
    let paths = site.paths().with_objects(hasty);
    let store = create(&paths).await;
    let subject = patient(&store).await;
    admit(&store, &subject, 1).await;
    proxy.fail("PUT", &[Fault::Held]);
    store.flush(at(50)).await.unwrap_err();
    // The next flush clears away what is not there yet, and writes its own file.
    store.flush(at(51)).await.unwrap();
    assert_eq!(server.objects().await, 1);
    proxy.release();
    while server.objects().await != 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    admit(&store, &subject, 2).await;
    store.flush(at(60)).await.unwrap();
    let names: Vec<_> = store.files.names().await.unwrap();
    let mut live: Vec<_> = {
        let files = store.catalog.files().await.unwrap();
        files
            .iter()
            .map(|file| (file.path.to_string(), file.size))
            .collect()
    };
    live.sort();
    assert_eq!(names, live);
    assert_eq!(visible(&store, &subject).await, [1, 2]);
}

#[tokio::test]
async fn a_bucket_that_is_gone_keeps_what_was_acknowledged_and_says_where_it_was_looked_for() {
    let (server, site) = (Server::start().await, Site::new());
    let proxy = Proxy::before(server.address).await;
    let paths = site.paths_in_bucket(proxy.address);
    let store = create(&paths).await;
    let subject = patient(&store).await;
    admit(&store, &subject, 1).await;
    // More often than the client tries.
    proxy.fail("", &[Fault::Error; 40]);
    let error = chain(&store.flush(at(50)).await.unwrap_err());
    assert!(
        error.contains("s3://ward/north/store at http://127.0.0.1"),
        "{error}"
    );
    assert!(!error.contains("not-a-secret"), "{error}");
    assert_eq!(visible(&store, &subject).await, [1]);
    store.close().await;
    // Devices deliver all the same.
    let store = open(&paths).await.unwrap();
    admit(&store, &subject, 2).await;
    while proxy.left() > 0 {
        let _ = store.files.names().await;
    }
    assert_eq!(store.flush(at(60)).await.unwrap().messages(), 2);
    assert_eq!(
        (visible(&store, &subject).await, server.objects().await),
        (vec![1, 2], 1)
    );
}

const CHILD: &str = "VITALSEAL_OBJECTS_CHILD";
const CHILD_REGISTRY: &str = "VITALSEAL_OBJECTS_CHILD_REGISTRY";

/// The process that is killed: flushes the store that it is told of.
#[tokio::test]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else {
        return;
    };
    let (dir, address) = told.split_once('@').unwrap();
    let paths = StorePaths::new(&Path::new(dir).join("data"), None)
        .with_registry(registry::place(std::env::var(CHILD_REGISTRY).ok()))
        .with_objects(s3(address.parse().unwrap(), Path::new(dir)));
    let store = open(&paths).await.unwrap();
    store.flush(at(50)).await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_killed_in_the_middle_of_an_upload_loses_doubles_and_leaves_nothing() {
    let (server, site) = (Server::start().await, Site::new());
    let proxy = Proxy::before(server.address).await;
    let paths = site.paths_in_bucket(proxy.address);
    let store = create(&paths).await;
    let subject = patient(&store).await;
    for sequence in 0..40 {
        admit(&store, &subject, sequence).await;
    }
    store.close().await;
    let all: Vec<i64> = (0..40).collect();
    for bytes in [1, 2000, 100_000, 300_000] {
        proxy.fail("PUT", &[Fault::Stall(bytes)]);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "s3::child"])
            .env(
                CHILD,
                format!("{}@{}", site.path().display(), proxy.address),
            )
            .envs(
                site.schema
                    .iter()
                    .map(|schema| (CHILD_REGISTRY, schema.address())),
            )
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        proxy.stalled().await;
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(&paths).await.unwrap();
        assert_eq!(visible(&store, &subject).await, all, "{bytes}");
        assert_eq!(server.objects().await, 0, "{bytes}: an orphan");
        assert_eq!(store.catalog.files().await.unwrap().len(), 0);
        store.close().await;
    }
    let store = open(&paths).await.unwrap();
    assert_eq!(store.flush(at(90)).await.unwrap().messages(), 40);
    assert_eq!(
        (visible(&store, &subject).await, server.objects().await),
        (all, 1)
    );
}

#[test]
fn settings_that_would_leak_or_cannot_work_are_refused_with_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let good = place("127.0.0.1:9000".parse().unwrap(), dir.path());
    good.check().unwrap();
    let endpoint = |text: &str| S3Place {
        endpoint: Some(text.to_owned()),
        ..good.clone()
    };
    for (bad, why) in [
        (endpoint("http://minio.example.org:9000"), "https"),
        (endpoint("http://10.0.0.1"), "https"),
        (endpoint("ftp://127.0.0.1"), "https"),
        (endpoint("https://id:secret@s3.example.org"), "credentials"),
        (
            S3Place {
                bucket: String::new(),
                ..good.clone()
            },
            "bucket",
        ),
        (
            S3Place {
                prefix: "/north".to_owned(),
                ..good.clone()
            },
            "slash",
        ),
        (
            S3Place {
                timeout_s: 0,
                ..good.clone()
            },
            "timeout_s",
        ),
    ] {
        let refused = bad.check().unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    for fine in [
        "http://[::1]:9000",
        "http://localhost:9000",
        "https://s3.example.org",
    ] {
        endpoint(fine).check().unwrap();
    }
}

#[tokio::test]
async fn credentials_that_others_can_read_are_refused_and_none_is_ever_shown() {
    let site = Site::new();
    let store = site.create().await;
    store.close().await;
    let dir = site.dir.path();
    let place = place("127.0.0.1:9".parse().unwrap(), dir);
    let file = place.credentials.clone().unwrap();
    let try_open = || open_at(&site, ObjectsPlace::S3(place.clone()));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = try_open().await;
    assert!(refused.contains("chmod 600"), "{refused}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "aws_access_key_id = vitalseal\n").unwrap();
    let refused = try_open().await;
    assert!(refused.contains("aws_secret_access_key"), "{refused}");
    fs::write(
        &file,
        "aws_access_key_id = vitalseal\naws_secret_access_key = not-a-secret\n",
    )
    .unwrap();
    let shown = try_open().await;
    assert!(!shown.contains("not-a-secret"), "{shown}");
}

/// The error of opening, or all that an open store shows of itself.
async fn open_at(site: &Site, place: ObjectsPlace) -> String {
    let paths = site.paths().with_objects(place);
    match open(&paths).await {
        Ok(store) => {
            let shown = format!(
                "{store:?} {:?} {paths:?} {}",
                store.files,
                store.files.place()
            );
            store.close().await;
            shown
        }
        Err(error) => chain(&error),
    }
}
