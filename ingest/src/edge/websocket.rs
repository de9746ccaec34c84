//! MQTT in WebSocket frames (v5 6; RFC 6455), for browsers and for networks that let nothing else through.
//!
//! ```text
//! GET /mqtt, Sec-WebSocket-Protocol: mqtt, Origin ─▶ 101 ─▶ binary frames ⇄ the bytes of an MQTT connection
//! ```
//!
//! A packet may begin and end anywhere in the frames [MQTT-6.0.0-2], so what comes of an upgrade is a stream of bytes like
//! any other. A page in a browser can open a WebSocket to any server, and the browser adds the user's certificate to it:
//! so who says with `Origin` to be a page must be a listed one. Whatever is no browser sends none.
//!
//! Never here: a packet; a peer's identity; a wait, deadlines are the caller's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::limits::Limits;
use super::rate::Pace;

/// Where the door is.
const PATH: &str = "/mqtt";

/// The subprotocol [MQTT-6.0.0-3].
const PROTOCOL: &str = "mqtt";

/// A frame or message larger than this is refused: more than the largest packet, and clients send packet by packet.
const MESSAGE_BYTES: usize = 512 * 1024;

/// What goes out is cut into frames of this size, so that no more is ever queued than a slow reader's two.
const FRAME_BYTES: usize = 64 * 1024;

/// Kept for reading, for every connection that is open.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// A connection whose bytes travel in binary frames.
pub(crate) struct WebSocket<S> {
    frames: WebSocketStream<S>,
    /// Of the last frame, what was not asked for yet.
    unread: Bytes,
    /// What the closing frame will say.
    code: CloseCode,
    said_goodbye: bool,
    limits: Limits,
    /// Frames without a byte of MQTT: six bytes make the server write a pong, and no packet is counted for them.
    idle: Pace,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Answers an upgrade request. The request may have 64 KiB at most and not come in crumbs; `origins` are the pages
    /// that may be the asker, as a browser writes them: `https://ward.example.org`.
    ///
    /// # Errors
    /// It was no such request, and was told so if it was HTTP.
    pub(crate) async fn accept(
        stream: S,
        origins: &[String],
        limits: Limits,
    ) -> Result<Self, Error> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(4 * FRAME_BYTES)
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        #[expect(
            clippy::result_large_err,
            reason = "the library's own type of an answer"
        )]
        let answer = |request: &Request, mut response: Response| {
            let status = judge(request, origins);
            if status != StatusCode::SWITCHING_PROTOCOLS {
                let mut refusal = ErrorResponse::new(None);
                *refusal.status_mut() = status;
                return Err(refusal);
            }
            let protocol = HeaderValue::from_static(PROTOCOL);
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            Ok(response)
        };
        let frames = accept_hdr_async_with_config(stream, answer, Some(config)).await?;
        Ok(Self {
            frames,
            unread: Bytes::new(),
            code: CloseCode::Normal,
            said_goodbye: false,
            limits,
            idle: Pace::default(),
        })
    }

    /// Counts a frame that carries nothing. After the goodbye it is dropped: an error there would reset the connection
    /// before the peer has read why it ends.
    ///
    /// # Errors
    /// There were more than packets may be.
    fn count_idle(&mut self) -> io::Result<()> {
        let (rate, now) = (self.limits.get().packets, Instant::now());
        if !self.said_goodbye && self.idle.turn(rate, now, now).is_none() {
            self.code = CloseCode::Policy;
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// Takes note of what the closing frame has to say, for an error that ends the reading.
    fn fail(&mut self, error: Error) -> io::Error {
        self.code = match &error {
            Error::Capacity(_) => CloseCode::Size,
            _ => CloseCode::Protocol,
        };
        match error {
            Error::Io(error) => error,
            // Its text may quote what the peer sent.
            _ => io::ErrorKind::InvalidData.into(),
        }
    }
}

/// What an upgrade request is answered.
fn judge(request: &Request, origins: &[String]) -> StatusCode {
    if request.uri().path() != PATH {
        return StatusCode::NOT_FOUND;
    }
    let headers = request.headers();
    let mut from = headers.get_all(header::ORIGIN).into_iter();
    let is_listed = |from: &HeaderValue| {
        let mut listed = origins.iter();
        listed.any(|origin| from.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    };
    if !from.all(is_listed) {
        return StatusCode::FORBIDDEN;
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut offered = offered
        .iter()
        .filter_map(|offered| offered.to_str().ok())
        .flat_map(|offered| offered.split(','));
    match offered.any(|protocol| protocol.trim() == PROTOCOL) {
        true => StatusCode::SWITCHING_PROTOCOLS,
        false => StatusCode::BAD_REQUEST,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => self.unread = bytes,
                Some(Ok(Message::Close(_))) => {} // answered by the library, and the last
                // So is a ping.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => {
                    self.count_idle()?;
                }
                // [MQTT-6.0.0-1]
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    self.code = CloseCode::Unsupported;
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Some(Err(error)) => return Poll::Ready(Err(self.fail(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let now = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..now]);
        self.unread.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(|error| self.fail(error))?;
        let now = &buf[..buf.len().min(FRAME_BYTES)];
        let frame = Message::Binary(Bytes::copy_from_slice(now));
        let sent = Pin::new(&mut self.frames).start_send(frame);
        Poll::Ready(sent.map(|()| now.len()).map_err(|error| self.fail(error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.frames).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.fail(error)))
    }

    /// Says goodbye in a closing frame, then closes what is below.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_goodbye {
            let ready = ready!(Pin::new(&mut self.frames).poll_ready(cx));
            let goodbye = CloseFrame {
                code: self.code,
                reason: Utf8Bytes::default(),
            };
            // Refused when the peer said goodbye first: then it was answered already.
            let _ = ready.and_then(|()| {
                Pin::new(&mut self.frames).start_send(Message::Close(Some(goodbye)))
            });
            self.said_goodbye = true;
        }
        let _ = ready!(Pin::new(&mut self.frames).poll_flush(cx));
        Pin::new(self.frames.get_mut()).poll_shutdown(cx)
    }
}

impl<S> std::fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}
