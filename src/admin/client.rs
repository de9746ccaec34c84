//! The command's side of `DIR/admin.sock`.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use vitalseal_storage::{Progress, Unwatched};
use zeroize::Zeroizing;

use super::protocol::{Request, Response};

/// Asks the running server to do one thing.
///
/// # Errors
/// No server runs on this store, the connection broke, or the server says why it did not do it.
pub async fn ask(socket: &Path, request: &Request) -> anyhow::Result<serde_json::Value> {
    ask_watched(socket, request, &Unwatched).await
}

/// The same of something that takes long: `progress` hears how far it is.
///
/// # Errors
/// As [`ask`].
pub async fn ask_watched(
    socket: &Path,
    request: &Request,
    progress: &dyn Progress,
) -> anyhow::Result<serde_json::Value> {
    let mut stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "connecting to the server at {} (is `vitalseal serve` running on this store?)",
            socket.display()
        )
    })?;
    let mut line = Zeroizing::new(serde_json::to_vec(request).context("encoding the request")?);
    line.push(b'\n');
    stream
        .write_all(&line)
        .await
        .context("sending the request")?;
    stream.shutdown().await.context("sending the request")?;
    let mut answers = BufReader::new(stream);
    let mut answer = Zeroizing::new(Vec::new());
    loop {
        answer.clear();
        answers
            .read_until(b'\n', &mut answer)
            .await
            .context("reading the answer")?;
        anyhow::ensure!(
            !answer.is_empty(),
            "the server closed the connection without an answer; its log says why"
        );
        match serde_json::from_slice(&answer).context("reading the answer")? {
            Response::Step(step) => progress.step(step.done, step.of, &step.what),
            Response::Ok(value) => return Ok(value),
            Response::Failed(reason) => return Err(anyhow::Error::msg(reason)),
        }
    }
}

/// Whether [`ask`] failed because no server runs on the store.
pub(crate) fn is_unserved(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        cause,
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    )
}
