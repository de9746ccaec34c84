//! One connection: CONNECT, subscribe, publish within the window, remove what is acknowledged, DISCONNECT.
//!
//! rumqttc's event loop is used for exactly one connection and then thrown away with everything it had queued: on a
//! reconnection it would drop what was pending whenever the server has no session, also what was never sent. The
//! outbox knows better.
//!
//! Packet ids: `publish` only queues, so the id of a message is not known when it is handed over. The event loop
//! reports `Outgoing::Publish(id)` in the order of the queue, hence the two-step bookkeeping in [`Window`].
//!
//! Never here: a message for another key than the one whose certificate was published on this very connection and is
//! trusted. The server acknowledges what it cannot open, for good, and an acknowledgement ends the message here.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, StateError,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::{CertificateError, MAX_ENVELOPE_BYTES, RecipientCertificate};

use super::{Aim, PublishError, Publisher};
use crate::Position;

/// Where the server keeps its envelope certificate, retained.
const RECIPIENT_TOPIC: &str = "v1/recipient";

/// The largest envelope, and room for the topic and the fixed header around it.
const MAX_PACKET_BYTES: usize = MAX_ENVELOPE_BYTES + 44 * 1024;

/// How long connecting, and handing bytes to a server that does not read, may take. rumqttc's own 5 s would
/// cut off a server that holds a device back for good reason.
const NETWORK_TIMEOUT_S: u64 = 20;

/// How long a farewell may take; the server does without.
const FAREWELL: Duration = Duration::from_secs(1);

/// Messages between the outbox and their acknowledgement.
struct Window {
    /// One permit for each further message that may be sent.
    room: Semaphore,
    state: Mutex<WindowState>,
    /// What the server published on this connection and the device trusts: what was known on an earlier one may have
    /// ended since.
    recipient: watch::Sender<Option<Arc<RecipientCertificate>>>,
}

#[derive(Default)]
struct WindowState {
    /// Handed to the client, packet id not known yet, in order.
    queued: VecDeque<Position>,
    /// Sent under this packet id.
    sent: HashMap<u16, Position>,
}

impl Window {
    fn new(size: u16) -> Self {
        Self {
            room: Semaphore::new(usize::from(size)),
            state: Mutex::default(),
            recipient: watch::Sender::new(None),
        }
    }

    fn queue(&self, position: Position) {
        self.state().queued.push_back(position);
    }

    fn unqueue(&self) {
        self.state().queued.pop_back();
    }

    /// The next message of the queue went out under this packet id.
    fn sent_as(&self, packet: u16) {
        let mut state = self.state();
        if let Some(position) = state.queued.pop_front() {
            state.sent.insert(packet, position);
        }
    }

