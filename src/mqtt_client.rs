//! A bare MQTT session over mutual TLS, for the demo and the tests: it publishes whatever bytes it is
//! given, which is what a broken or hostile device does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, TlsConfiguration, Transport,
};
use rustls::ClientConfig;

/// Longer than any answer of a healthy server on the same machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// A connected session.
pub struct Session {
    client: AsyncClient,
    events: EventLoop,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Connects as `client_id` and waits for the CONNACK.
    ///
    /// # Errors
    /// The handshake or the CONNECT was refused, or nobody answered in time.
    pub async fn connect(
        address: SocketAddr,
        client_id: &str,
        tls: Arc<ClientConfig>,
    ) -> anyhow::Result<Self> {
        let mut options = MqttOptions::new(client_id, "localhost", address.port());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        options.set_max_packet_size(512 * 1024, 512 * 1024);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, 16);
        let connected = async {
            while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
            Ok::<_, rumqttc::ConnectionError>(())
        };
        tokio::time::timeout(ANSWER_DEADLINE, connected)
            .await
            .context("waiting for the server's CONNACK")?
            .with_context(|| format!("connecting to MQTT at {address} as {client_id}"))?;
        Ok(Self { client, events })
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    ///
    /// # Errors
    /// The server closed the session instead, or did not answer in time.
    pub async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> anyhow::Result<()> {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .context("publishing")?;
        let acked = async {
            while !matches!(
                self.events.poll().await?,
                Event::Incoming(Packet::PubAck(_))
            ) {}
            Ok::<_, rumqttc::ConnectionError>(())
        };
        tokio::time::timeout(ANSWER_DEADLINE, acked)
            .await
            .context("waiting for a PUBACK")?
            .context("publishing: the server ended the session")
    }

    /// Waits until the server ends the session, and says how that looked from here.
    ///
    /// # Errors
    /// It went on for longer than any answer takes.
    pub async fn ended(&mut self) -> anyhow::Result<rumqttc::ConnectionError> {
        let ended = async {
            loop {
                if let Err(error) = self.events.poll().await {
                    return error;
                }
            }
        };
        tokio::time::timeout(ANSWER_DEADLINE, ended)
            .await
            .context("waiting for the server to end the session")
    }

    /// Ends the session in order.
    pub async fn close(mut self) {
        if self.client.disconnect().await.is_ok() {
            while self.events.poll().await.is_ok() {}
        }
    }
}
