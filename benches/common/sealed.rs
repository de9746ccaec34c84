//! The sealed side: a real store behind the real pipeline, asked through the real query service by a clinician who was
//! granted every patient. Clock by hand, everything else as the server wires it.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::record_batch::RecordBatch;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use vitalseal::config;
use vitalseal_compliance::access::CareTeamPolicy;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_crypto::{
    CertificateAuthority, DeviceId, KeyEpoch, SubjectPseudonym, default_backend,
    new_device_key_and_csr,
};
use vitalseal_device::{AgreementMode, DeviceIdentity, Sealer};
use vitalseal_ingest::{
    Alerts, Clones, OnClone, Order, Outcome, Pipeline, PipelineDeps, TimeLimits,
};
use vitalseal_query::{QueryDeps, QueryService, QuerySession};
use vitalseal_storage::ports::{
    Authenticated, AuthenticationError, Authenticator, Clock, Identity, Purpose, Role,
};
use vitalseal_storage::{
    CompactionSettings, FileRootProvider, NewUser, Store, StorePaths, Unwatched,
};

use crate::workload::{Batch, Payload, Source, Workload};

/// Messages that are sealed, then submitted, at once: the clocks of both are kept apart.
const AT_ONCE: usize = 4_096;

/// Messages between two flushes.
const FLUSHED: usize = 16_384;

/// Messages that one session key seals.
const PER_SESSION: u32 = 1_000;

pub struct Sealed {
    pub store: Store,
    /// The pseudonym of each patient of the workload.
    pub subjects: Vec<SubjectPseudonym>,
    clock: Arc<HandClock>,
    pipeline: Pipeline,
    audit: AuditLog,
    pub session: Arc<QuerySession>,
    fleet: Vec<Bed>,
    dir: TempDir,
}

/// What filling took, and what was filled in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filled {
    pub messages: u64,
    pub readings: u64,
    pub sealing: Duration,
    pub ingest: Duration,
    pub flush: Duration,
}

/// What bringing everything to one level took. What it takes from the disk is read again, opened, decoded, encoded,
/// sealed, written and read back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compacted {
    pub level: u8,
    pub readings: u64,
    pub chunks: u64,
    pub time: Duration,
}

struct Bed {
    device: DeviceId,
    sealer: Sealer,
    order: Order,
}

impl Sealed {
    /// An empty store with everybody of the workload in it.
    pub async fn new(workload: &Workload) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = workload.start();
        let paths = StorePaths::new(&dir.path().join("data"), None);
        let roots = Arc::new(FileRootProvider::new(paths.root_keys()));
        let store = Store::create(&paths, roots, now).await.unwrap();
        let audit = dir.path().join("audit.db");
        let audit = AuditLog::create(&audit, "bench.invalid/log")
            .await
            .unwrap()
            .log;
        let clock = Arc::new(HandClock(AtomicI64::new(now.as_microsecond())));
        let sink = Arc::new(audit.clone());
        let clones = Clones::new(
            store.registry.clone(),
            Arc::clone(&sink) as _,
            Arc::clone(&clock) as _,
            Alerts::default(),
            OnClone::Alert,
        );
        let deps = PipelineDeps {
            store: store.clone(),
            times: TimeLimits::default(),
            audit: Arc::clone(&sink) as _,
            clock: Arc::clone(&clock) as _,
            clones,
            backend: default_backend(),
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let pipeline = Pipeline::start(deps, cores).unwrap();
        let service = QueryService::new(
            QueryDeps {
                store: store.clone(),
                policy: Arc::new(CareTeamPolicy::new(store.registry.clone())),
                authenticator: Arc::new(Nobody),
                audit: Arc::clone(&sink) as _,
                clock: Arc::clone(&clock) as _,
            },
            config::Sql {
                deadline_s: 600,
                ..config::Sql::default()
            }
            .limits(),
        );
        let who = Identity {
            user: "clinician".parse().unwrap(),
            role: Role::Clinician,
        };
        let session = service.session(who, Purpose::Treatment).await.unwrap();
        let subjects = admit_patients(&store, workload, now).await;
        let fleet = enrol(&store, workload, &subjects, now).await;
        Self {
            store,
            subjects,
            clock,
            pipeline,
            audit,
            session: Arc::new(session),
            fleet,
            dir,
        }
    }

