//! The running server: built from the bottom crate up, taken down in reverse.
//!
//! Everything listens before anything is served; a port in use, a missing key or a locked store stops
//! the start with nothing half-running. Stopping: no new connections, sessions finish, flush, close.

mod background;
mod cluster;
mod http;
mod quarantine;
mod reload;
mod revocations;
mod space;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalseal_compliance::access::{CareTeamPolicy, Login, TokenAuthenticator};
use vitalseal_compliance::audit::AuditLog;
use vitalseal_crypto::{CertificateAuthority, default_backend};
use vitalseal_ingest::edge::{Announcer, Limits};
use vitalseal_ingest::{
    Alerts, Carrier, Clones, ClusterConsumers, ClusterMetrics, Door, Edge, EdgeDeps, EdgeMetrics,
    Pipeline, PipelineDeps,
};
use vitalseal_query::{QueryDeps, QueryLimits, QueryService, SqlServer};
use vitalseal_storage::ports::{
    Actor, AuditEvent, AuditRecord, AuditSink as _, Clock, SystemClock,
};
use vitalseal_storage::{Store, StorePaths};

pub use self::reload::Reloaded;
pub use self::revocations::Revocations;
use crate::config::Config;
use crate::{admin, custody, recipient};

/// Addresses given on the command line, which win over the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// MQTT edge.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over WebSocket.
    pub websocket: Option<SocketAddr>,
    /// PostgreSQL protocol.
    pub sql: Option<SocketAddr>,
    /// Health and metrics.
    pub http: Option<SocketAddr>,
}

/// Where the server listens.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Addresses {
    /// MQTT over TLS; not where devices connect to a cluster only.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS, where devices connect.
    pub websocket: Option<SocketAddr>,
    /// PostgreSQL protocol over TLS.
    pub sql: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
}

/// What every part of a running server may use.
#[derive(Debug)]
pub struct System {
    /// Where the server listens.
    pub addresses: Addresses,
    /// Registry, inbox, keys, catalog.
    pub store: Store,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    /// Issues certificates.
    pub authority: CertificateAuthority,
    /// Password and TOTP for a token.
    pub login: Login,
    /// Answers SQL under policy.
    pub query: Arc<QueryService>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Settings that the server was started with.
    pub config: Config,
    /// The same, but for those that were changed since; locked while they are read again.
    pub running: Mutex<Config>,
    /// Paths of the store.
    pub paths: StorePaths,
    /// Takes messages in, and those that a review releases.
    pub pipeline: Pipeline,
    /// The current envelope certificate (PEM), as published to devices.
    pub recipient: watch::Sender<Bytes>,
    /// The newest revocation list, and what the doors show.
    pub revocations: Revocations,
    /// What an operator must hear of.
    pub alerts: Alerts,
    /// Says something to many, if anybody connects here.
    pub announcer: Option<Announcer>,
    /// Counters of the edge.
    pub edge: Arc<EdgeMetrics>,
    /// Its limits, if devices connect here.
    pub edge_limits: Option<Limits>,
    /// What is done about clones.
    pub clones: Clones,
    /// Counters of the consumers, if there is a cluster.
    pub cluster: Option<Arc<ClusterMetrics>>,
}

/// What moved from the inbox into files.
#[derive(Debug, Default, Serialize)]
pub struct Flushed {
    /// Messages.
    pub messages: u64,
    /// Readings in them.
    pub readings: u64,
    /// Names of the new files.
    pub files: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    /// Its parts.
    pub system: Arc<System>,
    stop: CancellationToken,
    doors: JoinSet<()>,
    background: JoinSet<()>,
}

impl Server {
    /// Starts a server on an existing store.
    ///
    /// # Errors
    /// The store is locked, damaged or missing a key, or an address is taken.
    pub async fn start(data: &Path, overrides: Overrides) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let data = std::path::absolute(data).context("resolving the data directory")?;
        let config = Config::load(&StorePaths::new(&data, None).config())?;
        let paths = StorePaths::new(&data, Some(&config.root_keys));
        let store = Store::open(&paths, custody::open(&config), clock.now())
            .await
            .with_context(|| format!("opening the store {}", data.display()))?;

        let audit = custody::open_audit(&config, &store, &paths).await?;
        tell_of_join(&store, &audit, clock.now()).await?;
        let authority = custody::open_authority(&config, &store, &paths).await?;
        let revocations = Revocations::open(&store, &authority, &config.names, clock.now()).await?;

        recipient::tend(&store, &authority, &*audit, &config.recipient, clock.now()).await?;
        // One that does not open would be found by the first message for it, which nobody could acknowledge then.
        let opened = store.keys.recipient_ring().await;
        opened.context("opening the envelope keys")?;
        let certificate = recipient::current(&store, clock.now()).await?;
        let (recipient, published) = watch::channel(Bytes::from(certificate.to_pem()));

