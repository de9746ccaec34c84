//! A whole edge on 127.0.0.1: real authority, real TLS, real store in a temporary directory, an audit sink that can be
//! stopped and broken. Devices are made here, and messages sealed as a device seals them.

#[path = "rig/doubles.rs"]
mod doubles;
#[path = "rig/tls.rs"]
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::{
    Agreement, CertificateAuthority, ContentType, DeviceCertificate, DeviceId, DeviceSigner,
    KeyEpoch, MessageId, RecipientCertificate, SealRequest, SealedMessage, SubjectPseudonym,
    default_backend, new_device_key_and_csr, seal,
};
use vitalseal_ingest::edge::{Announcer, Limits};
use vitalseal_ingest::{
    Alerts, Carrier, Clones, Door, Edge, EdgeDeps, EdgeLimits, EdgeMetrics, OnClone, Outcome,
    Pipeline, PipelineDeps, TimeLimits,
};
use vitalseal_storage::{
    AuditSink, Clock, FileRootProvider, NewUser, Role, Store, StorePaths, SystemClock, UserName,
    Wards,
};
use vitalseal_vitals::{Reading, senml, signal};

pub(crate) use self::doubles::{Gate, TestAudit, TestClock, Tokens};
pub(crate) use self::tls::{client_config, server_config};

/// The one page that may open a WebSocket.
pub(crate) const PAGE: &str = "https://ward.example.org";

/// Longer than anything here takes; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) store: Store,
    pub(crate) pipeline: Pipeline,
    pub(crate) audit: Arc<TestAudit>,
    pub(crate) alerts: Alerts,
    pub(crate) authority: CertificateAuthority,
    pub(crate) recipient: RecipientCertificate,
    pub(crate) recipient_pem: watch::Sender<Bytes>,
    pub(crate) patient: SubjectPseudonym,
    pub(crate) addr: SocketAddr,
    /// The WebSocket door, which pages of [`PAGE`] may use.
    pub(crate) websocket: SocketAddr,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) announcer: Announcer,
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) limits: Limits,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    deps: EdgeDeps,
    dir: TempDir,
}

