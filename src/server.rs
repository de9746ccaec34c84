//! The running server: built from the bottom crate up, taken down in reverse.
//!
//! Everything listens before anything is served; a port in use, a missing key or a locked store stops
//! the start with nothing half-running. Stopping: no new connections, sessions finish, flush, close.

mod background;
mod cluster;
mod doors;
mod housekeeping;
mod http;
mod quarantine;
mod registry;
mod reload;
mod revocations;
mod space;
mod system;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::field::display;
use vitalseal_compliance::access::{CareTeamPolicy, Login, TokenAuthenticator};
use vitalseal_crypto::default_backend;
use vitalseal_ingest::{Alerts, Clones, ClusterConsumers, Edge, EdgeDeps, Pipeline, PipelineDeps};
use vitalseal_query::{QueryDeps, QueryService};
use vitalseal_storage::ports::{Actor, AuditEvent, Clock, SystemClock};

use self::doors::Doors;
pub use self::doors::{Addresses, Overrides};
pub use self::housekeeping::Tended;
pub(crate) use self::registry::tell_of_mending;
pub use self::reload::Reloaded;
pub use self::revocations::Revocations;
pub use self::system::{Flushed, System};
use crate::opened::Opened;
use crate::{admin, custody, recipient};

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    /// Its parts.
    pub system: Arc<System>,
    stop: CancellationToken,
    gone_back: CancellationToken,
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
        let Opened {
            config,
            paths,
            store,
            audit,
        } = Opened::open(data, &*clock).await?;
        let authority = custody::open_authority(&config, &store, &paths).await?;
        let revocations = Revocations::open(&store, &authority, &config.names, clock.now()).await?;

        let certificate =
            recipient::open(&store, &authority, &*audit, &config.recipient, clock.now()).await?;
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
        let authenticator = Arc::new(TokenAuthenticator::new(store.registry.clone()));
        let query = QueryService::new(
            QueryDeps {
                store: store.clone(),
                policy: Arc::new(CareTeamPolicy::new(store.registry.clone())),
                authenticator: Arc::clone(&authenticator) as _,
                audit: Arc::clone(&audit) as _,
                clock: Arc::clone(&clock),
            },
            config.sql.limits(),
        );
        let consumers = cluster::consumers(&config, &pipeline, &alerts, &clock, &published)?;
        let deps = EdgeDeps {
            pipeline: pipeline.clone(),
            store: store.clone(),
            authenticator,
            audit: Arc::clone(&audit) as _,
            clock: Arc::clone(&clock),
            recipient: published,
            alerts: alerts.clone(),
        };
        let doors = Doors {
            edge: doors::edge(&config.mqtt, overrides, &revocations, deps).await?,
            consumers,
            sql: doors::sql(&config, overrides, &revocations, &query).await?,
            http: doors::http(&config, overrides).await?,
            socket: admin::listen(&paths.admin_socket())?,
        };

        let edge = doors.edge.as_ref();
        let system = Arc::new(System {
            addresses: doors.addresses()?,
            pipeline,
            reviewing: Mutex::default(),
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
            announcer: edge.map(Edge::announcer),
            edge: edge.map(Edge::metrics).unwrap_or_default(),
            edge_limits: edge.map(Edge::limits),
            clones,
            tended: Tended::default(),
            cluster: doors.consumers.as_ref().map(ClusterConsumers::metrics),
        });
        system.audited(Actor::System, started()).await?;
        Ok(Self::serve(system, doors))
    }

    fn serve(system: Arc<System>, bound: Doors) -> Self {
        let stop = CancellationToken::new();
        let gone_back = CancellationToken::new();
        let mut doors = JoinSet::new();
        if let Some(edge) = bound.edge {
            doors.spawn(edge.serve(stop.clone()));
        }
        if let Some(consumers) = bound.consumers {
            doors.spawn(consumers.serve(stop.clone()));
        }
        doors.spawn(bound.sql.serve(stop.clone()));
        doors.spawn(http::serve(bound.http, Arc::clone(&system), stop.clone()));
        doors.spawn(admin::serve(
            bound.socket,
            Arc::clone(&system),
            stop.clone(),
        ));
        let mut background = JoinSet::new();
        let (watched, to_stop) = (gone_back.clone(), stop.clone());
        background.spawn(registry::watch(Arc::clone(&system), watched, to_stop));
        background.spawn(background::flush(Arc::clone(&system), stop.clone()));
        background.spawn(housekeeping::tend(Arc::clone(&system), stop.clone()));
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
        // A door that is not open is not named.
        let [mqtt, websocket] = [addresses.mqtt, addresses.websocket].map(|at| at.map(display));
        let (sql, http) = (addresses.sql, addresses.http);
        tracing::info!(mqtt, websocket, %sql, %http, "serving");
        Self {
            addresses,
            system,
            stop,
            gone_back,
            doors,
            background,
        }
    }

    /// Comes when the registry went back under this server: then [`Server::stop`] it, at once.
    pub async fn gone_back(&self) {
        self.gone_back.cancelled().await;
    }

    /// Stops in order: no new connections, sessions finish, flush, close.
    ///
    /// # Errors
    /// The last flush or the last audit record could not be written; what was acknowledged is in the
    /// inbox all the same and is flushed after the next start. Or the registry went back.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        self.stop.cancel();
        while self.doors.join_next().await.is_some() {}
        while self.background.join_next().await.is_some() {}
        let system = self.system;
        let flushed = match self.gone_back.is_cancelled() {
            false => system.flush().await.context("flushing the inbox"),
            true => Err(anyhow!(
                "the registry went back under this server: start it again, it then brings back what the key snapshots \
                 and the inbox know"
            )),
        };
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

fn started() -> AuditEvent {
    AuditEvent::ServerStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
