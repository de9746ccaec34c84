//! Taking connections: one after the other, and never waiting for what a peer does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::closing::Closing;
use super::connection::{self, Context};
use super::slots::Slots;

/// After an accept that failed (out of descriptors, mostly): long enough not to spin, short enough not to be noticed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Spawns a task for each connection until `shutdown`.
pub(super) async fn until(
    shutdown: &CancellationToken,
    listener: &TcpListener,
    tls: &watch::Receiver<Arc<ServerConfig>>,
    slots: &Arc<Slots>,
    context: &Arc<Context>,
    connections: &mut JoinSet<()>,
) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => take(tcp, peer, tls, slots, context, connections),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn take(
    tcp: TcpStream,
    peer: SocketAddr,
    tls: &watch::Receiver<Arc<ServerConfig>>,
    slots: &Arc<Slots>,
    context: &Arc<Context>,
    connections: &mut JoinSet<()>,
) {
    let Some(slot) = slots.take(peer.ip()) else {
        context.metrics.count_closed(Closing::Limit);
        tracing::warn!(%peer, "connection limit reached");
        return;
    };
    let (context, tls) = (Arc::clone(context), Arc::clone(&tls.borrow()));
    connections.spawn(async move {
        connection::run(context, tls, tcp, peer).await;
        drop(slot);
    });
}
