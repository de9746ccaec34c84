//! The second way in, for a site that runs an MQTT cluster already: devices publish there, and consumers take it out.
//!
//! ```text
//!  device ──MQTT/TLS──▶ cluster ──$share/ingest──▶ consumer 0 ─┐
//!  outbox     ▲         queues      QoS 1      ──▶ consumer 1 ─┼─▶ pipeline ─▶ inbox
//!    ▲        │            ▲                        …         ─┘               fsynced
//!    │   v1/recipient      │                                                     │
//!    │   (retained) ◀──────│────────────────────── consumer 0                    │
//!    └── PUBACK: the       └── PUBACK: the outcome is durable ◀──────────────────┘
//!        cluster has it
//! ```
//!
//! A message leaves the cluster when it is stored, known already, or quarantined; whatever comes between, the cluster
//! sends it again and the pipeline knows it. So between what the cluster keeps and the inbox nothing is lost or doubled.
//! What the *device* is told is the cluster's word: when it forgets a message, the cluster has it, and how safely is the
//! cluster's affair.
//!
//! # What is different without a TLS session of the device
//!
//! * The topic names the device. The envelope must name the same one, and its signature proves it. State of the device,
//!   assignment and everything else of the pipeline is checked for each message.
//! * A revoked device stays connected to the cluster; its messages are refused here. Two connections under one
//!   certificate, as a sign of a clone, are not seen; forks in the signed chain are.
//! * Who may publish where is the cluster's access list. A stranger who may publish can store nothing, and can fill the
//!   quarantine, slowly: beyond 600 messages and one a second what is not signed is counted, and not kept aside. The
//!   record of a refusal names the device that the topic named.
//! * The device does not hear that a message has to come with its session key in full. One that only names a key which is
//!   not known is waited with, as its introduction may be on its way through another consumer, and then quarantined.
//! * Nor can it address a message anew that it has forgotten: what waits in the cluster for longer than the envelope key
//!   lives that it was sealed for is quarantined, and opens for nobody.
//!
//! # Order
//!
//! The cluster spreads one device's messages over the consumers. Here they are admitted in the order in which they reached
//! this process (`orders`). Where one overtook another before, or through another node, a gap is told that closes when
//! the other one comes.
//!
//! # Sessions
//!
//! Each consumer has an MQTT 5 session that never expires on our account: what the cluster chose for it waits while we
//! are away, and nothing is kept there before a consumer was connected for the first time. So a consumer that is not wanted any more has to be removed at the cluster too; its share waits there
//! otherwise. Each connection is made afresh (`connection`); nothing of ours has to survive it, as acknowledgements
//! only concern what comes again.
//!
//! Never here: an acknowledgement before the outcome is durable; a signed message that is dropped; a topic's or a message's text
//! in a log.

mod connection;
mod consumer;
mod metrics;
mod orders;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vitalseal_storage::Clock;

pub use self::metrics::ClusterMetrics;

use self::consumer::Consumer;
use self::orders::Orders;
use crate::alerts::{Alert, Alerts};
use crate::pipeline::Pipeline;

/// What every consumer of every node subscribes to: the cluster gives each message to one of them (MQTT 5 §4.8.2).
pub const SHARED_FILTER: &str = "$share/ingest/v1/d/+/vitals";

/// What a consumer that is alone subscribes to.
pub const PLAIN_FILTER: &str = "v1/d/+/vitals";

/// Where the cluster is, and how it is consumed from.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Host name or address; also the name that the cluster's certificate must bear.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Authorities, and a certificate of ours if the cluster wants one. `None` is plaintext: only within this machine.
    pub tls: Option<Arc<ClientConfig>>,
    /// For a cluster that wants user and password.
    pub login: Option<ClusterLogin>,
    /// Consumers are called `{client_id}-0`, `{client_id}-1`, …: another prefix for every node, or they take each other's
    /// sessions over.
    pub client_id: String,
    /// Whether consumers share [`SHARED_FILTER`]. A broker that forgets shared subscriptions when it restarts, as Mosquitto
    /// 2.0 does, then takes messages that it keeps for nobody until we are back; for it, one consumer that is alone
    /// subscribes to [`PLAIN_FILTER`].
    pub shared: bool,
    /// Connections. Two keep the workers of a small node busy, and one of them takes over while the other reconnects.
    pub consumers: u16,
    /// Messages that the cluster may send ahead of their acknowledgement, for each consumer: its MQTT receive maximum.
    pub window: u16,
    /// Pause after the first failed connection; doubled with every further one, and shortened by chance to half at most.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// How long a device's messages that only name a session key which is not known are waited with, before they are
    /// quarantined.
    pub sender_patience: Duration,
    /// How long no consumer may be connected before an alert says so.
    pub alert_after: Duration,
}

