//! One TCP connection from accept to close: handshake, identity, CONNECT, session. All its state is in one task.
//!
//! ```text
//! accept ─▶ TLS, WebSocket ─▶ certificate ─▶ CONNECT ─▶ admitted? ─▶ session ─▶ park, close
//!           one deadline                     deadline,  enrolled, active, this
//!                                            size       very certificate; or a token
//! ```
//!
//! Never here: a wait without a deadline or a way to be told to stop; a packet handled before the one before it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use vitalseal_storage::{Authenticator, Clock, Store};

use super::clones::Takeovers;
use super::closing::Closing;
use super::codec::{self, HelloError};
use super::directory::Directory;
use super::fanout::Fanout;
use super::frame::{self, FrameError};
use super::identity::{Principal, Shown};
use super::kept::KeptSessions;
use super::limits::{EdgeLimits, Limits};
use super::metered::Metered;
use super::metrics::EdgeMetrics;
use super::packet::{ConnectAnswer, Hello, Offer, Outbound, Version};
use super::rate::Throttles;
use super::refusals::Refusals;
use super::serving::Serving;
use super::session::Session;
use super::slots::Slot;
use super::subscriptions::Subscriptions;
use super::websocket::WebSocket;
use super::welcome::Refused;
use super::will::Wills;
use super::wire::Wire;
use super::{Carrier, Entrance};
use crate::pipeline::Pipeline;

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) pipeline: Pipeline,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) refusals: Refusals,
    pub(crate) limits: Limits,
    pub(crate) throttles: Throttles,
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) kept: KeptSessions,
    pub(crate) takeovers: Takeovers,
    pub(crate) wills: Wills,
    pub(crate) fanout: Fanout,
    pub(crate) shutdown: CancellationToken,
}

/// Takes a connection from accept to close.
pub(crate) async fn run(
    context: Arc<Context>,
    door: Arc<Entrance>,
    tcp: TcpStream,
    peer: SocketAddr,
    slot: &Slot,
) {
    let mut proven = None;
    let closing = talk(&context, &door, tcp, peer, slot, &mut proven).await;
    context.metrics.count_closed(closing);
    let client = proven.as_ref().map(tracing::field::display);
    if closing.is_refusal() {
        tracing::info!(%peer, client, reason = closing.as_str(), "connection refused or closed");
    } else {
        tracing::debug!(%peer, client, reason = closing.as_str(), "connection closed");
    }
}

async fn talk(
    context: &Arc<Context>,
    door: &Entrance,
    tcp: TcpStream,
    peer: SocketAddr,
    slot: &Slot,
    proven: &mut Option<Principal>,
) -> Closing {
    // Acknowledgements are small and waited for.
    let _ = tcp.set_nodelay(true);
    let limits = &*context.limits.get();
    let tcp = Metered::new(tcp, context.limits.clone(), slot.admitted());
    let greeting = greet(door, tcp, context.limits.clone(), proven);
    let greeted = tokio::select! {
        greeted = timeout(limits.handshake_deadline, greeting) => greeted,
        () = context.shutdown.cancelled() => return Closing::Shutdown,
    };
    let (mut wire, shown) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(closing)) => return closing,
        Err(_) => return Closing::Handshake,
    };

    let hello = tokio::select! {
        hello = hello(&mut wire, limits) => hello,
        () = context.shutdown.cancelled() => return Closing::Shutdown,
    };
    let mut hello = match hello {
        Ok(hello) => hello,
        Err((closing, answer)) => {
            if let Some((version, answer)) = answer {
                wire.refuse(version, answer).await;
            }
            return closing;
        }
    };
    let version = hello.version;
    let identified = context
        .identify(&door.carrier, shown.as_ref(), &mut hello, peer)
        .await;
    let opened = match &identified {
        Ok(principal) => {
            *proven = Some(principal.clone());
            open_session(context, &mut hello, principal).await
        }
        Err(refused) => Err(*refused),
    };
    match opened {
        Ok((serving, session, greeting)) => {
            slot.admit();
            serving.run(wire, session, greeting).await
        }
        Err((closing, answer)) => {
            // That there is no room is nothing about this client, and the audit log needs the rest of it.
            if let Some(client) = proven.as_ref().filter(|_| closing != Closing::Full) {
                context.refusals.record(client, peer, closing).await;
            }
            wire.refuse(version, answer).await;
            closing
        }
    }
}

/// TLS, and what stands in it at the door; who the peer is by its certificate, if it showed one.
async fn greet(
    door: &Entrance,
    tcp: Metered<TcpStream>,
    limits: Limits,
    proven: &mut Option<Principal>,
) -> Result<(Wire, Option<Shown>), Closing> {
    let tls = Arc::clone(&door.tls.borrow());
    let stream = TlsAcceptor::from(tls).accept(tcp).await;
    let stream = stream.map_err(|_| Closing::Handshake)?;
    let shown = Shown::of(stream.get_ref().1)?;
    *proven = shown.as_ref().map(Shown::principal);
    let wire = match &door.carrier {
        Carrier::Tls if shown.is_none() => return Err(Closing::Certificate),
        Carrier::Tls => Wire::new(stream),
        Carrier::WebSocket { origins } => {
            let accepted = WebSocket::accept(stream, origins, limits).await;
            Wire::new(accepted.map_err(|_| Closing::Upgrade)?)
        }
    };
    Ok((wire, shown))
}

