//! The MQTT front door: TLS, bare or with WebSocket in it, v3.1.1 and v5, one task a connection.
//!
//! * [`Edge`] binds and supervises. `accept` takes connections and never waits for a peer: `slots` says how many there may
//!   be, `turns` how many handshakes begin.
//! * `connection` takes one peer from TLS handshake to session. `wire` is its bytes, `metered` their pace, `websocket` their
//!   frames; `frame` and `codec` make a `packet` of them.
//! * `identity` says who a peer proved to be, `welcome` whether it may come in, `acl` which topics it has; `refusals` records
//!   who was turned away.
//! * `serving` runs a session until its `closing`; `session` is the protocol itself, without I/O, and `will` speaks for
//!   whoever is gone.
//! * `subscriptions` is what a session hears, `inflight` what it did not acknowledge, `teller` what it is told next: of
//!   `downlink` what is for one device, of `fanout`, which owns the router, what is for many. `announcer` lends that to
//!   operators.
//! * `directory` knows who is connected, so that a client is there once and a revoked one not at all; `kept` is what of a
//!   session is on disk; `clones` notices two who take a session from each other.
//! * `limits`, `rate` and `metrics` are numbers: what may be, how fast, and what was. `corpus` replays the fuzzer's seeds.

mod accept;
mod acl;
mod announcer;
mod clones;
mod closing;
mod codec;
mod connection;
#[cfg(test)]
mod corpus;
mod directory;
mod downlink;
mod fanout;
mod frame;
mod identity;
mod inflight;
mod kept;
mod limits;
mod metered;
mod metrics;
mod packet;
pub(crate) mod rate;
mod refusals;
mod serving;
mod session;
mod slots;
mod subscriptions;
mod teller;
mod turns;
mod websocket;
mod welcome;
mod will;
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
use vitalseal_storage::{AuditSink, Authenticator, Clock, InboxError, Store, Ward};

pub use self::acl::{NOTICES_TOPIC, RECIPIENT_TOPIC};
pub use self::announcer::{Announcer, MAX_NOTICE_BYTES, NoticeSize};
pub use self::closing::Closing;
pub use self::limits::{EdgeLimits, Limits};
pub use self::metrics::EdgeMetrics;
pub use self::rate::Rate;

use self::clones::Takeovers;
use self::connection::Context;
use self::directory::Directory;
use self::fanout::{Fanout, Topic};
use self::identity::{ClientId, Principal};
use self::kept::KeptSessions;
use self::rate::Throttles;
use self::refusals::Refusals;
use self::will::Wills;
use crate::alerts::Alerts;
use crate::pipeline::Pipeline;

/// A port that peers come to, and what they are met with.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where to listen.
    pub listen: SocketAddr,
    /// TLS of the connections to come; a new value is for them, those that stand go on.
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    /// What is spoken in it.
    pub carrier: Carrier,
}

/// What carries MQTT's bytes at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// TLS alone: whoever comes has to show a certificate.
    Tls,
    /// WebSocket in TLS: a person may come with a token instead.
    WebSocket {
        /// Pages that may open one in a browser, as it names them: `https://ward.example.org`.
        origins: Vec<String>,
    },
}

/// A port that is open, and what its connections are met with. They hold the latter alone: no more come once the edge
/// lets go of the port.
type Open = (TcpListener, Arc<Entrance>);

/// What the connections of a door are met with.
#[derive(Debug)]
struct Entrance {
    tls: watch::Receiver<Arc<ServerConfig>>,
    carrier: Carrier,
}

