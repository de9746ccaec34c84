//! The MQTT front door: one TLS port, v3.1.1 and v5, one task a connection.
//!
//! * [`Edge`] binds and supervises; `accept` takes connections and never waits for a peer.
//! * `connection` takes one peer from TLS handshake to session, `serving` runs the session; `session` is the protocol
//!   itself, without I/O.
//! * `frame` and `codec` turn bytes into packets; `acl` says which topics exist.
//! * `directory` knows who is connected, so that a device is there once and a revoked one not at all; `clones` notices
//!   two who take a session from each other.
//! * `fanout` owns the router for what the server says to many.

mod accept;
mod acl;
mod clones;
mod closing;
mod codec;
mod connection;
mod directory;
#[expect(dead_code, reason = "the session is about to ask it")]
mod downlink;
mod fanout;
mod frame;
mod identity;
mod limits;
mod metered;
mod metrics;
mod packet;
mod rate;
mod refusals;
mod serving;
mod session;
mod slots;
mod turns;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::DeviceId;
use vitalseal_storage::{AuditSink, Clock, Store, Ward};

pub use self::acl::{NOTICES_TOPIC, RECIPIENT_TOPIC};
pub use self::closing::Closing;
pub use self::limits::{EdgeLimits, Limits};
pub use self::metrics::EdgeMetrics;
pub use self::rate::Rate;

use self::clones::Takeovers;
use self::connection::Context;
use self::directory::Directory;
use self::fanout::{Fanout, Topic};
use self::identity::ClientId;
use self::rate::Throttles;
use self::refusals::Refusals;
use crate::alerts::Alerts;
use crate::pipeline::Pipeline;

/// A port that peers come to, and what they are met with.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where to listen.
    pub listen: SocketAddr,
    /// TLS of the connections to come; a new value is for them, those that stand go on.
    pub tls: watch::Receiver<Arc<ServerConfig>>,
}

/// What the edge works with.
#[derive(Debug, Clone)]
pub struct EdgeDeps {
    /// Where messages go.
    pub pipeline: Pipeline,
    /// Its registry says who may connect.
    pub store: Store,
    /// Where refused devices are recorded.
    pub audit: Arc<dyn AuditSink>,
    /// For certificate windows and records.
    pub clock: Arc<dyn Clock>,
    /// PEM of the current envelope certificate, retained on [`RECIPIENT_TOPIC`].
    pub recipient: watch::Receiver<Bytes>,
    /// What is published to displays on `v1/alerts/system`.
    pub alerts: Alerts,
}

/// The edge could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// The address is in use, or not ours.
    #[error("listening on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The fan-out router did not start.
    #[error("starting the fan-out router")]
    Fanout(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A bound edge. Connections are taken once [`Edge::serve`] runs.
#[derive(Debug)]
pub struct Edge {
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: watch::Receiver<Arc<ServerConfig>>,
    alerts: Alerts,
    context: Arc<Context>,
    recipient: watch::Receiver<Bytes>,
    /// Subscribed before the first connection, so that no revocation is missed.
    device_changes: broadcast::Receiver<DeviceId>,
}

impl Edge {
    /// Listens at `door`, whose TLS must ask for client certificates of the device authority; a connection that brought
    /// none is closed in any case.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn bind(door: Door, deps: EdgeDeps, limits: EdgeLimits) -> Result<Self, EdgeError> {
        let address = door.listen;
        let failed = |cause| EdgeError::Listen { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let fanout = tokio::task::spawn_blocking(Fanout::start)
            .await
            .map_err(|error| EdgeError::Fanout(error.into()))?
            .map_err(|error| EdgeError::Fanout(error.into()))?;
        let device_changes = deps.store.registry.subscribe_devices();
        let context = Context {
            pipeline: deps.pipeline,
            store: deps.store,
            refusals: Refusals::new(deps.audit, Arc::clone(&deps.clock)),
            clock: deps.clock,
            limits: Limits::new(limits),
            throttles: Throttles::default(),
            metrics: Arc::default(),
            directory: Arc::new(Directory::default()),
            takeovers: Takeovers::default(),
            fanout,
            shutdown: CancellationToken::new(),
        };
        Ok(Self {
            listener,
            local_addr,
            tls: door.tls,
            alerts: deps.alerts,
            context: Arc::new(context),
            recipient: deps.recipient,
            device_changes,
        })
    }

    /// Where it listens: the port, when `addr` left it open.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its counters; they go on living after the edge.
    pub fn metrics(&self) -> Arc<EdgeMetrics> {
        Arc::clone(&self.context.metrics)
    }

    /// Its limits, to be changed while it serves.
    pub fn limits(&self) -> Limits {
        self.context.limits.clone()
    }

    /// Serves until `shutdown`. Then: no more connections, no more reading, acknowledgements under way are sent for a
    /// bounded time, v5 clients are told 0x8B, and what is left is cut.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self {
            listener,
            tls,
            alerts,
            context,
            recipient,
            device_changes,
            ..
        } = self;
        let mut connections = JoinSet::new();
        let mut helpers = JoinSet::new();
        helpers.spawn(announce(Arc::clone(&context), recipient));
        helpers.spawn(publish_alerts(Arc::clone(&context), alerts));
        helpers.spawn(watch_devices(Arc::clone(&context), device_changes));
        accept::until(&shutdown, &listener, &tls, &context, &mut connections).await;
        drop(listener);
        tracing::info!(connections = connections.len(), "edge stops");
        context.shutdown.cancel();
        // Draining, then one write and the last words.
        let limits = context.limits.get();
        let patience = limits.drain_deadline + limits.write_deadline;
        let ended = tokio::time::timeout(patience, async {
            while connections.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "cutting connections that did not end"
            );
        }
        connections.shutdown().await;
        helpers.shutdown().await;
    }
}

/// Publishes the envelope certificate, now and whenever it changes.
async fn announce(context: Arc<Context>, mut recipient: watch::Receiver<Bytes>) {
    loop {
        let newest = recipient.borrow_and_update().clone();
        if !newest.is_empty() {
            context.fanout.publish(Topic::Recipient, newest).await;
        }
        if recipient.changed().await.is_err() {
            return; // its owner is gone; what was published stays
        }
    }
}

/// Publishes what is raised, for displays and services.
async fn publish_alerts(context: Arc<Context>, alerts: Alerts) {
    let mut raised = alerts.subscribe();
    loop {
        let alert = match raised.recv().await {
            Ok(alert) => alert,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::error!(missed, "alerts came faster than they were published");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        match serde_json::to_vec(&alert) {
            Ok(json) => {
                let topic = Topic::Alerts(Ward::system());
                context.fanout.publish(topic, json.into()).await;
            }
            Err(error) => tracing::error!(%error, "an alert could not be written as JSON"),
        }
    }
}

/// Closes the connection of a device that is no longer active under the certificate that it connected with.
async fn watch_devices(context: Arc<Context>, mut changes: broadcast::Receiver<DeviceId>) {
    loop {
        let changed = match changes.recv().await {
            Ok(device) => context
                .directory
                .connected_as(&ClientId::of_device(&device))
                .into_iter()
                .collect(),
            // Too many changes at once to have been told each: ask for everybody.
            Err(broadcast::error::RecvError::Lagged(_)) => context.directory.connected(),
            Err(broadcast::error::RecvError::Closed) => return,
        };
        for principal in changed {
            // When the registry cannot say, the connection ends as well: it may try again.
            if !context.is_welcome(&principal).await.unwrap_or(false) {
                context.directory.revoke(&principal.client_id());
            }
        }
    }
}