type Opened<'a> = (Serving<'a>, Session, Outbound);

/// All that is asked of a client before it has a session. In this order, so that a refused one disturbs nobody: only
/// then is an older connection of the same device closed.
async fn open_session<'a>(
    context: &'a Arc<Context>,
    hello: &mut Hello,
    principal: &Principal,
) -> Result<Opened<'a>, Refused> {
    if hello.has_authentication {
        return Err((
            Closing::UnsupportedConnect,
            ConnectAnswer::BadAuthenticationMethod,
        ));
    }
    let welcome = async || match context.welcome(principal).await {
        Ok(Some(permissions)) => Ok(permissions),
        Ok(None) => Err((Closing::NotActive, ConnectAnswer::NotAuthorized)),
        Err(closing) => Err((closing, ConnectAnswer::ServerUnavailable)),
    };
    let permissions = welcome().await?;
    // It would be sent away with its first message. Displays are welcome: they are told that the disk is full.
    if principal.device().is_some() && context.store.space.is_full() {
        return Err((Closing::Full, ConnectAnswer::QuotaExceeded));
    }
    // A will is a PUBLISH that is still to come, so what would refuse that one refuses this one now.
    if let Some(will) = &hello.will
        && (will.retain || !permissions.may_publish(&will.topic))
    {
        return Err((Closing::NotAuthorized, ConnectAnswer::NotAuthorized));
    }
    let limits = context.limits.get();
    let patience = limits.takeover_deadline;
    let ticket = context.directory.enter(principal, patience).await;
    let mut ticket = ticket.ok_or((Closing::Limit, ConnectAnswer::ServerUnavailable))?;
    if let Principal::Person { until, .. } = principal {
        let left = until.duration_since(context.clock.now());
        let left = Duration::try_from(left).unwrap_or_default(); // it has ended
        ticket.end_at(Instant::now() + left);
    }
    // From here on a revocation finds us in the directory; one that came just before is found here.
    let permissions = welcome().await?;

    let parked = ticket.take_parked(Instant::now());
    let parked = context
        .kept
        .take_up(principal, &permissions, hello.clean, parked)
        .await
        .map_err(|closing| (closing, ConnectAnswer::ServerUnavailable))?;
    let answer = ConnectAnswer::Accepted {
        session_present: parked.is_some(),
    };
    context
        .wills
        .on_connected(&principal.client_id(), parked.is_some());
    let state = parked.unwrap_or_default();
    let heard = Subscriptions::new(hello, permissions.clone(), &context.fanout, state.heard);
    let session = Session::new(
        hello.version,
        permissions,
        limits.receive_maximum,
        heard,
        state.received,
    );
    let (keep_alive, told) = keep_alive(hello, &limits);
    let expiry = limits.session_expiry(hello.session_expiry);
    let offer = Offer {
        receive_maximum: limits.receive_maximum,
        max_packet: u32::try_from(limits.packet_bytes).unwrap_or(u32::MAX),
        session_expiry: (expiry != hello.session_expiry).then_some(expiry),
        keep_alive: told,
    };
    let offer = Some(offer);
    let principal = principal.clone();
    let serving = Serving::new(context, ticket, principal, hello, expiry, keep_alive);
    Ok((serving, session, Outbound::ConnAck { answer, offer }))
}

/// The keep-alive that is enforced, and what a v5 client must be told about it.
fn keep_alive(hello: &Hello, limits: &EdgeLimits) -> (Duration, Option<u16>) {
    let longest = u16::try_from(limits.keep_alive.as_secs()).unwrap_or(u16::MAX);
    match hello.keep_alive {
        // v3.1.1 has no word for it; silence for longer is the end all the same, or a connection is held for 27 hours by
        // saying nothing.
        asked if asked == 0 || asked > longest => (limits.keep_alive, Some(longest)),
        asked => (Duration::from_secs(u64::from(asked)), None),
    }
}

type HelloRefused = (Closing, Option<(Version, ConnectAnswer)>);

/// Reads the CONNECT packet. What cannot be read is closed without an answer [MQTT-3.1.4-1], but for a foreign protocol
/// version, which is told [MQTT-3.1.2-2].
async fn hello(wire: &mut Wire, limits: &EdgeLimits) -> Result<Hello, HelloRefused> {
    let deadline = Instant::now() + limits.connect_deadline;
    let frame = loop {
        match frame::next(&mut wire.buffer, limits.connect_bytes) {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(FrameError::TooLarge) => return Err((Closing::TooLarge, None)),
            Err(_) => return Err((Closing::NoConnect, None)),
        }
        match timeout_at(deadline, wire.read()).await {
            Err(_) => return Err((Closing::NoConnect, None)),
            Ok(read) => read.map_err(|closing| (closing, None))?,
        }
    };
    codec::hello(frame).map_err(|error| match error {
        HelloError::NotConnect => (Closing::NoConnect, None),
        HelloError::Malformed => (Closing::Malformed, None),
        HelloError::UnsupportedVersion => {
            let answer = Some((Version::V311, ConnectAnswer::UnsupportedVersion));
            (Closing::UnsupportedVersion, answer)
        }
    })
}
