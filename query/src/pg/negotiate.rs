//! The first bytes of a connection, up to TLS.
//!
//! Written out here because bytes that arrive before the handshake must not be seen after it: whoever
//! sits between could put a query in front of the client's own. Exactly one request is read at a time,
//! so that whatever follows `SSLRequest` goes into the TLS handshake and fails there.
//!
//! ```text
//!  u32 length │ u32 code │ rest          80877103 SSLRequest      answered 'S', then TLS
//!                                        80877104 GSSENCRequest   answered 'N', another request follows
//!                                        80877102 CancelRequest   pid, secret; connection ends
//!                                        else     StartupMessage  refused: no TLS
//!  0x16 …                                TLS without asking (needs ALPN "postgresql")
//! ```

use std::io;

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::ErrorResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The ALPN name that PostgreSQL registered.
pub(super) const ALPN: &[u8] = b"postgresql";

const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Longest secret of a cancel request (protocol 3.2 allows 256 bytes).
const MAX_SECRET_BYTES: u32 = 256;

/// What the peer wanted.
pub(super) enum Opening {
    /// A session inside TLS.
    Session(Box<TlsStream<TcpStream>>),
    /// To cancel a query of another connection.
    Cancel {
        /// Number of that connection.
        pid: i32,
        /// Its secret.
        secret: Vec<u8>,
    },
    /// A session without TLS. It was told why not; the connection ends.
    Plaintext,
}

/// Reads the opening requests of `tcp`.
///
/// # Errors
/// When the connection breaks, the handshake fails or the bytes are not the protocol.
pub(super) async fn negotiate(mut tcp: TcpStream, tls: &TlsAcceptor) -> io::Result<Opening> {
    let mut first = [0_u8; 1];
    if tcp.peek(&mut first).await? == 1 && first[0] == 0x16 {
        let session = tls.accept(tcp).await?;
        // Without the name, any TLS client of another protocol could be led here.
        if session.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(invalid("direct TLS without ALPN"));
        }
        return Ok(Opening::Session(Box::new(session)));
    }
    // One GSS request may come before the TLS request; nothing else may repeat.
    for _ in 0..2 {
        let length = tcp.read_u32().await?;
        let code = tcp.read_u32().await?;
        match (length, code) {
            (8, SSL_REQUEST) => {
                tcp.write_all(b"S").await?;
                return Ok(Opening::Session(Box::new(tls.accept(tcp).await?)));
            }
            (8, GSS_ENCRYPTION_REQUEST) => tcp.write_all(b"N").await?,
            (16.., CANCEL_REQUEST) if length - 12 <= MAX_SECRET_BYTES => {
                let pid = tcp.read_i32().await?;
                let mut secret = vec![0; (length - 12) as usize];
                tcp.read_exact(&mut secret).await?;
                return Ok(Opening::Cancel { pid, secret });
            }
            (8..=10_000, _) if code >> 16 == 3 => {
                refuse(&mut tcp).await?;
                return Ok(Opening::Plaintext);
            }
            _ => return Err(invalid("not the PostgreSQL protocol")),
        }
    }
    Err(invalid("no TLS request"))
}

async fn refuse(tcp: &mut TcpStream) -> io::Result<()> {
    let info = pgwire::error::ErrorInfo::new(
        "FATAL".to_owned(),
        "28000".to_owned(),
        "this server speaks only TLS: connect with sslmode=verify-full and its CA certificate"
            .to_owned(),
    );
    let mut bytes = BytesMut::new();
    PgWireBackendMessage::ErrorResponse(ErrorResponse::from(info)).encode(&mut bytes)?;
    tcp.write_all(&bytes).await?;
    tcp.shutdown().await
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