pub(crate) fn new_authority() -> CertificateAuthority {
    let new = CertificateAuthority::create(SystemClock.now()).unwrap();
    CertificateAuthority::open(
        &new.issuing_key_pem,
        &new.issuing_cert_pem,
        &new.root_cert_pem,
    )
    .unwrap()
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with_limits(EdgeLimits::default()).await
    }

    /// Clones raise an alert and nothing more, so that tests can go on after one.
    pub(crate) async fn with_limits(limits: EdgeLimits) -> Self {
        Self::with(limits, OnClone::Alert).await
    }

    pub(crate) async fn with(limits: EdgeLimits, on_clone: OnClone) -> Self {
        let now = SystemClock.now();
        let dir = tempfile::tempdir().unwrap();
        let (data, root_keys) = directories(dir.path());
        let paths = StorePaths::new(&data, Some(&root_keys));
        let roots = Arc::new(FileRootProvider::new(&root_keys));
        let store = Store::create(&paths, roots, now).await.unwrap();

        let authority = new_authority();
        let backend = default_backend();
        let (from, until) = (now, now + SignedDuration::from_hours(24));
        let key = authority
            .issue_recipient(KeyEpoch(1), from, until, backend)
            .unwrap();
        store
            .keys
            .put_recipient(&key, KeyEpoch(1), from, until)
            .await
            .unwrap();
        let recipient = RecipientCertificate::from_pem(&key.certificate().to_pem()).unwrap();
        let patient = store
            .registry
            .add_patient(Some("A B"), None, now)
            .await
            .unwrap();

        let audit = Arc::new(TestAudit::default());
        let clock = Arc::new(TestClock::default());
        let alerts = Alerts::default();
        let pipeline = pipeline(&store, &audit, &clock, &alerts, on_clone);
        let tokens = Arc::new(Tokens::default());
        let recipient_pem = watch::Sender::new(Bytes::from(recipient.to_pem()));
        let deps = EdgeDeps {
            pipeline: pipeline.clone(),
            store: store.clone(),
            audit: Arc::clone(&audit) as _,
            authenticator: Arc::clone(&tokens) as _,
            clock: Arc::clone(&clock) as _,
            recipient: recipient_pem.subscribe(),
            alerts: alerts.clone(),
        };
        let edge = open_doors(&authority, deps.clone(), limits).await;
        let (metrics, limits) = (edge.metrics(), edge.limits());
        let (addr, websocket) = addresses(&edge);
        let announcer = edge.announcer();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(edge.serve(shutdown.clone()));
        Self {
            clock,
            store,
            pipeline,
            audit,
            alerts,
            authority,
            recipient,
            recipient_pem,
            patient,
            addr,
            websocket,
            tokens,
            announcer,
            metrics,
            limits,
            shutdown,
            serving,
            deps,
            dir,
        }
    }

    /// The server, stopped and started again over its own data.
    pub(crate) async fn restart(&mut self) {
        let data = self.directories().0;
        self.restart_over(&data).await;
    }

    /// The same over other data: a copy that was made while it ran is what a power cut leaves.
    pub(crate) async fn restart_over(&mut self, data: &Path) {
        self.shutdown.cancel();
        (&mut self.serving).await.unwrap();
        self.reopened(data).await;
        let deps = EdgeDeps {
            pipeline: self.pipeline.clone(),
            store: self.store.clone(),
            ..self.deps.clone()
        };
        let edge = open_doors(&self.authority, deps, EdgeLimits::default()).await;
        (self.metrics, self.limits) = (edge.metrics(), edge.limits());
        (self.addr, self.websocket) = addresses(&edge);
        self.shutdown = CancellationToken::new();
        self.serving = tokio::spawn(edge.serve(self.shutdown.clone()));
    }

    /// An enrolled device, assigned to the rig's patient.
    pub(crate) async fn device(&self, name: &str) -> Device {
        let device = self.stranger(name, &self.authority);
        let now = SystemClock.now();
        self.store
            .registry
            .enroll_device(&device.certificate, now)
            .await
            .unwrap();
        self.store
            .registry
            .assign_device(&device.id, &self.patient, now)
            .await
            .unwrap();
        device
    }

    /// A device with a certificate of `authority` that was never enrolled.
    pub(crate) fn stranger(&self, name: &str, authority: &CertificateAuthority) -> Device {
        let id: DeviceId = name.parse().unwrap();
        let (key_pem, csr) = new_device_key_and_csr(&id).unwrap();
        let issued = authority
            .issue_device(&csr, &id, SystemClock.now())
            .unwrap();
        let signer = DeviceSigner::from_pkcs8_pem(&key_pem, &issued.pem).unwrap();
        let tls = client_config(&issued.pem, &key_pem, &self.authority.bundle_pem());
        Device {
            id,
            certificate: issued.certificate,
            signer,
            tls,
        }
    }

    /// An enrolled display or service; its name is its certificate's, such as `display:icu`.
    pub(crate) async fn subscriber(&self, name: &str, wards: Wards) -> Arc<ClientConfig> {
        let (subscriber, now) = (name.parse().unwrap(), SystemClock.now());
        let (key_pem, csr) = new_device_key_and_csr(&"any".parse().unwrap()).unwrap();
        let issued = self
            .authority
            .issue_subscriber(&csr, &subscriber, now)
            .unwrap();
        let registry = &self.store.registry;
        registry
            .enroll_subscriber(&issued.certificate, &wards, now)
            .await
            .unwrap();
        client_config(&issued.pem, &key_pem, &self.authority.bundle_pem())
    }

    /// A person with a login, who may hear these wards and whose token is `token-of-NAME`.
    pub(crate) async fn person(&self, name: &str, role: Role, wards: &[&str]) {
        let (user, now): (UserName, _) = (name.parse().unwrap(), SystemClock.now());
        let new = NewUser {
            name: user.clone(),
            role,
            password_hash: "none".to_owned(),
            totp_secret: b"none",
        };
        let registry = &self.store.registry;
        registry.add_user(new, now).await.unwrap();
        for ward in wards {
            let ward = ward.parse().unwrap();
            registry.grant_ward(&user, &ward, now).await.unwrap();
        }
        self.tokens.give(name, role);
    }

    /// TLS of somebody without a certificate.
    pub(crate) fn nobody(&self) -> Arc<ClientConfig> {
        tls::without_certificate(&self.authority.bundle_pem())
    }

    /// An envelope with one reading.
    pub(crate) fn seal(&self, device: &Device, sequence: u64) -> Vec<u8> {
        self.seal_value(device, sequence, 72.0)
    }

    pub(crate) fn seal_value(&self, device: &Device, sequence: u64, value: f64) -> Vec<u8> {
        let payload = senml::encode(&[reading(value)]);
        self.seal_payload(device, &self.patient, sequence, &payload)
    }

    pub(crate) fn seal_payload(
        &self,
        device: &Device,
        subject: &SubjectPseudonym,
        sequence: u64,
        payload: &[u8],
    ) -> Vec<u8> {
        self.seal_message(
            device,
            subject,
            sequence,
            None,
            payload,
            Agreement::Ephemeral,
        )
        .bytes
    }

    /// An envelope with one reading, in a chain.
    pub(crate) fn seal_link(
        &self,
        device: &Device,
        sequence: u64,
        previous: Option<[u8; 32]>,
        agreement: Agreement<'_>,
    ) -> SealedMessage {
        let payload = senml::encode(&[reading(72.0)]);
        self.seal_message(
            device,
            &self.patient,
            sequence,
            previous,
            &payload,
            agreement,
        )
    }

    pub(crate) fn seal_message(
        &self,
        device: &Device,
        subject: &SubjectPseudonym,
        sequence: u64,
        previous: Option<[u8; 32]>,
        payload: &[u8],
        agreement: Agreement<'_>,
    ) -> SealedMessage {
        let request = SealRequest {
            content_type: ContentType::SenmlCbor,
            device: &device.id,
            subject,
            issued_at: SystemClock.now(),
            boot: 1,
            sequence,
            previous,
        };
        let (signer, backend) = (&device.signer, default_backend());
        seal(
            &request,
            payload,
            &self.recipient,
            agreement,
            signer,
            backend,
        )
        .unwrap()
    }

    /// Takes one message through the pipeline.
    pub(crate) async fn submit(&self, device: &Device, message: Vec<u8>) -> Outcome {
        let message = Bytes::from(message);
        self.pipeline.submit(&device.id, message).await.unwrap()
    }

    /// Issues and keeps another envelope key, as the server does at the end of an epoch.
    pub(crate) async fn next_epoch(&self, epoch: u64) -> RecipientCertificate {
        let (from, epoch) = (SystemClock.now(), KeyEpoch(epoch));
        let until = from + SignedDuration::from_hours(72);
        let key = self
            .authority
            .issue_recipient(epoch, from, until, default_backend())
            .unwrap();
        let keys = &self.store.keys;
        keys.put_recipient(&key, epoch, from, until).await.unwrap();
        RecipientCertificate::from_pem(&key.certificate().to_pem()).unwrap()
    }

    /// Data and root keys.
    pub(crate) fn directories(&self) -> (PathBuf, PathBuf) {
        directories(self.dir.path())
    }

    /// A store that is opened again, and a pipeline on it.
    pub(crate) async fn reopened(&mut self, data: &Path) {
        self.store.clone().close().await;
        let root_keys = self.directories().1;
        let paths = StorePaths::new(data, Some(&root_keys));
        let roots = Arc::new(FileRootProvider::new(&root_keys));
        self.store = Store::open(&paths, roots, SystemClock.now()).await.unwrap();
        let (store, audit, clock) = (&self.store, &self.audit, &self.clock);
        self.pipeline = pipeline(store, audit, clock, &self.alerts, OnClone::Alert);
    }

    pub(crate) async fn rows(&self) -> u64 {
        self.store.inbox.pending().await.unwrap().0
    }

    pub(crate) async fn is_stored(&self, device: &Device, sequence: u64) -> bool {
        let message = MessageId {
            device: device.id.clone(),
            boot: 1,
            sequence,
        };
        self.store.inbox.seen(&message).await.unwrap().is_some()
    }
}

pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) certificate: DeviceCertificate,
    pub(crate) signer: DeviceSigner,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Device {
    pub(crate) fn vitals(&self) -> String {
        format!("v1/d/{}/vitals", self.id)
    }
}

pub(crate) fn reading(value: f64) -> Reading {
    Reading {
        signal: signal("8867-4").unwrap(),
        value,
        at: Timestamp::from_second(SystemClock.now().as_second()).unwrap(),
    }
}

fn directories(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("data"), dir.join("root"))
}

/// Both doors: MQTT in TLS, and in a WebSocket.
async fn open_doors(authority: &CertificateAuthority, deps: EdgeDeps, limits: EdgeLimits) -> Edge {
    let server = authority.issue_server(&["localhost"], SystemClock.now());
    let server = server.unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let door = |carrier, optional| {
        let ca = authority.bundle_pem();
        let config = server_config(&server.chain_pem, &server.key_pem, &ca, optional);
        let (_, tls) = watch::channel(config);
        Door {
            listen,
            tls,
            carrier,
        }
    };
    let origins = vec![PAGE.to_owned()];
    let doors = vec![
        door(Carrier::Tls, false),
        door(Carrier::WebSocket { origins }, true),
    ];
    Edge::bind(doors, deps, limits).await.unwrap()
}

fn addresses(edge: &Edge) -> (SocketAddr, SocketAddr) {
    let [addr, websocket] = *edge.local_addrs() else {
        panic!("two doors");
    };
    (addr, websocket)
}

fn pipeline(
    store: &Store,
    audit: &Arc<TestAudit>,
    clock: &Arc<TestClock>,
    alerts: &Alerts,
    on_clone: OnClone,
) -> Pipeline {
    let sink: Arc<dyn AuditSink> = Arc::clone(audit) as _;
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let deps = PipelineDeps {
        store: store.clone(),
        times: TimeLimits::default(),
        clones: Clones::new(
            store.registry.clone(),
            Arc::clone(&sink),
            Arc::clone(&clock),
            alerts.clone(),
            on_clone,
        ),
        audit: sink,
        clock,
        backend: default_backend(),
    };
    Pipeline::start(deps, 2).unwrap()
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