impl ClusterSettings {
    /// Two consumers called `vitalseal-…` with a window of 64, pauses from 200 ms to 30 s, an alert after a minute. TLS
    /// and login are to be set.
    #[must_use]
    pub fn new(host: String, port: u16) -> Self {
        Self {
            host,
            port,
            tls: None,
            login: None,
            client_id: "vitalseal".to_owned(),
            shared: true,
            consumers: 2,
            window: 64,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            sender_patience: Duration::from_secs(30),
            alert_after: Duration::from_secs(60),
        }
    }
}

/// User name and password at the cluster.
#[derive(Clone)]
pub struct ClusterLogin {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for ClusterLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterLogin")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What consumers work with.
#[derive(Debug, Clone)]
pub struct ClusterDeps {
    /// Where messages go.
    pub pipeline: Pipeline,
    /// Hears when the cluster is out of reach.
    pub alerts: Alerts,
    /// For the time of an alert.
    pub clock: Arc<dyn Clock>,
    /// PEM of the current envelope certificate, to be retained on [`RECIPIENT_TOPIC`](crate::edge::RECIPIENT_TOPIC).
    pub recipient: watch::Receiver<Bytes>,
}

/// The consumers of one cluster. They connect once [`ClusterConsumers::serve`] runs.
#[derive(Debug)]
pub struct ClusterConsumers {
    shared: Arc<Shared>,
}

/// What the consumers share.
#[derive(Debug)]
struct Shared {
    settings: ClusterSettings,
    deps: ClusterDeps,
    metrics: Arc<ClusterMetrics>,
    orders: Arc<Orders>,
}

impl ClusterConsumers {
    /// Consumers that have not connected yet.
    #[must_use]
    pub fn new(settings: ClusterSettings, deps: ClusterDeps) -> Self {
        let deps = ClusterDeps {
            pipeline: deps.pipeline.for_strangers(),
            ..deps
        };
        Self {
            shared: Arc::new(Shared {
                settings,
                deps,
                metrics: Arc::default(),
                orders: Arc::default(),
            }),
        }
    }

    /// Their counters; they go on living after the consumers.
    #[must_use]
    pub fn metrics(&self) -> Arc<ClusterMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Consumes until `shutdown`; whatever the cluster does, it tries again. Then: nothing more is taken, acknowledgements
    /// under way are sent for a bounded time, and the sessions stay at the cluster.
    pub async fn serve(self, shutdown: CancellationToken) {
        let shared = self.shared;
        let alone = !shared.settings.shared;
        let consumers = 0..if alone {
            1
        } else {
            shared.settings.consumers.max(1)
        };
        let consumers = consumers.map(|index| {
            let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
            async move {
                loop {
                    let consumer = Consumer::new(Arc::clone(&shared), index);
                    // The client library may panic at what no sane broker sends. A set ends its tasks when it is dropped.
                    let mut task = JoinSet::new();
                    task.spawn(consumer.run(shutdown.clone()));
                    if let Some(Ok(())) | None = task.join_next().await {
                        return;
                    }
                    tracing::error!(consumer = index, "a consumer panicked; it starts anew");
                    sleep(shared.settings.longest_pause).await;
                }
            }
        });
        tokio::select! {
            _ = join_all(consumers) => {}
            () = watch_over(&shared) => {}
        }
    }
}

/// Raises an alert when no consumer has been connected for too long, and another when one is again.
async fn watch_over(shared: &Shared) {
    let patience = shared.settings.alert_after;
    let (deps, connected) = (&shared.deps, &shared.metrics.connected);
    let (mut reached_at, mut told) = (Instant::now(), false);
    loop {
        sleep(patience.min(Duration::from_secs(1))).await;
        let reachable = connected.load(Relaxed) > 0;
        if reachable {
            reached_at = Instant::now();
        }
        let tell = reachable == told && (told || reached_at.elapsed() >= patience);
        if tell {
            let alert = match reachable {
                true => Alert::ClusterReachable,
                false => Alert::ClusterUnreachable,
            };
            deps.alerts.raise(alert, deps.clock.now());
            told = !told;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let login = ClusterLogin {
            user: "ingest".to_owned(),
            password: "48151623-kestrel".to_owned(),
        };
        assert_eq!(
            format!("{login:?}"),
            r#"ClusterLogin { user: "ingest", .. }"#
        );
    }
}
