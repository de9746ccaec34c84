//! The doors of the server. Every one is bound before any is served: an address in use leaves nothing half-started.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use vitalseal_ingest::{Carrier, ClusterConsumers, Door, Edge, EdgeDeps};
use vitalseal_query::{QueryService, SqlServer};

use super::Revocations;
use crate::config::{Config, Mqtt};

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

/// All that is bound, and not served yet.
#[derive(Debug)]
pub(super) struct Doors {
    /// Where devices connect; `None` if they do to a cluster only.
    pub(super) edge: Option<Edge>,
    /// The way in by a cluster, if there is one.
    pub(super) consumers: Option<ClusterConsumers>,
    /// SQL.
    pub(super) sql: SqlServer,
    /// Health and metrics.
    pub(super) http: TcpListener,
    /// Administration.
    pub(super) socket: UnixListener,
}

impl Doors {
    /// Where they are.
    ///
    /// # Errors
    /// The operating system does not say.
    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        let edge = self.edge.as_ref().map(Edge::local_addrs);
        let at = |door: usize| edge.and_then(|edge| edge.get(door).copied());
        Ok(Addresses {
            mqtt: at(0),
            websocket: at(1),
            sql: self.sql.local_addr(),
            http: self
                .http
                .local_addr()
                .context("reading the health address")?,
        })
    }
}

/// MQTT, and MQTT over WebSocket; `None` if devices connect to a cluster only.
///
/// # Errors
/// An address is taken, or the authority does not sign.
pub(super) async fn edge(
    settings: &Mqtt,
    overrides: Overrides,
    revocations: &Revocations,
    deps: EdgeDeps,
) -> anyhow::Result<Option<Edge>> {
    if settings
        .cluster
        .as_ref()
        .is_some_and(|cluster| cluster.only)
    {
        return Ok(None);
    }
    let mqtt = overrides.mqtt.unwrap_or(settings.listen);
    let websocket = overrides.websocket.unwrap_or(settings.websocket);
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
            tls: match settings.origins.is_empty() {
                true => revocations.optional(),
                false => watch::channel(revocations.server()?).1,
            },
            carrier: Carrier::WebSocket {
                origins: settings.origins.clone(),
            },
        },
    ];
    let edge = Edge::bind(doors, deps, settings.edge_limits());
    let edge = edge.await.with_context(|| {
        format!(
            "opening the MQTT edge on {mqtt} and {websocket} (others: `--mqtt ADDR`, `--websocket ADDR`)"
        )
    })?;
    Ok(Some(edge))
}

/// SQL.
///
/// # Errors
/// The address is taken.
pub(super) async fn sql(
    config: &Config,
    overrides: Overrides,
    revocations: &Revocations,
    query: &Arc<QueryService>,
) -> anyhow::Result<SqlServer> {
    let sql = overrides.sql.unwrap_or(config.sql.listen);
    SqlServer::bind(sql, revocations.server()?, Arc::clone(query))
        .await
        .with_context(|| format!("opening the SQL door on {sql} (another: `--sql ADDR`)"))
}

/// Health and metrics.
///
/// # Errors
/// The address is taken.
pub(super) async fn http(config: &Config, overrides: Overrides) -> anyhow::Result<TcpListener> {
    let http = overrides.http.unwrap_or(config.http.listen);
    TcpListener::bind(http)
        .await
        .with_context(|| format!("opening health and metrics on {http} (another: `--http ADDR`)"))
}