    /// Every message of the workload: sealed by its device, through the pipeline, flushed.
    pub async fn fill(&mut self, workload: &Workload) -> Filled {
        let mut filled = Filled::default();
        let mut arrivals = workload.arrivals();
        let mut unflushed = 0;
        loop {
            let batches: Vec<Batch> = arrivals.by_ref().take(AT_ONCE).collect();
            if batches.is_empty() {
                break;
            }
            let started = Instant::now();
            let sealed = self.seal(&batches);
            filled.sealing += started.elapsed();
            let started = Instant::now();
            filled.readings += self.submit(&batches, sealed).await;
            filled.ingest += started.elapsed();
            filled.messages += batches.len() as u64;
            unflushed += batches.len();
            if unflushed >= FLUSHED {
                filled.flush += self.flush().await;
                unflushed = 0;
            }
        }
        filled.flush += self.flush().await;
        self.set_clock(workload.end());
        filled
    }

    /// As devices do it, on as many threads as there are cores.
    fn seal(&mut self, batches: &[Batch]) -> Vec<Bytes> {
        let mut sealed = vec![Bytes::new(); batches.len()];
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let share = self.fleet.len().div_ceil(cores);
        let parts: Vec<Vec<(usize, Bytes)>> = std::thread::scope(|scope| {
            let work = self
                .fleet
                .chunks_mut(share)
                .enumerate()
                .map(|(part, beds)| {
                    scope.spawn(move || {
                        let mine = batches.iter().enumerate();
                        let mine = mine.filter(|(_, batch)| batch.source / share == part);
                        mine.map(|(at, batch)| {
                            let sealer = &mut beds[batch.source - part * share].sealer;
                            let message = match &batch.payload {
                                Payload::Readings(readings) => {
                                    sealer.seal(readings, batch.sealed_at)
                                }
                                Payload::Waveform(waveform) => {
                                    sealer.seal_waveform(waveform, batch.sealed_at)
                                }
                            };
                            (at, Bytes::from(message.unwrap().bytes))
                        })
                        .collect()
                    })
                });
            let work: Vec<_> = work.collect();
            work.into_iter().map(|part| part.join().unwrap()).collect()
        });
        for (at, bytes) in parts.into_iter().flatten() {
            sealed[at] = bytes;
        }
        sealed
    }

    async fn submit(&mut self, batches: &[Batch], sealed: Vec<Bytes>) -> u64 {
        let mut outcomes = Vec::with_capacity(sealed.len());
        for (batch, message) in batches.iter().zip(sealed) {
            self.set_clock(batch.arrives_at);
            let credit = self.pipeline.reserve(message.len()).await.unwrap();
            let bed = &mut self.fleet[batch.source];
            let (order, device) = (&mut bed.order, bed.device.clone());
            outcomes.push(
                self.pipeline
                    .submit_reserved(credit, order, device, message),
            );
        }
        let mut stored = 0;
        for outcome in outcomes {
            match outcome.await.unwrap() {
                Outcome::Stored { readings, .. } => stored += u64::from(readings),
                other => panic!("a message of the bench was not stored: {other:?}"),
            }
        }
        stored
    }

    async fn flush(&self) -> Duration {
        let started = Instant::now();
        while self.store.flush(self.clock.now()).await.unwrap().more {}
        started.elapsed()
    }

    /// As the server does it once the days have ended: until there is nothing left to compact.
    pub async fn compact(&self, workload: &Workload) -> Vec<Compacted> {
        self.set_clock(workload.end() + SignedDuration::from_hours(26));
        let (now, settings) = (self.clock.now(), CompactionSettings::default());
        let mut levels: BTreeMap<u8, Compacted> = BTreeMap::new();
        while let Some(due) = self.store.compaction_due(now, &settings).await.unwrap() {
            let started = Instant::now();
            let report = self.store.compact(now, &settings, &Unwatched).await;
            let report = report.unwrap();
            assert_eq!((report.sealed, report.dropped), (0, 0), "everything opens");
            let done = levels.entry(due.level).or_default();
            done.level = due.level;
            done.readings += report.readings;
            done.chunks += report.chunks;
            done.time += started.elapsed();
        }
        levels.into_values().collect()
    }