        store
            .inbox
            .limit_quarantine(u64::from(config.mqtt.quarantine_mib) << 20);

        let alerts = Alerts::default();
        let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let clones = Clones::new(
            store.registry.clone(),
            Arc::clone(&audit) as _,
            Arc::clone(&clock),
            alerts.clone(),
            config.mqtt.on_clone,
        );
        let pipeline = Pipeline::start(
            PipelineDeps {
                store: store.clone(),
                times: config.mqtt.times(),
                audit: Arc::clone(&audit) as _,
                clock: Arc::clone(&clock),
                clones: clones.clone(),
                backend: default_backend(),
            },
            workers,
        )
        .context("starting the verification workers")?;
        // Every door is bound before any is served: an address in use leaves nothing half-started.
        let mqtt = overrides.mqtt.unwrap_or(config.mqtt.listen);
        let consumers = cluster::consumers(&config, &pipeline, &alerts, &clock, &published)?;
        let websocket = overrides.websocket.unwrap_or(config.mqtt.websocket);
        let doors = vec![
            Door {
                listen: mqtt,
                tls: revocations.mutual(),
                carrier: Carrier::Tls,
            },
            Door {
                listen: websocket,
                // A browser that is asked for a certificate that it has not chosen ends the handshake, and a page cannot
                // have it choose. So where pages may come nobody is asked: certificates are for the other door.
                tls: match config.mqtt.origins.is_empty() {
                    true => revocations.optional(),
                    false => watch::channel(revocations.server()?).1,
                },
                carrier: Carrier::WebSocket {
                    origins: config.mqtt.origins.clone(),
                },
            },
        ];
        let authenticator = Arc::new(TokenAuthenticator::new(store.registry.clone()));
        let edge = Edge::bind(
            doors,
            EdgeDeps {
                pipeline: pipeline.clone(),
                store: store.clone(),
                authenticator: Arc::clone(&authenticator) as _,
                audit: Arc::clone(&audit) as _,
                clock: Arc::clone(&clock),
                recipient: published,
                alerts: alerts.clone(),
            },
            config.mqtt.edge_limits(),
        );
        let edge = match &config.mqtt.cluster {
            Some(cluster) if cluster.only => None,
            _ => Some(edge.await.with_context(|| {
                format!(
                    "opening the MQTT edge on {mqtt} and {websocket} (others: `--mqtt ADDR`, `--websocket ADDR`)"
                )
            })?),
        };
        let query = QueryService::new(
            QueryDeps {
                store: store.clone(),
                policy: Arc::new(CareTeamPolicy::new(store.registry.clone())),
                authenticator,
                audit: Arc::clone(&audit) as _,
                clock: Arc::clone(&clock),
            },
            QueryLimits {
                memory_bytes: config.sql.memory_mib << 20,
                deadline: Duration::from_secs(config.sql.deadline_s),
                connections: config.sql.connections,
            },
        );
        let sql = overrides.sql.unwrap_or(config.sql.listen);
        let sql = SqlServer::bind(sql, revocations.server()?, Arc::clone(&query))
            .await
            .with_context(|| format!("opening the SQL door on {sql} (another: `--sql ADDR`)"))?;
        let http = overrides.http.unwrap_or(config.http.listen);
        let http = TcpListener::bind(http).await.with_context(|| {
            format!("opening health and metrics on {http} (another: `--http ADDR`)")
        })?;
        let socket = admin::listen(&paths.admin_socket())?;
        let addresses = Addresses {
            mqtt: edge
                .as_ref()
                .and_then(|edge| edge.local_addrs().first().copied()),
            websocket: edge
                .as_ref()
                .and_then(|edge| edge.local_addrs().get(1).copied()),
            sql: sql.local_addr(),
            http: http.local_addr().context("reading the health address")?,
        };