/// What the edge works with.
#[derive(Debug, Clone)]
pub struct EdgeDeps {
    /// Where messages go.
    pub pipeline: Pipeline,
    /// Its registry says who may connect.
    pub store: Store,
    /// Checks the tokens of people.
    pub authenticator: Arc<dyn Authenticator>,
    /// Where refused clients are recorded.
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
    /// The sessions that outlived the process before could not be read.
    #[error("reading the sessions of devices from the inbox")]
    Sessions(#[source] InboxError),
    /// The fan-out router did not start.
    #[error("starting the fan-out router")]
    Fanout(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A bound edge. Connections are taken once [`Edge::serve`] runs.
#[derive(Debug)]
pub struct Edge {
    doors: Vec<Open>,
    local_addrs: Vec<SocketAddr>,
    alerts: Alerts,
    context: Arc<Context>,
    recipient: watch::Receiver<Bytes>,
    /// Subscribed before the first connection, so that no revocation is missed.
    device_changes: broadcast::Receiver<DeviceId>,
    listener_changes: watch::Receiver<()>,
}

impl Edge {
    /// Listens at `doors`, whose TLS must ask for client certificates of the device authority: what is shown is taken to
    /// be checked. A connection that brought none is closed, but where a person may come.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn bind(
        doors: Vec<Door>,
        deps: EdgeDeps,
        limits: EdgeLimits,
    ) -> Result<Self, EdgeError> {
        let (mut open, mut local_addrs) = (Vec::new(), Vec::new());
        for door in doors {
            let address = door.listen;
            let failed = |cause| EdgeError::Listen { address, cause };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            local_addrs.push(listener.local_addr().map_err(failed)?);
            let entrance = Entrance {
                tls: door.tls,
                carrier: door.carrier,
            };
            open.push((listener, Arc::new(entrance)));
        }
        let fanout = tokio::task::spawn_blocking(Fanout::start)
            .await
            .map_err(|error| EdgeError::Fanout(error.into()))?
            .map_err(|error| EdgeError::Fanout(error.into()))?;
        let kept = KeptSessions::load(deps.store.inbox.clone(), Arc::clone(&deps.clock));
        let kept = kept.await.map_err(EdgeError::Sessions)?;
        let device_changes = deps.store.registry.subscribe_devices();
        let listener_changes = deps.store.registry.listeners_changed();
        let context = Context {
            pipeline: deps.pipeline,
            store: deps.store,
            refusals: Refusals::new(deps.audit, Arc::clone(&deps.clock)),
            clock: deps.clock,
            authenticator: deps.authenticator,
            limits: Limits::new(limits),
            throttles: Throttles::default(),
            metrics: Arc::default(),
            directory: Arc::new(Directory::default()),
            kept,
            takeovers: Takeovers::default(),
            wills: Wills::default(),
            fanout,
            shutdown: CancellationToken::new(),
        };
        Ok(Self {
            doors: open,
            local_addrs,
            alerts: deps.alerts,
            context: Arc::new(context),
            recipient: deps.recipient,
            device_changes,
            listener_changes,
        })
    }

    /// Where it listens, in the order of the doors: the ports, when they were left open.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Its counters; they go on living after the edge.
    pub fn metrics(&self) -> Arc<EdgeMetrics> {
        Arc::clone(&self.context.metrics)
    }

    /// For what an operator says to many.
    pub fn announcer(&self) -> Announcer {
        Announcer::new(self.context.fanout.clone())
    }

    /// Its limits, to be changed while it serves.
    pub fn limits(&self) -> Limits {
        self.context.limits.clone()
    }

    /// Serves until `shutdown`. Then: no more connections, no more reading, acknowledgements under way are sent for a
    /// bounded time, v5 clients are told 0x8B, and what is left is cut.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self {
            doors,
            alerts,
            context,
            recipient,
            device_changes,
            listener_changes,
            ..
        } = self;
        let mut connections = JoinSet::new();
        let mut helpers = JoinSet::new();
        helpers.spawn(announce(Arc::clone(&context), recipient));
        helpers.spawn(publish_alerts(Arc::clone(&context), alerts));
        helpers.spawn(watch_devices(Arc::clone(&context), device_changes));
        let swept = Arc::clone(&context);
        helpers.spawn(async move { swept.kept.run(&swept.directory).await });
        let recorded = Arc::clone(&context);
        helpers.spawn(async move { recorded.refusals.run().await });
        helpers.spawn(watch_listeners(Arc::clone(&context), listener_changes));
        accept::until(&shutdown, &doors, &context, &mut connections).await;
        drop(doors);
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
        context.wills.finish(limits.drain_deadline).await;
        helpers.shutdown().await;
        context.kept.sweep().await;
        context.refusals.finish().await;
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
            revoke_unless_welcome(&context, &principal).await;
        }
    }
}

/// The same for displays and services. There are few, and they change rarely: after a change all are looked at.
async fn watch_listeners(context: Arc<Context>, mut changes: watch::Receiver<()>) {
    while changes.changed().await.is_ok() {
        for principal in context.directory.connected() {
            if principal.device().is_none() {
                revoke_unless_welcome(&context, &principal).await;
            }
        }
    }
}

async fn revoke_unless_welcome(context: &Context, principal: &Principal) {
    // When the registry cannot say, the connection ends as well: it may try again.
    let is_welcome = matches!(context.welcome(principal).await, Ok(Some(_)));
    if !is_welcome && context.directory.revoke(principal) {
        context.kept.leave(&principal.client_id(), 0);
    }
}
