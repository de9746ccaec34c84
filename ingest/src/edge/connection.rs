//! One TCP connection from accept to close: handshake, identity, CONNECT, session. All its state is in one task.
//!
//! ```text
//! accept ─▶ TLS, deadline ─▶ certificate ─▶ CONNECT, deadline ─▶ admitted? ─▶ session ─▶ park, close
//!                            device id      size limit           enrolled, active,
//!                                                                this very certificate
//! ```
//!
//! Never here: a wait without a deadline or a way to be told to stop; a packet handled before the one before it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::DeviceCertificate;
use vitalseal_storage::{Clock, DeviceState, Store};

use super::clones::Takeovers;
use super::closing::Closing;
use super::codec::{self, HelloError};
use super::directory::Directory;
use super::fanout::Fanout;
use super::frame::{self, FrameError};
use super::identity::Principal;
use super::limits::{EdgeLimits, Limits};
use super::metered::Metered;
use super::metrics::EdgeMetrics;
use super::packet::{ConnectAnswer, Hello, Offer, Outbound, Version};
use super::rate::Throttles;
use super::refusals::Refusals;
use super::serving::Serving;
use super::session::Session;
use super::slots::Slot;
use super::wire::Wire;
use crate::pipeline::Pipeline;

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) pipeline: Pipeline,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) refusals: Refusals,
    pub(crate) limits: Limits,
    pub(crate) throttles: Throttles,
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) takeovers: Takeovers,
    pub(crate) fanout: Fanout,
    pub(crate) shutdown: CancellationToken,
}

impl Context {
    /// Is this principal still welcome, with this very certificate?
    ///
    /// # Errors
    /// `Internal` when the registry cannot say: then nobody is let in.
    pub(crate) async fn is_welcome(&self, principal: &Principal) -> Result<bool, Closing> {
        let Principal::Device { id, certificate } = principal;
        match self.store.registry.device(id).await {
            Ok(record) => Ok(record.is_some_and(|record| {
                record.state == DeviceState::Active
                    && record.certificate.thumbprint() == certificate
            })),
            Err(error) => {
                tracing::error!(device = %id, %error, "looking up a device failed");
                Err(Closing::Internal)
            }
        }
    }
}

/// Takes a connection from accept to close.
pub(crate) async fn run(
    context: Arc<Context>,
    tls: Arc<ServerConfig>,
    tcp: TcpStream,
    peer: SocketAddr,
    slot: &Slot,
) {
    let mut proven = None;
    let closing = talk(&context, tls, tcp, peer, slot, &mut proven).await;
    context.metrics.count_closed(closing);
    let client = proven.as_ref().map(tracing::field::display);
    if closing.is_refusal() {
        tracing::info!(%peer, client, reason = closing.as_str(), "connection refused or closed");
    } else {
        tracing::debug!(%peer, client, reason = closing.as_str(), "connection closed");
    }
}

async fn talk(
    context: &Context,
    tls: Arc<ServerConfig>,
    tcp: TcpStream,
    peer: SocketAddr,
    slot: &Slot,
    proven: &mut Option<Principal>,
) -> Closing {
    // Acknowledgements are small and waited for.
    let _ = tcp.set_nodelay(true);
    let limits = &*context.limits.get();
    let tcp = Metered::new(tcp, context.limits.clone(), slot.admitted());
    let handshake = tokio::select! {
        handshake = timeout(limits.handshake_deadline, TlsAcceptor::from(tls).accept(tcp)) => handshake,
        () = context.shutdown.cancelled() => return Closing::Shutdown,
    };
    let Ok(Ok(stream)) = handshake else {
        return Closing::Handshake;
    };
    let Some(certificate) = certificate(&stream) else {
        return Closing::Certificate;
    };
    let principal = Principal::of_certificate(&certificate);
    *proven = Some(principal.clone());
    let mut wire = Wire::new(stream);

    let hello = tokio::select! {
        hello = hello(&mut wire, limits) => hello,
        () = context.shutdown.cancelled() => return Closing::Shutdown,
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err((closing, answer)) => {
            if let Some((version, answer)) = answer {
                wire.refuse(version, answer).await;
            }
            return closing;
        }
    };
    let version = hello.version;
    match open_session(context, &hello, &principal, &certificate).await {
        Ok((serving, session, answer, keep_alive)) => {
            slot.admit();
            let offer = Offer {
                receive_maximum: limits.receive_maximum,
                max_packet: u32::try_from(limits.packet_bytes).unwrap_or(u32::MAX),
                keep_alive,
            };
            let offer = Some(offer);
            serving
                .run(wire, session, Outbound::ConnAck { answer, offer })
                .await
        }
        Err((closing, answer)) => {
            context
                .refusals
                .record(certificate.device(), peer, closing)
                .await;
            wire.refuse(version, answer).await;
            closing
        }
    }
}

