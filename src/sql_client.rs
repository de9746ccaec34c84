//! A PostgreSQL client over TLS, for the demo and the tests: the door is used as `psql` would.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Socket};
use tokio_rustls::TlsConnector;

use crate::tls;

/// Connects as `user` with a token as the password.
///
/// # Errors
/// The server cannot be reached, is not certified by `authorities`, or refuses the login.
pub async fn connect(
    address: SocketAddr,
    authorities: &str,
    user: &str,
    token: &str,
) -> anyhow::Result<Client> {
    let tls = Tls(TlsConnector::from(Arc::new(tls::client(authorities)?)));
    let mut config = tokio_postgres::Config::new();
    config
        .host("localhost")
        .hostaddr(address.ip())
        .port(address.port())
        .user(user)
        .password(token)
        .dbname("vitalseal")
        .ssl_mode(SslMode::Require);
    let (client, connection) = config
        .connect(tls)
        .await
        .with_context(|| format!("logging in to SQL at {address}"))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the SQL connection ended");
        }
    });
    Ok(client)
}

#[derive(Clone)]
struct Tls(TlsConnector);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        Ok(Handshake(
            self.0.clone(),
            ServerName::try_from(host.to_owned())?,
        ))
    }
}

struct Handshake(TlsConnector, ServerName<'static>);

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { Ok(Stream(Box::new(self.0.connect(self.1, socket).await?))) })
    }
}

/// The encrypted connection. No channel binding: the token is checked inside TLS, in the clear.
struct Stream(Box<tokio_rustls::client::TlsStream<Socket>>);

impl tokio_postgres::tls::TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
