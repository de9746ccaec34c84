//! The bytes of one connection, whatever carries them: TLS alone, or WebSocket frames inside TLS.
//!
//! Never here: a packet. Here are bytes that were read and not used yet, bytes that go out within a deadline, and the
//! end of a connection.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::closing::Closing;
use super::codec;
use super::packet::{ConnectAnswer, Outbound, Version};

/// A peer that is refused or left gets this long to take the answer and to close its side.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a connection is read from and written to.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Transport for T {}

/// The stream and what has been read from it and not been used. `Debug` prints its size only.
pub(crate) struct Wire {
    pub(crate) stream: Box<dyn Transport>,
    pub(crate) buffer: BytesMut,
    /// A write was given up in the middle of what it had to say.
    is_cut: bool,
}

impl Wire {
    pub(crate) fn new(stream: impl Transport + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: BytesMut::new(),
            is_cut: false,
        }
    }

    /// Waits for more bytes. Cancel safe.
    ///
    /// # Errors
    /// `Gone` at the end of the stream.
    pub(crate) async fn read(&mut self) -> Result<(), Closing> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Closing::Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Writes all of `out` and empties it. Cancel safe: what is written is not in `out` any more.
    ///
    /// # Errors
    /// `SlowReader` after `deadline`, `Gone` when the peer is.
    pub(crate) async fn flush(
        &mut self,
        out: &mut BytesMut,
        deadline: Duration,
    ) -> Result<(), Closing> {
        if out.is_empty() {
            return Ok(());
        }
        let written = timeout(deadline, async {
            while !out.is_empty() {
                if self.stream.write_buf(out).await? == 0 {
                    return Err(ErrorKind::WriteZero.into());
                }
                self.is_cut = !out.is_empty();
            }
            self.stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Closing::Gone),
            Err(_) => Err(Closing::SlowReader),
        }
    }

    /// May stand what is written from here on where a packet begins, whatever was left unwritten before?
    pub(crate) fn is_between_packets(&self) -> bool {
        !self.is_cut
    }

    /// Sends last words, if any, and closes. What the peer still sends is read and dropped for a moment: closing a
    /// socket with unread bytes resets it, and the reset would overtake the last words.
    ///
    /// Returns whether the peer closed its side too: a live one does, a dead path says nothing.
    pub(crate) async fn close(mut self, mut out: BytesMut) -> bool {
        let closed = timeout(LAST_WORDS, async {
            if self.flush(&mut out, LAST_WORDS).await.is_err() {
                return false;
            }
            let _ = self.stream.shutdown().await;
            let mut unread = [0; 4096];
            loop {
                match self.stream.read(&mut unread).await {
                    Ok(0) => return true,
                    Ok(_) => {}
                    // Closed without a word of TLS, as many clients do. A reset is none of it: it comes from a device that
                    // was started anew, too.
                    Err(error) => return error.kind() == ErrorKind::UnexpectedEof,
                }
            }
        });
        closed.await.unwrap_or(false)
    }

    /// Answers a CONNECT with a refusal and closes.
    pub(crate) async fn refuse(self, version: Version, answer: ConnectAnswer) {
        let mut out = BytesMut::new();
        let refusal = Outbound::ConnAck {
            answer,
            offer: None,
        };
        if codec::encode(version, &refusal, &mut out).is_ok() {
            self.close(out).await;
        }
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("buffer_bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}
