//! Health, metrics and the revocation list on a local port: counts and serial numbers, no identity and no reading.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{System, cluster, housekeeping, quarantine, space};

/// Name without its prefix, kind, help, value.
pub(super) type Metric = (&'static str, &'static str, &'static str, u64);

/// Serves `/healthz`, `/metrics` and `/crl` until told to stop.
pub(super) async fn serve(listener: TcpListener, system: Arc<System>, stop: CancellationToken) {
    let routes = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/crl", get(revocation_list))
        .with_state(system);
    let served = axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving health and metrics");
    }
}

/// 200 while the inbox can be read and messages are taken, 503 otherwise.
async fn health(State(system): State<Arc<System>>) -> impl IntoResponse {
    match system.store.inbox.pending().await {
        Ok(_) if system.store.space.is_full() => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the disk is full: messages are refused until there is room\n",
        ),
        Ok(_) => (StatusCode::OK, "ok\n"),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "health check");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the inbox cannot be read; the log says why\n",
            )
        }
    }
}

/// The newest revocation list as DER (RFC 2585 §4.2).
async fn revocation_list(State(system): State<Arc<System>>) -> impl IntoResponse {
    let list = system.revocations.list();
    let pkix_crl = [(header::CONTENT_TYPE, "application/pkix-crl")];
    (pkix_crl, list.der().to_vec())
}

/// Prometheus text format 0.0.4.
async fn metrics(State(system): State<Arc<System>>) -> impl IntoResponse {
    let edge = &system.edge;
    let (mut inbox_rows, mut inbox_bytes) = (0, 0);
    if let Ok(pending) = system.store.inbox.pending().await {
        (inbox_rows, inbox_bytes) = pending;
    }
    let list_ends_at = system.revocations.list().next_update();
    let list_ends_in = u64::try_from(list_ends_at.duration_since(system.clock.now()).as_secs());
    let all = [
        (
            "connections",
            "gauge",
            "TCP connections of the MQTT edge",
            edge.connections(),
        ),
        ("sessions", "gauge", "MQTT sessions", edge.sessions()),
        (
            "acked_total",
            "counter",
            "Messages made durable and acknowledged",
            edge.acked(),
        ),
        (
            "duplicates_total",
            "counter",
            "Acknowledged messages known already",
            edge.duplicates(),
        ),
        (
            "chain_gaps_total",
            "counter",
            "Messages stored while the one before them was missing",
            edge.chain_gaps(),
        ),
        (
            "refused_total",
            "counter",
            "Connections ended for a fault",
            edge.refused(),
        ),
        (
            "strangers",
            "gauge",
            "TCP connections of the MQTT edge that have no session yet",
            edge.strangers(),
        ),
        (
            "handshakes_total",
            "counter",
            "TLS handshakes that began at the MQTT edge",
            edge.handshakes(),
        ),
        (
            "throttled_total",
            "counter",
            "Times that a device was too fast for minutes; it is read no faster, and nothing is dropped",
            edge.throttled(),
        ),
        ("wills_total", "counter", "Wills published", edge.wills()),
        (
            "revocation_list_seconds_left",
            "gauge",
            "Until the published revocation list runs out; made anew every day, for a week",
            list_ends_in.unwrap_or_default(),
        ),
        (
            "alerts_total",
            "counter",
            "Alerts raised",
            system.alerts.raised(),
        ),
        (
            "inbox_messages",
            "gauge",
            "Messages not flushed yet",
            inbox_rows,
        ),
        (
            "inbox_bytes",
            "gauge",
            "Sealed bytes not flushed yet",
            inbox_bytes,
        ),
    ];
    // A store that cannot be read is what the gauge is for: not being able to tell counts as unfinished.
    let unfinished = system.store.keys.status().await;
    let unfinished = unfinished.map_or(1, |keys| keys.roots_retiring);
    let cluster = system.cluster.as_deref().map(cluster::metrics);
    let all = all
        .into_iter()
        .chain(space::metrics(&system))
        .chain(quarantine::metrics(&system).await)
        .chain(housekeeping::metrics(&system).await)
        .chain(cluster.into_iter().flatten())
        .chain([(
            "roots_retiring",
            "gauge",
            "Old root keys that still exist because an erasure or rotation is unfinished",
            unfinished,
        )]);
    let mut text = String::new();
    quarantine::write_reasons(&system, &mut text);
    for (name, kind, help, value) in all {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "# HELP vitalseal_{name} {help}\n# TYPE vitalseal_{name} {kind}\nvitalseal_{name} {value}"
        );
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
