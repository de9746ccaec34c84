//! Taking connections: one after the other, and never waiting for what a peer does.
//!
//! ```text
//! accept ─▶ a slot? ─▶ its turn to handshake ─▶ connection
//!           in all, per address, of strangers;  at the rate, per address a share of it;
//!           none: closed at once                too late: closed at once
//! ```

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
use super::slots::Origin;
use super::turns::Turns;

/// After an accept that failed (out of descriptors, mostly): long enough not to spin, short enough not to be noticed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Spawns a task for each connection until `shutdown`.
pub(super) async fn until(
    shutdown: &CancellationToken,
    listener: &TcpListener,
    tls: &watch::Receiver<Arc<ServerConfig>>,
    context: &Arc<Context>,
    connections: &mut JoinSet<()>,
) {
    let turns = Arc::default();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => take(tcp, peer, tls, &turns, context, connections),
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
    turns: &Arc<Turns>,
    context: &Arc<Context>,
    connections: &mut JoinSet<()>,
) {
    let origin = Origin::of(peer.ip());
    let limits = context.limits.get();
    let Some(slot) = context.metrics.slots.take(origin, &limits) else {
        context.metrics.count_closed(Closing::Limit);
        tracing::warn!(%peer, "connection limit reached");
        return;
    };
    let (context, tls, turns) = (Arc::clone(context), tls.clone(), Arc::clone(turns));
    connections.spawn(async move {
        let turn = tokio::select! {
            turn = turns.wait(origin, &limits) => turn,
            () = context.shutdown.cancelled() => return,
        };
        if !turn {
            context.metrics.count_closed(Closing::Busy);
            tracing::debug!(%peer, "too many handshakes before this one");
            return;
        }
        context.metrics.count_handshake();
        let tls = Arc::clone(&tls.borrow());
        connection::run(context, tls, tcp, peer, &slot).await;
    });
}