        let system = Arc::new(System {
            addresses,
            pipeline,
            login: Login::new(store.registry.clone(), Arc::clone(&audit) as _),
            store,
            audit,
            authority,
            query,
            clock,
            running: Mutex::new(config.clone()),
            config,
            paths,
            recipient,
            revocations,
            alerts,
            announcer: edge.as_ref().map(Edge::announcer),
            edge: edge.as_ref().map(Edge::metrics).unwrap_or_default(),
            edge_limits: edge.as_ref().map(Edge::limits),
            clones,
            cluster: consumers.as_ref().map(ClusterConsumers::metrics),
        });
        system.audited(Actor::System, started()).await?;
        Ok(Self::serve(system, edge, consumers, sql, http, socket))
    }

    fn serve(
        system: Arc<System>,
        edge: Option<Edge>,
        consumers: Option<ClusterConsumers>,
        sql: SqlServer,
        http: TcpListener,
        socket: UnixListener,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut doors = JoinSet::new();
        if let Some(edge) = edge {
            doors.spawn(edge.serve(stop.clone()));
        }
        if let Some(consumers) = consumers {
            doors.spawn(consumers.serve(stop.clone()));
        }
        doors.spawn(sql.serve(stop.clone()));
        doors.spawn(http::serve(http, Arc::clone(&system), stop.clone()));
        doors.spawn(admin::serve(socket, Arc::clone(&system), stop.clone()));
        let mut background = JoinSet::new();
        background.spawn(background::flush(Arc::clone(&system), stop.clone()));
        background.spawn(space::watch(Arc::clone(&system), stop.clone()));
        background.spawn(quarantine::watch(Arc::clone(&system), stop.clone()));
        background.spawn(background::tend_recipient(
            Arc::clone(&system),
            stop.clone(),
        ));
        background.spawn(background::tend_revocations(
            Arc::clone(&system),
            stop.clone(),
        ));
        let addresses = system.addresses;
        tracing::info!(mqtt = ?addresses.mqtt, sql = %addresses.sql, http = %addresses.http, "serving");
        Self {
            addresses,
            system,
            stop,
            doors,
            background,
        }
    }

    /// Stops in order: no new connections, sessions finish, flush, close.
    ///
    /// # Errors
    /// The last flush or the last audit record could not be written; what was acknowledged is in the
    /// inbox all the same and is flushed after the next start.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.stop.cancel();
        while self.doors.join_next().await.is_some() {}
        while self.background.join_next().await.is_some() {}
        let system = self.system;
        let flushed = system.flush().await.context("flushing the inbox");
        let recorded = system
            .audited(Actor::System, AuditEvent::ServerStopped {})
            .await;
        let _ = std::fs::remove_file(system.paths.admin_socket());
        system.audit.close().await;
        system.store.clone().close().await;
        flushed?;
        recorded?;
        tracing::info!("stopped");
        Ok(())
    }
}

impl System {
    /// Writes one audit record and waits until it is durable.
    ///
    /// # Errors
    /// The audit log cannot be written; then the act it describes must not happen.
    pub async fn audited(&self, actor: Actor, event: AuditEvent) -> anyhow::Result<()> {
        let record = AuditRecord {
            at: self.clock.now(),
            actor,
            event,
        };
        self.audit
            .record(record)
            .await
            .context("writing the audit log")
    }

    /// Brings the revocation list up to what the registry says, and the doors to the list.
    ///
    /// # Errors
    /// The registry cannot be read or written, or the authority does not sign; the list before is shown.
    pub async fn renew_revocations(&self) -> anyhow::Result<()> {
        let now = self.clock.now();
        self.revocations
            .renew(&self.store, &self.authority, now)
            .await
    }

    /// Moves the inbox into Parquet and audits the file.
    ///
    /// # Errors
    /// The file, the catalog or the audit log cannot be written; the inbox keeps its rows.
    pub async fn flush(&self) -> anyhow::Result<Flushed> {
        let mut flushed = Flushed::default();
        loop {
            let report = self.store.flush(self.clock.now()).await?;
            if let Some(file) = report.file {
                flushed.messages += report.messages;
                flushed.readings += report.readings;
                flushed.files.push(file.clone());
                let (messages, readings) = (report.messages, report.readings);
                let event = AuditEvent::ReadingsFlushed {
                    file,
                    messages,
                    readings,
                };
                self.audited(Actor::System, event).await?;
            }
            if !report.more {
                return Ok(flushed);
            }
        }
    }
}

fn started() -> AuditEvent {
    AuditEvent::ServerStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// A directory that was older than the newest key snapshot, such as a copy made by hand, is another store now. At worst
/// that is recorded twice, never not at all.
async fn tell_of_join(store: &Store, audit: &AuditLog, now: Timestamp) -> anyhow::Result<()> {
    let Some(joined) = store.keys.joined().await? else {
        return Ok(());
    };
    tracing::warn!(
        snapshot = %joined.snapshot.display(),
        taken_at = %joined.taken_at,
        patients = joined.patients,
        erasures_replayed = joined.erasures_replayed,
        devices_revoked = joined.devices_revoked,
        "this data directory is from before the newest key snapshot and was joined with it: the erased stay gone; \
         what was done since the copy was made is not here"
    );
    let event = AuditEvent::StoreRestored {
        backup: None,
        root_epoch: joined.id.root_epoch,
        patients: joined.patients,
        erasures_replayed: joined.erasures_replayed,
    };
    let record = AuditRecord {
        at: now,
        actor: Actor::System,
        event,
    };
    audit
        .record(record)
        .await
        .context("recording the restore")?;
    Ok(store.keys.join_recorded().await?)
}