type Opened<'a> = (Serving<'a>, Session, ConnectAnswer, Option<u16>);

/// All that is asked of a client before it has a session. In this order, so that a refused one disturbs nobody: only
/// then is an older connection of the same device closed.
async fn open_session<'a>(
    context: &'a Context,
    hello: &Hello,
    principal: &Principal,
    certificate: &DeviceCertificate,
) -> Result<Opened<'a>, (Closing, ConnectAnswer)> {
    let now = context.clock.now();
    // TLS checked this too, but a resumed TLS session does not check it again.
    if now < certificate.not_before() || certificate.not_after() < now {
        return Err((Closing::Certificate, ConnectAnswer::NotAuthorized));
    }
    if hello.client_id != principal.client_id().as_str() {
        return Err((Closing::ClientId, ConnectAnswer::IdentifierRejected));
    }
    if hello.has_authentication {
        return Err((
            Closing::UnsupportedConnect,
            ConnectAnswer::BadAuthenticationMethod,
        ));
    }
    // A will would be published in the device's name, unsigned, on a topic that is not its own.
    if hello.has_will {
        return Err((Closing::UnsupportedConnect, ConnectAnswer::NotAuthorized));
    }
    let welcome = |welcome: Result<bool, Closing>| match welcome {
        Ok(true) => Ok(()),
        Ok(false) => Err((Closing::NotActive, ConnectAnswer::NotAuthorized)),
        Err(closing) => Err((closing, ConnectAnswer::ServerUnavailable)),
    };
    welcome(context.is_welcome(principal).await)?;
    let limits = context.limits.get();
    let patience = limits.takeover_deadline;
    let ticket = context.directory.enter(principal, patience).await;
    // From here on a revocation finds us in the directory; one that came just before is found here.
    welcome(context.is_welcome(principal).await)?;

    let parked = ticket.take_parked(Instant::now()).filter(|_| !hello.clean);
    let answer = ConnectAnswer::Accepted {
        session_present: parked.is_some(),
    };
    let state = parked.unwrap_or_default();
    let session = Session::new(
        hello.version,
        principal.permissions(),
        limits.receive_maximum,
        context.fanout.feed(state.feed),
        state.received,
    );
    let (keep_alive, told) = keep_alive(hello, &limits);
    let serving = Serving::new(context, ticket, principal.clone(), hello, keep_alive);
    Ok((serving, session, answer, told))
}

/// The keep-alive that is enforced, and what a v5 client must be told about it.
fn keep_alive(hello: &Hello, limits: &EdgeLimits) -> (Duration, Option<u16>) {
    let longest = u16::try_from(limits.keep_alive.as_secs()).unwrap_or(u16::MAX);
    match (hello.version, hello.keep_alive) {
        (_, 0) => (limits.keep_alive, Some(longest)),
        (Version::V5, asked) if asked > longest => (limits.keep_alive, Some(longest)),
        (_, asked) => (Duration::from_secs(u64::from(asked)), None),
    }
}

/// Who the peer proved to be.
fn certificate(stream: &TlsStream<Metered<TcpStream>>) -> Option<DeviceCertificate> {
    let (_, tls) = stream.get_ref();
    let leaf = tls.peer_certificates()?.first()?;
    DeviceCertificate::from_der(leaf).ok()
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
