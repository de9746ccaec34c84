//! The command's side of `DIR/admin.sock`.

use std::path::Path;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::protocol::{Request, Response};

/// Asks the running server to do one thing.
///
/// # Errors
/// No server runs on this store, the connection broke, or the server says why it did not do it.
pub async fn ask(socket: &Path, request: &Request) -> anyhow::Result<serde_json::Value> {
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
    let mut answer = Zeroizing::new(Vec::new());
    stream
        .read_to_end(&mut answer)
        .await
        .context("reading the answer")?;
    anyhow::ensure!(
        !answer.is_empty(),
        "the server closed the connection without an answer; its log says why"
    );
    match serde_json::from_slice(&answer).context("reading the answer")? {
        Response::Ok(value) => Ok(value),
        Response::Failed(reason) => Err(anyhow::Error::msg(reason)),
    }
}
