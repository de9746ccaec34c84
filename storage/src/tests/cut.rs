//! The connection to the registry's server is cut, before a statement reaches it or before the answer comes back: what was
//! begun happened or did not, and the same process goes on.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::*;
use crate::keys::KeyError;
use crate::ports::Actor;
use crate::progress::Unwatched;
use crate::registry::PatientState;

/// Between a store and its server. Everything that goes through is counted; at one count every connection ends.
struct Wire {
    dir: TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: u64,
    /// The request at which it is cut, and whether the server gets it.
    at: Option<(u64, bool)>,
}

impl Wire {
    /// In a thread and runtime of its own: a test that waits must not stop it.
    fn before(server: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(server.file_name().unwrap());
        let listener = std::os::unix::net::UnixListener::bind(socket);
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let cutting = watch::Sender::new(0);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build();
            runtime.unwrap().block_on(async {
                let listener = UnixListener::from_std(listener).unwrap();
                while let Ok((client, _)) = listener.accept().await {
                    let server = UnixStream::connect(&server).await.unwrap();
                    tokio::spawn(carry(client, server, Arc::clone(&shared), cutting.clone()));
                }
            });
        });
        Self { dir, state }
    }

    /// Counts from here on, and cuts at request `at`.
    fn arm(&self, at: u64, delivered: bool) {
        let at = Some((at, delivered));
        *self.state.lock().unwrap() = State { requests: 0, at };
    }

    fn requests(&self) -> u64 {
        self.state.lock().unwrap().requests
    }
}

