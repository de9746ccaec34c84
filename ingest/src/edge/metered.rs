//! A TCP stream that is read no faster than its limits say: below TLS, so that whatever a peer sends counts, and
//! whatever it is carried in.
//!
//! A stranger's bytes are a small budget, whose end ends the connection. Once the connection is admitted they are a rate,
//! and too much is left in the socket: TCP holds the peer back, and nothing is lost.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::limits::Limits;
use super::rate::Pace;

/// The stream, and how much was read of it.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    limits: Limits,
    admitted: Arc<AtomicBool>,
    /// Bytes read of a stranger.
    read: usize,
    pace: Pace,
    /// Reading goes on after this. In a box, and only while it is needed: most connections never do.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Metered<S> {
    /// `admitted` turns true when the peer is no stranger any more.
    pub(crate) fn new(stream: S, limits: Limits, admitted: Arc<AtomicBool>) -> Self {
        Self {
            stream,
            limits,
            admitted,
            read: 0,
            pace: Pace::default(),
            pause: None,
        }
    }

    fn count(&mut self, bytes: usize) -> io::Result<()> {
        let limits = self.limits.get();
        if !self.admitted.load(Ordering::Relaxed) {
            self.read = self.read.saturating_add(bytes);
            return if self.read > limits.stranger_bytes {
                Err(io::Error::other("more bytes than a stranger may send"))
            } else {
                Ok(())
            };
        }
        let now = Instant::now();
        let units = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.pace.take(units, limits.bytes, now);
        let ready_at = self.pace.ready_at(limits.bytes, now);
        if ready_at > now {
            self.pause = Some(Box::pin(sleep_until(ready_at)));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        Poll::Ready(self.count(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::limits::EdgeLimits;
    use super::super::rate::Rate;
    use super::*;

    fn metered(content: &'static [u8], admitted: bool) -> Metered<&'static [u8]> {
        let limits = EdgeLimits {
            stranger_bytes: 1_000,
            bytes: Rate {
                per_s: 1_000,
                at_once: 2_000,
            },
            ..EdgeLimits::default()
        };
        Metered::new(content, Limits::new(limits), Arc::new(admitted.into()))
    }

    #[tokio::test]
    async fn a_stranger_that_sends_too_much_is_read_no_further() {
        let mut read = Vec::new();
        let all = metered(&[7; 1_000], false).read_to_end(&mut read).await;
        assert_eq!(all.unwrap(), 1_000);
        assert!(
            metered(&[7; 1_001], false)
                .read_to_end(&mut read)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_device_that_sends_too_much_is_read_later_and_loses_nothing() {
        let begin = Instant::now();
        let mut read = Vec::new();
        let mut chunks = tokio::io::BufReader::with_capacity(100, metered(&[7; 2_400], true));
        chunks.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [7; 2_400]);
        // 2,000 at once and 400 at 1,000 a second; the last chunk is waited for by nobody.
        let least = Duration::from_millis(300);
        assert!(begin.elapsed() >= least);
    }

    #[tokio::test]
    async fn writing_is_not_held_back() {
        let (near, mut far) = tokio::io::duplex(64);
        let limits = Limits::new(EdgeLimits::default());
        let mut near = Metered::new(near, limits, Arc::default());
        near.write_all(b"ok").await.unwrap();
        let mut told = [0; 2];
        far.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"ok");
    }
}
