//! Consumers of an MQTT cluster, if the configuration names one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use vitalseal_ingest::{Alerts, ClusterConsumers, ClusterDeps, ClusterMetrics, Pipeline};
use vitalseal_storage::ports::Clock;

use super::http::Metric;
use crate::config::Config;

/// The consumers, not connected yet.
///
/// # Errors
/// A certificate, a key or the password cannot be used; then the server does not start.
pub(super) fn consumers(
    config: &Config,
    pipeline: &Pipeline,
    alerts: &Alerts,
    clock: &Arc<dyn Clock>,
    recipient: &watch::Receiver<Bytes>,
) -> anyhow::Result<Option<ClusterConsumers>> {
    let Some(cluster) = &config.mqtt.cluster else {
        return Ok(None);
    };
    let deps = ClusterDeps {
        pipeline: pipeline.clone(),
        alerts: alerts.clone(),
        clock: Arc::clone(clock),
        recipient: recipient.clone(),
    };
    Ok(Some(ClusterConsumers::new(cluster.settings()?, deps)))
}

/// Their counters, as `/metrics` shows them.
pub(super) fn metrics(cluster: &ClusterMetrics) -> [Metric; 9] {
    [
        (
            "cluster_connected",
            "gauge",
            "Consumers of the MQTT cluster that are connected",
            cluster.connected(),
        ),
        (
            "cluster_connections_lost_total",
            "counter",
            "Connections to the MQTT cluster that failed, were lost or were given up",
            cluster.connections_lost(),
        ),
        (
            "cluster_received_total",
            "counter",
            "Messages from the MQTT cluster, repeated ones included",
            cluster.received(),
        ),
        (
            "cluster_redelivered_total",
            "counter",
            "Messages that the MQTT cluster marked as sent before",
            cluster.redelivered(),
        ),
        (
            "cluster_unnamed_total",
            "counter",
            "Messages on a topic of the MQTT cluster that names no device",
            cluster.unnamed(),
        ),
        (
            "cluster_acked_total",
            "counter",
            "Messages made durable and acknowledged to the MQTT cluster",
            cluster.acked(),
        ),
        (
            "cluster_duplicates_total",
            "counter",
            "Acknowledged messages of the MQTT cluster known already",
            cluster.duplicates(),
        ),
        (
            "cluster_quarantined_total",
            "counter",
            "Acknowledged messages of the MQTT cluster refused",
            cluster.quarantined(),
        ),
        (
            "cluster_chain_gaps_total",
            "counter",
            "Messages of the MQTT cluster stored while the one before them was missing",
            cluster.chain_gaps(),
        ),
    ]
}