    /// The message of a packet id is acknowledged; makes room for another.
    fn acked(&self, packet: u16) -> Option<Position> {
        let position = self.state().sent.remove(&packet)?;
        self.room.add_permits(1);
        Some(position)
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one of the two halves of a connection ended.
enum Ended {
    /// The aim is reached.
    Reached,
    /// The connection is gone.
    Lost(ConnectionError),
}

/// Why nothing more may be sent on a connection. The next one may say more.
#[derive(Debug, thiserror::Error)]
enum NoRecipient {
    #[error("the server published no envelope certificate on v1/recipient in time")]
    Silence,
    #[error("the server refused the subscription to v1/recipient")]
    Refused,
    #[error("v1/recipient holds no PEM")]
    NoPem,
    #[error("the envelope certificate on v1/recipient is not trusted: {0}")]
    NotTrusted(CertificateError),
    #[error("the envelope certificate on v1/recipient has ended, and there is no newer one")]
    Ended,
}

impl NoRecipient {
    fn end(self) -> Ended {
        tracing::warn!(reason = %self, "nothing more is sent on this connection");
        Ended::Lost(io::Error::other(self).into())
    }
}

impl Publisher {
    /// Makes one connection and keeps it until the aim is reached or we are told to stop (`Ok(Ok(()))`), the
    /// connection ends (`Ok(Err(_))`), or the outbox fails (`Err(_)`).
    pub(super) async fn connect_and_publish(
        &self,
        aim: Aim,
        stop: &CancellationToken,
    ) -> Result<Result<(), ConnectionError>, PublishError> {
        let size = self.settings.window.max(1);
        let (client, mut events) = AsyncClient::new(self.options(size), usize::from(size) + 4);
        events
            .network_options
            .set_connection_timeout(NETWORK_TIMEOUT_S)
            .set_tcp_nodelay(true);
        let window = Window::new(size);
        let ended = tokio::select! {
            ended = self.follow(aim, &client, &mut events, &window) => ended?,
            ended = self.feed(&client, &window) => ended?,
            () = stop.cancelled() => Ended::Reached,
        };
        match ended {
            Ended::Lost(error) => Ok(Err(error)),
            Ended::Reached => {
                farewell(&client, &mut events).await;
                Ok(Ok(()))
            }
        }
    }

    fn options(&self, window: u16) -> MqttOptions {
        let device = self.identity.device().as_str();
        let mut options = MqttOptions::new(device, &self.endpoint.host, self.endpoint.port);
        let tls = TlsConfiguration::Rustls(Arc::clone(&self.tls));
        options
            .set_transport(Transport::tls_with_config(tls))
            .set_keep_alive(self.settings.keep_alive.max(Duration::from_secs(1)))
            .set_clean_session(false)
            .set_inflight(window)
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        options
    }

    /// Hands messages to the client as long as the window has room, and waits for new ones; before all, for the server's
    /// key.
    async fn feed(&self, client: &AsyncClient, window: &Window) -> Result<Ended, PublishError> {
        let topic = format!("v1/d/{}/vitals", self.identity.device());
        let mut last = None;
        let mut published = window.recipient.subscribe();
        let published = published.wait_for(Option::is_some);
        let told = tokio::time::timeout(self.settings.recipient_patience, published).await;
        if !told.is_ok_and(|told| told.is_ok()) {
            return Ok(NoRecipient::Silence.end());
        }
        loop {
            let Ok(permit) = window.room.acquire().await else {
                return Ok(Ended::Reached);
            };
            permit.forget();
            let position = loop {
                // A push between these two lines leaves a permit in the bell, so it is not missed.
                match self.outbox.next_after(last) {
                    Some(position) => break position,
                    None => self.pushed.notified().await,
                }
            };
            last = Some(position);
            let recipient = window.recipient.borrow().clone();
            // A connection may last for longer than a certificate.
            let now = (self.settings.clock)();
            let Some(recipient) = recipient.filter(|recipient| now <= recipient.not_after()) else {
                return Ok(NoRecipient::Ended.end());
            };
            let outbox = self.outbox.clone();
            let addressed = tokio::task::spawn_blocking(move || {
                let waiting = outbox.read(position)?;
                Ok(waiting.address(&recipient))
            });
            let Ok(addressed) = addressed.await else {
                return Ok(Ended::Lost(ConnectionError::RequestsDone));
            };
            let sealed = match addressed.map_err(PublishError::Outbox)? {
                Ok(sealed) => sealed,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(%position, error, "a message stays in the outbox");
                    window.room.add_permits(1);
                    continue;
                }
            };
            window.queue(position);
            if client
                .publish(&topic, QoS::AtLeastOnce, false, sealed)
                .await
                .is_err()
            {
                window.unqueue();
                return Ok(Ended::Lost(ConnectionError::RequestsDone));
            }
        }
    }

    /// Drives the connection and acts on what the server says.
    async fn follow(
        &self,
        aim: Aim,
        client: &AsyncClient,
        events: &mut EventLoop,
        window: &Window,
    ) -> Result<Ended, PublishError> {
        loop {
            let event = match events.poll().await {
                Ok(event) => event,
                Err(error) => return Ok(Ended::Lost(error)),
            };
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    self.stats.connections.fetch_add(1, Ordering::Relaxed);
                    if client
                        .subscribe(RECIPIENT_TOPIC, QoS::AtLeastOnce)
                        .await
                        .is_err()
                    {
                        return Ok(Ended::Lost(ConnectionError::RequestsDone));
                    }
                }
                Event::Incoming(Packet::SubAck(answer))
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) =>
                {
                    return Ok(NoRecipient::Refused.end());
                }
                Event::Incoming(Packet::Publish(publish)) if publish.topic == RECIPIENT_TOPIC => {
                    let recipient = match self.trusted(&publish.payload) {
                        Ok(recipient) => Arc::new(recipient),
                        Err(reason) => return Ok(reason.end()),
                    };
                    self.recipient.send_replace(Some(Arc::clone(&recipient)));
                    window.recipient.send_replace(Some(recipient));
                    if aim == Aim::Recipient {
                        return Ok(Ended::Reached);
                    }
                }
                Event::Outgoing(Outgoing::Publish(packet)) => {
                    self.stats.sent.fetch_add(1, Ordering::Relaxed);
                    window.sent_as(packet);
                }
                Event::Incoming(Packet::PubAck(ack)) => {
                    let Some(position) = window.acked(ack.pkid) else {
                        return Ok(Ended::Lost(StateError::Unsolicited(ack.pkid).into()));
                    };
                    let outbox = self.outbox.clone();
                    let removed = tokio::task::spawn_blocking(move || outbox.remove(position));
                    let Ok(removed) = removed.await else {
                        return Ok(Ended::Lost(ConnectionError::RequestsDone));
                    };
                    removed.map_err(PublishError::Outbox)?;
                    self.stats.acked.fetch_add(1, Ordering::Relaxed);
                    if aim == Aim::Drain && self.outbox.is_empty() {
                        return Ok(Ended::Reached);
                    }
                }
                _ => {}
            }
        }
    }

    /// The envelope certificate that was published, if the device trusts it.
    fn trusted(&self, payload: &[u8]) -> Result<RecipientCertificate, NoRecipient> {
        let pem = std::str::from_utf8(payload).map_err(|_| NoRecipient::NoPem)?;
        let now = (self.settings.clock)();
        self.identity
            .trust_recipient(pem, now)
            .map_err(NoRecipient::NotTrusted)
    }
}

/// Sends DISCONNECT, so that the server need not wait for the connection to go stale.
async fn farewell(client: &AsyncClient, events: &mut EventLoop) {
    if client.try_disconnect().is_err() {
        return;
    }
    let sent = async {
        while let Ok(event) = events.poll().await {
            if event == Event::Outgoing(Outgoing::Disconnect) {
                break;
            }
        }
    };
    // Too late is as good as sent: all that mattered was acknowledged.
    let _ = tokio::time::timeout(FAREWELL, sent).await;
}