    /// Runs a query to its last row; what it took is from its text to there.
    pub async fn query(&self, sql: &str) -> (Vec<RecordBatch>, Duration) {
        let started = Instant::now();
        let rows = ask(&self.session, sql).await;
        (rows, started.elapsed())
    }

    pub fn set_clock(&self, now: Timestamp) {
        self.clock.0.store(now.as_microsecond(), Ordering::Relaxed);
    }

    /// Where the store and its audit log are.
    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    pub async fn close(self) {
        drop((self.pipeline, self.session));
        self.audit.close().await;
        self.store.close().await;
        drop(self.dir);
    }
}

/// All rows of an answer.
pub async fn ask(session: &QuerySession, sql: &str) -> Vec<RecordBatch> {
    let rows = session.sql(sql).await.unwrap();
    rows.try_collect().await.unwrap()
}

async fn admit_patients(
    store: &Store,
    workload: &Workload,
    now: Timestamp,
) -> Vec<SubjectPseudonym> {
    let nameless = std::iter::repeat_n(None, workload.patients);
    let subjects = store.registry.add_patients(nameless, now).await.unwrap();
    let name: vitalseal_storage::UserName = "clinician".parse().unwrap();
    let user = NewUser {
        name: name.clone(),
        role: Role::Clinician,
        password_hash: "none".to_owned(),
        totp_secret: &[0; 20],
    };
    store.registry.add_user(user, now).await.unwrap();
    for subject in &subjects {
        store.registry.grant(&name, subject, now).await.unwrap();
    }
    subjects
}

async fn enrol(
    store: &Store,
    workload: &Workload,
    subjects: &[SubjectPseudonym],
    now: Timestamp,
) -> Vec<Bed> {
    let made = CertificateAuthority::create(now).unwrap();
    let authority = CertificateAuthority::open(
        &made.issuing_key_pem,
        &made.issuing_cert_pem,
        &made.root_cert_pem,
    )
    .unwrap();
    // One epoch for the whole bench: what changes of keys cost is not its question.
    let (epoch, until) = (KeyEpoch(0), workload.end() + SignedDuration::from_hours(24));
    let recipient = authority
        .issue_recipient(epoch, now, until, default_backend())
        .unwrap();
    let keys = &store.keys;
    keys.put_recipient(&recipient, epoch, now, until)
        .await
        .unwrap();
    let mut fleet = Vec::new();
    for Source { patient, name, .. } in workload.sources() {
        let device: DeviceId = name.parse().unwrap();
        let (key, csr) = new_device_key_and_csr(&device).unwrap();
        let issued = authority.issue_device(&csr, &device, now).unwrap();
        let (registry, subject) = (&store.registry, &subjects[patient]);
        registry
            .enroll_device(&issued.certificate, now)
            .await
            .unwrap();
        registry.assign_device(&device, subject, now).await.unwrap();
        let identity = DeviceIdentity::from_pem(key, issued.pem, authority.bundle_pem()).unwrap();
        let mode = AgreementMode::Ss {
            messages_per_session: PER_SESSION,
        };
        let (identity, recipient) = (Arc::new(identity), recipient.certificate().clone());
        fleet.push(Bed {
            device,
            sealer: Sealer::new(identity, subject.clone(), recipient, mode, 1),
            order: Order::default(),
        });
    }
    fleet
}

/// Bytes of the files in a directory, by what `name_of` makes of each path; `None` is not counted.
pub fn sizes(
    directory: &Path,
    name_of: &dyn Fn(&Path) -> Option<&'static str>,
) -> BTreeMap<&'static str, u64> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for (name, bytes) in self::sizes(&path, name_of) {
                *sizes.entry(name).or_default() += bytes;
            }
        } else if let Some(name) = name_of(&path) {
            *sizes.entry(name).or_default() += path.metadata().unwrap().len();
        }
    }
    sizes
}

/// Moved by the bench.
#[derive(Debug)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

/// Sessions are opened directly: nobody logs in.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Authenticator for Nobody {
    async fn authenticate(
        &self,
        _: &str,
        _: &str,
        _: Timestamp,
    ) -> Result<Authenticated, AuthenticationError> {
        Err(AuthenticationError::Refused)
    }
}
