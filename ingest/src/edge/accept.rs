//! Taking connections: one after the other, and never waiting for what a peer does.
//!
//! ```text
//! accept ─▶ a slot? ─▶ its turn to handshake ─▶ connection
//!           in all, per address, of strangers;  at the rate, per address a share of it;
//!           none: closed at once                too late: closed at once
//! ```

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::closing::Closing;
use super::connection::{self, Context};
use super::slots::Origin;
use super::turns::Turns;
use super::{Entrance, Open};

/// After an accept that failed (out of descriptors, mostly): long enough not to spin, short enough not to be noticed.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Spawns a task for each connection until `shutdown`.
pub(super) async fn until(
    shutdown: &CancellationToken,
    doors: &[Open],
    context: &Arc<Context>,
    connections: &mut JoinSet<()>,
) {
    let turns = Arc::default();
    let mut first = 0;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = next(doors, first) => accepted,
        };
        // Each door has its turn to be asked first, so that none is out of reach while the other is stormed.
        first = (first + 1) % doors.len().max(1);
        match accepted {
            Ok((door, tcp, peer)) => take(door, tcp, peer, &turns, context, connections),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The next connection at any of the doors, which are asked beginning with `first`.
async fn next(doors: &[Open], first: usize) -> io::Result<(&Arc<Entrance>, TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for (listener, door) in doors.iter().cycle().skip(first).take(doors.len()) {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(tcp, peer)| (door, tcp, peer)));
            }
        }
        Poll::Pending
    })
    .await
}

fn take(
    door: &Arc<Entrance>,
    tcp: TcpStream,
    peer: SocketAddr,
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
    let (context, door, turns) = (Arc::clone(context), Arc::clone(door), Arc::clone(turns));
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
        connection::run(context, door, tcp, peer, &slot).await;
    });
}