/// Until either side ends, or all are cut.
async fn carry(
    mut client: UnixStream,
    mut server: UnixStream,
    state: Arc<Mutex<State>>,
    cutting: watch::Sender<u64>,
) {
    let mut cut = cutting.subscribe();
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            _ = cut.changed() => return,
            read = client.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                let delivered = {
                    let mut state = state.lock().unwrap();
                    state.requests += 1;
                    let now = state.requests;
                    state.at.take_if(|(at, _)| *at == now).map(|(_, delivered)| delivered)
                };
                if delivered != Some(false) && server.write_all(&asked[..read]).await.is_err() {
                    return;
                }
                if let Some(delivered) = delivered {
                    if delivered {
                        // The server has done it when it answers, and nobody hears.
                        let _ = server.read(&mut answered).await;
                    }
                    cutting.send_modify(|cuts| *cuts += 1);
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A store whose registry is behind a wire, with two patients and messages of the first.
async fn site_behind_wire() -> (Site, Wire, StorePaths, Store, [SubjectPseudonym; 2]) {
    let site = Site::on_server();
    let schema = site.schema.as_ref().unwrap();
    let wire = Wire::before(schema.socket());
    let place = place_at(&schema.address_behind(wire.dir.path()));
    let paths = site.paths().with_registry(place);
    let store = Store::create(&paths, site.roots(), at(0)).await.unwrap();
    let subjects = [patient(&store).await, patient(&store).await];
    (site, wire, paths, store, subjects)
}

/// Tries until the server has noticed that its peer is gone; nothing else may refuse.
async fn insist<T, E: std::error::Error>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..1000 {
        match attempt().await {
            Ok(done) => return done,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    panic!("{}", chain(&attempt().await.err().unwrap()));
}

/// Requests of an operation that is not cut.
async fn length(operation: impl AsyncFn(&Store, &SubjectPseudonym)) -> u64 {
    let (_site, wire, _, store, [ada, _]) = site_behind_wire().await;
    wire.arm(u64::MAX, true);
    operation(&store, &ada).await;
    wire.requests()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "test.sh runs it, with a server"]
async fn an_erasure_whose_connection_is_cut_anywhere_happened_or_did_not_and_is_finished() {
    let erase = async |store: &Store, ada: &SubjectPseudonym| {
        store.keys.erase(ada, "e", at(9)).await.unwrap();
    };
    let requests = length(erase).await;
    let mut happened = 0;
    for n in 1..=requests {
        for delivered in [false, true] {
            // What never came to the server is what would have come next: a part of those is enough.
            if !delivered && n % 3 != 0 {
                continue;
            }
            let (site, wire, paths, store, [ada, ben]) = site_behind_wire().await;
            wire.arm(n, delivered);
            let first = store.keys.erase(&ada, "e", at(9)).await;
            let kept = insist(|| store.registry.patient_states()).await;
            let erased = kept.iter().any(|row| row.state == PatientState::Erased);
            assert!(erased || first.is_err(), "{n} {delivered}");
            happened += u32::from(erased && first.is_err());
            // The other patient's keys are there in any case, in the process that was cut off too.
            let keys = insist(|| store.keys.patient_keys(&ben)).await;
            assert!(keys.is_some(), "{n} {delivered}");
            let done = insist(|| store.keys.erase(&ada, "e", at(10))).await;
            assert_eq!(done.subject, ada);
            insist(|| store.keys.resume(at(11))).await;
            let again = store.keys.erase(&ada, "f", at(12)).await;
            assert!(
                matches!(again, Err(KeyError::AlreadyErased(_))),
                "{again:?}"
            );
            insist(|| store.registry.rotate_kek(&ben, at(13))).await;
            let epoch = store.keys.status().await.unwrap().root_epoch;
            assert_eq!(
                site.root_files(),
                [format!("root-{epoch}.key")],
                "{n} {delivered}"
            );
            store.close().await;
            let store = insist(|| Store::open(&paths, site.roots(), at(20))).await;
            assert!(store.keys.patient_keys(&ada).await.unwrap().is_none());
            assert!(store.keys.patient_keys(&ben).await.unwrap().is_some());
            assert_eq!(store.keys.erasure_ledger().await.unwrap().len(), 1);
            store.close().await;
        }
    }
    assert!(happened > 0, "some answers were lost after the fact");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "test.sh runs it, with a server"]
async fn a_flush_whose_connection_is_cut_anywhere_leaves_each_message_once() {
    let admit = async |store: &Store, ada: &SubjectPseudonym| {
        for n in 0..5 {
            store.inbox.admit(admission(ada, n)).await.unwrap();
        }
    };
    let requests = length(async |store, ada| {
        admit(store, ada).await;
        store.flush(at(9)).await.unwrap();
    })
    .await;
    let all: Vec<i64> = (0..5).collect();
    for n in 1..=requests {
        for delivered in [false, true] {
            let (site, wire, paths, store, [ada, _]) = site_behind_wire().await;
            admit(&store, &ada).await;
            wire.arm(n, delivered);
            let _ = store.flush(at(9)).await;
            let files = insist(|| store.catalog.files()).await;
            assert_eq!(flush::visible(&store, &ada).await, all, "{n} {delivered}");
            assert!(files.len() <= 1);
            insist(|| store.flush(at(10))).await;
            assert_eq!(flush::visible(&store, &ada).await, all, "{n} {delivered}");
            store.close().await;
            let store = insist(|| Store::open(&paths, site.roots(), at(20))).await;
            assert_eq!(flush::visible(&store, &ada).await, all, "{n} {delivered}");
            assert_eq!(site.parquet_files().len(), 1, "no orphan");
            store.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "test.sh runs it, with a server"]
async fn a_compaction_whose_connection_is_cut_anywhere_leaves_each_message_once() {
    let prepare = async |store: &Store, ada: &SubjectPseudonym| {
        let monitor = sealed::Monitor::enrol(store, 1).await;
        for n in 0..4 {
            let minute = i64::try_from(n).unwrap() * 60;
            let message = monitor
                .vitals(store, ada, n, (minute, minute + 61), 2)
                .await;
            store.inbox.admit(message).await.unwrap();
            store.flush(at(300)).await.unwrap();
        }
    };
    let settings = compact::forced();
    let mut n = 1;
    loop {
        let mut struck = false;
        for delivered in [false, true] {
            let (site, wire, paths, store, [ada, _]) = site_behind_wire().await;
            prepare(&store, &ada).await;
            let before = compact::found(&store, &[&ada]).await;
            assert_eq!(before.len(), 4);
            wire.arm(n, delivered);
            let _ = store.compact(at(400), &settings, &Unwatched).await;
            struck = wire.requests() >= n;
            let same = async |store: &Store| {
                insist(|| store.catalog.files()).await;
                let now = compact::found(store, &[&ada]).await;
                let envelopes = |found: &sealed::Found| -> Vec<_> {
                    let found = found.iter();
                    found
                        .map(|(name, (_, bytes))| (name.clone(), bytes.clone()))
                        .collect()
                };
                assert_eq!(envelopes(&now), envelopes(&before), "{n} {delivered}");
            };
            same(&store).await;
            // No file is left out because of the line.
            while insist(|| store.compact(at(401), &settings, &Unwatched))
                .await
                .more
            {}
            same(&store).await;
            assert_eq!(
                store.catalog.files().await.unwrap().len(),
                1,
                "{n} {delivered}"
            );
            store.close().await;
            let store = insist(|| Store::open(&paths, site.roots(), at(500))).await;
            same(&store).await;
            let none = jiff::SignedDuration::ZERO;
            let log = vacuum::Log::default();
            let collected = store
                .collect_garbage(at(600), none, Actor::System, &log)
                .await;
            collected.unwrap();
            assert_eq!(site.parquet_files().len(), 1, "no orphan");
            store.close().await;
        }
        if !struck {
            return;
        }
        n += 1;
    }
}
