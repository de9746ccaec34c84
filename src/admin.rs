//! Local administration over the Unix socket `DIR/admin.sock`.
//!
//! Whoever may use it is decided by the operating system: the peer must run as the server's own user
//! or as root. Every act is audited with the peer's user id.

pub mod client;
mod operations;
pub mod protocol;
mod views;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalseal_storage::Progress;
use zeroize::Zeroizing;

use self::protocol::{MAX_REQUEST_BYTES, Request, Response, Step};
use crate::files;
use crate::server::System;

/// A peer that connects and says nothing is let go after this long.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Listens on the socket. The store's lock is held already, so a socket file that is still there
/// belongs to no living server and is replaced.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replacing {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(|| {
        format!(
            "listening on {} (a socket's path may have about 100 bytes; use a shorter --data)",
            socket.display()
        )
    })?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", socket.display()))?;
    Ok(listener)
}

/// Answers requests until told to stop, then finishes those under way.
pub(crate) async fn serve(listener: UnixListener, system: Arc<System>, stop: CancellationToken) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let system = Arc::clone(&system);
                    sessions.spawn(async move {
                        if let Err(error) = session(stream, &system).await {
                            tracing::warn!("administration: {error:#}");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "accepting an administration connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
        }
    }
    while sessions.join_next().await.is_some() {}
}

async fn session(stream: UnixStream, system: &System) -> anyhow::Result<()> {
    let uid = stream
        .peer_cred()
        .context("reading the peer's credentials")?
        .uid();
    let (read, mut write) = stream.into_split();
    let answer = if uid != 0 && uid != files::own_uid() {
        Response::Failed(format!(
            "user id {uid} may not administer this store; use the account that runs the server"
        ))
    } else {
        let mut line = Zeroizing::new(Vec::new());
        let mut read = BufReader::new(read).take(MAX_REQUEST_BYTES);
        tokio::time::timeout(REQUEST_DEADLINE, read.read_until(b'\n', &mut line))
            .await
            .context("waiting for a request")?
            .context("reading a request")?;
        match serde_json::from_slice::<Request>(&line) {
            Ok(request) => {
                let newest = NewestStep::default();
                let performing = operations::perform(system, uid, request, &newest);
                match telling(performing, &newest, &mut write).await {
                    Ok(value) => Response::Ok(value),
                    Err(error) => Response::Failed(format!("{error:#}")),
                }
            }
            // The text of a parse error quotes its input, which may be a password: say only where.
            Err(error) => Response::Failed(format!(
                "the request is not understood at column {}; command and server must be of the same \
                 version",
                error.column()
            )),
        }
    };
    send(&answer, &mut write).await?;
    write.shutdown().await.context("sending an answer")
}

/// Waits for `work` and says meanwhile how far it is. Who asked may read slowly or go away: the work goes on.
async fn telling<T>(
    work: impl Future<Output = T>,
    newest: &NewestStep,
    write: &mut OwnedWriteHalf,
) -> T {
    let mut steps = newest.0.subscribe();
    let working = async {
        let done = work.await;
        newest.0.send_replace(None);
        done
    };
    let telling = async {
        while steps.changed().await.is_ok() {
            let step = steps.borrow_and_update().clone();
            match step {
                Some(step) if send(&Response::Step(step.clone()), write).await.is_ok() => {}
                _ => break,
            }
        }
    };
    tokio::join!(working, telling).0
}

async fn send(answer: &Response, write: &mut OwnedWriteHalf) -> anyhow::Result<()> {
    let mut bytes = Zeroizing::new(serde_json::to_vec(answer).context("encoding an answer")?);
    bytes.push(b'\n');
    write.write_all(&bytes).await.context("sending an answer")
}

/// Of many steps the newest is told: nobody waits for whoever reads slowly.
#[derive(Debug, Default)]
struct NewestStep(watch::Sender<Option<Step>>);

impl Progress for NewestStep {
    fn step(&self, done: u64, of: u64, what: &str) {
        let what = what.to_owned();
        self.0.send_replace(Some(Step { done, of, what }));
    }
}
