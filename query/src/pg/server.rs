//! The accept loop and the life of one connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use pgwire::api::{ClientInfo, DefaultClient, NoopHandler, PgWireConnectionState};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::{PgWireMessageServerCodec, process_error, process_message};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

use super::cancel::{Cancels, OnCancel};
use super::fatal;
use super::handlers::{Prepared, Queries};
use super::login::Login;
use super::negotiate::{ALPN, Opening, negotiate};
use crate::service::QueryService;

/// From the first byte to the end of the login. `psql` hangs up while a person types the token.
const STARTUP_DEADLINE: Duration = Duration::from_secs(10);

/// How long a shutdown waits for queries to notice that they are cancelled.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How often a connection with a running query is looked at for whether its client is still there.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(200);

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening for SQL connections on {addr}")]
pub struct BindError {
    addr: SocketAddr,
    #[source]
    cause: io::Error,
}

/// The PostgreSQL door, bound and not yet serving.
pub struct SqlServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: TlsAcceptor,
    service: Arc<QueryService>,
}

impl SqlServer {
    /// Binds `addr`. Client certificates and protocol versions are as `tls` says.
    ///
    /// # Errors
    /// [`BindError`] when the address is taken or not ours.
    pub async fn bind(
        addr: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
        service: Arc<QueryService>,
    ) -> Result<Self, BindError> {
        let listening = async {
            let listener = TcpListener::bind(addr).await?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        let (listener, local_addr) = listening.await.map_err(|cause| BindError { addr, cause })?;
        let mut tls = rustls::ServerConfig::clone(&tls);
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            listener,
            local_addr,
            tls: TlsAcceptor::from(Arc::new(tls)),
            service,
        })
    }

    /// Where it listens; tells the port when 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` fires: then running queries are cancelled, clients are told, and whoever
    /// does not leave is cut off after a grace period.
    pub async fn serve(self, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.service.limits.connections));
        let cancels = Arc::new(Cancels::default());
        let pids = Arc::new(AtomicI32::new(1));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, usually: give connections time to close.
                    tracing::warn!(%error, "accepting an SQL connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                tracing::warn!(%peer, "SQL connection limit reached");
                continue;
            };
            let login = Login {
                service: Arc::clone(&self.service),
                cancels: Arc::clone(&cancels),
                pids: Arc::clone(&pids),
                peer,
                shutdown: shutdown.clone(),
            };
            let tls = self.tls.clone();
            connections.spawn(async move {
                if let Err(error) = connection(tcp, &tls, Arc::new(login)).await {
                    tracing::debug!(%peer, %error, "SQL connection ended");
                }
                drop(slot);
            });
        }
        drop(self.listener);
        let leaving = async { while connections.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_GRACE, leaving).await.is_err() {
            connections.shutdown().await;
        }
    }
}

impl fmt::Debug for SqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlServer")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

type Socket = Framed<TlsStream<TcpStream>, PgWireMessageServerCodec<Prepared>>;

/// One connection from its first byte to its last.
async fn connection(tcp: TcpStream, tls: &TlsAcceptor, login: Arc<Login>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let started = tokio::time::Instant::now();
    let shutdown = login.shutdown.clone();
    // A second handle on the same socket: while a query runs, the first is busy with it.
    let tcp = tcp.into_std()?;
    let presence = TcpStream::from_std(tcp.try_clone()?)?;
    let opening = timeout(STARTUP_DEADLINE, negotiate(TcpStream::from_std(tcp)?, tls));
    let session = match opening.await.map_err(|_| io::ErrorKind::TimedOut)?? {
        Opening::Session(session) => *session,
        Opening::Cancel { pid, secret } => {
            login.cancels.cancel(pid, &secret);
            return Ok(());
        }
        Opening::Plaintext => return Ok(()),
    };
    let client = DefaultClient::new(login.peer, true);
    let mut socket: Socket = Framed::new(session, PgWireMessageServerCodec::new(client));
    socket.set_state(PgWireConnectionState::AwaitingStartup);

    let remaining = STARTUP_DEADLINE.saturating_sub(started.elapsed());
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Err(stopping()),
        done = timeout(remaining, authenticate(&mut socket, &login)) => match done {
            Ok(outcome) => outcome,
            Err(_) => Err(fatal("08006", "the login took too long")),
        },
    };
    match outcome {
        Ok(true) => queries(&mut socket, &login, &presence, &shutdown).await,
        Ok(false) => Ok(()),
        Err(error) => farewell(&mut socket, error).await,
    }
}

/// Runs the login. `false` when the peer went away or only wanted to cancel a query.
async fn authenticate(socket: &mut Socket, login: &Arc<Login>) -> Result<bool, PgWireError> {
    while !matches!(socket.state(), PgWireConnectionState::ReadyForQuery) {
        let Some(message) = socket.next().await else {
            return Ok(false);
        };
        let message = message?;
        let cancel = matches!(message, PgWireFrontendMessage::CancelRequest(_));
        if matches!(message, PgWireFrontendMessage::Terminate(_)) {
            return Ok(false);
        }
        dispatch(socket, login, message).await?;
        if cancel {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Answers statements until the client leaves, the server stops or an error ends the session.
async fn queries(
    socket: &mut Socket,
    login: &Arc<Login>,
    presence: &TcpStream,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    loop {
        let message = tokio::select! {
            biased;
            () = shutdown.cancelled() => return farewell(socket, stopping()).await,
            message = socket.next() => message,
        };
        let message = match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Err(error)) => return farewell(socket, error).await,
            Some(Ok(message)) => message,
        };
        let extended = message.is_extended_query();
        let answered = tokio::select! {
            answered = dispatch(socket, login, message) => answered,
            // Dropping the dispatch drops the query, whose end is then recorded as cancelled.
            () = gone(presence) => return Ok(()),
        };
        if let Err(error) = answered {
            let info: ErrorInfo = error.into();
            if info.is_fatal() {
                return farewell(socket, PgWireError::UserError(Box::new(info))).await;
            }
            process_error(socket, PgWireError::UserError(Box::new(info)), extended).await?;
        }
    }
}

async fn dispatch(
    socket: &mut Socket,
    login: &Arc<Login>,
    message: PgWireFrontendMessage,
) -> Result<(), PgWireError> {
    process_message(
        message,
        socket,
        Arc::clone(login),
        Arc::new(Queries),
        Arc::new(Queries),
        Arc::new(NoopHandler),
        Arc::new(OnCancel(Arc::clone(&login.cancels))),
    )
    .await
}

/// Sends `error` and closes. No `ReadyForQuery` follows: a peer that was turned away gets no second turn.
async fn farewell(socket: &mut Socket, error: PgWireError) -> io::Result<()> {
    let info: ErrorInfo = error.into();
    let goodbye = async {
        socket
            .send(PgWireBackendMessage::ErrorResponse(info.into()))
            .await?;
        socket.close().await
    };
    // A client that does not read must not hold the connection open.
    timeout(Duration::from_secs(1), goodbye)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

fn stopping() -> PgWireError {
    fatal("57P01", "the server is stopping")
}

/// Resolves when the peer has closed its side, also while requests of it wait unread.
async fn gone(presence: &TcpStream) {
    loop {
        match presence.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(PRESENCE_INTERVAL).await,
            _ => return,
        }
    }
}
