//! One connection: CONNECT, subscribe, publish within the window, put away what is acknowledged, DISCONNECT.
//!
//! rumqttc's event loop is used for exactly one connection and then thrown away with everything it had queued: on a
//! reconnection it would drop what was pending whenever the server has no session, also what was never sent. The
//! outbox knows better.
//!
//! Never here: a message for another key than the one whose certificate was published on this very connection and is
//! trusted. The server acknowledges what it cannot open, for good, and an acknowledgement ends the message here. Nor an
//! acknowledgement of what the program has not taken.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::{CertificateError, MAX_ENVELOPE_BYTES, RecipientCertificate};

use super::incoming::{Incoming, Source};
use super::window::{Addressed, Window};
use super::{Aim, PublishError, Publisher, pauses};
use crate::{Outbox, OutboxError};

/// Where the server keeps its envelope certificate, retained.
const RECIPIENT_TOPIC: &str = "v1/recipient";

/// What the server tells every device.
const NOTICES_TOPIC: &str = "v1/notices";

/// The largest envelope, and room for the topic and the fixed header around it.
const MAX_PACKET_BYTES: usize = MAX_ENVELOPE_BYTES + 44 * 1024;

/// How long connecting, and handing bytes to a server that does not read, may take. rumqttc's own 5 s would
/// cut off a server that holds a device back for good reason.
const NETWORK_TIMEOUT_S: u64 = 20;

/// An acknowledged message is kept for so long after the certificate that it was sent under has ended: a server that is
/// restored from yesterday's backup is given everything that it has forgotten.
const KEPT_LONGER: SignedDuration = SignedDuration::from_hours(24);

/// How often ended messages are looked for while a connection lasts.
const FORGETTING: Duration = Duration::from_secs(60);

/// How long a farewell may take; the server does without.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is known of the server's session of this device.
struct Session {
    /// The answer to the CONNECT before this one was heard.
    known: bool,
    /// The answer to this one was.
    heard: bool,
}

/// How one of the parts of a connection ended.
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
        let (taken, mut acks) = mpsc::unbounded_channel();
        let mut session = Session {
            known: self.on_disk(Outbox::ask_session).await?,
            heard: false,
        };
        let ended = tokio::select! {
            ended = self.follow(aim, &client, &mut events, &window, &mut session, &taken) => ended?,
            ended = self.feed(&client, &window) => ended?,
            ended = self.tend(&client, &mut acks) => ended?,
            () = stop.cancelled() => Ended::Reached,
        };
        match ended {
            Ended::Lost(error) => {
                if session.known && !session.heard && !pauses::may_have_asked(&error) {
                    self.on_disk(Outbox::session_heard).await?;
                }
                Ok(Err(error))
            }
            Ended::Reached => {
                farewell(&client, &mut events).await;
                Ok(Ok(()))
            }
        }
    }

    /// Does something with the outbox where it may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Outbox) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, PublishError> {
        let outbox = self.outbox.clone();
        let done = tokio::task::spawn_blocking(move || task(&outbox)).await;
        done.map_err(|_| PublishError::Interrupted)?
            .map_err(PublishError::Outbox)
    }

    fn options(&self, window: u16) -> MqttOptions {
        let device = self.identity.device().as_str();
        let mut options = MqttOptions::new(device, &self.endpoint.host, self.endpoint.port);
        let tls = TlsConfiguration::Rustls(Arc::clone(&self.tls));
        options
            .set_transport(Transport::tls_with_config(tls))
            .set_keep_alive(self.settings.keep_alive.max(Duration::from_secs(1)))
            .set_clean_session(false)
            .set_manual_acks(true)
            // One more than is ever used: a full client would not even acknowledge.
            .set_inflight(window.saturating_add(1))
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
            let until = recipient.not_after() + KEPT_LONGER;
            let addressed = self
                .on_disk(move |outbox| Ok(outbox.read(position)?.address(&recipient)))
                .await?;
            let sealed = match addressed {
                Ok(sealed) => sealed,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(%position, error, "a message stays in the outbox");
                    window.room.add_permits(1);
                    continue;
                }
            };
            window.queue(Addressed { position, until });
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
        session: &mut Session,
        taken: &mpsc::UnboundedSender<Publish>,
    ) -> Result<Ended, PublishError> {
        let down = format!("v1/d/{}/down", self.identity.device());
        loop {
            let event = match events.poll().await {
                Ok(event) => event,
                Err(error) => return Ok(Ended::Lost(error)),
            };
            match event {
                Event::Incoming(Packet::ConnAck(answer)) => {
                    self.stats.connections.fetch_add(1, Ordering::Relaxed);
                    session.heard = true;
                    self.meet(session.known && answer.session_present).await?;
                    if client.subscribe_many(self.filters(&down)).await.is_err() {
                        return Ok(Ended::Lost(ConnectionError::RequestsDone));
                    }
                }
                Event::Incoming(Packet::SubAck(answer)) => {
                    if answer.return_codes.first() == Some(&SubscribeReasonCode::Failure) {
                        return Ok(NoRecipient::Refused.end());
                    }
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        tracing::warn!("the server lets this device hear no messages");
                    }
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
                Event::Incoming(Packet::Publish(publish)) => {
                    let source = match publish.topic.as_str() {
                        topic if topic == down => Source::Down,
                        NOTICES_TOPIC => Source::Notices,
                        _ => continue,
                    };
                    self.hand_over(Incoming::new(source, publish, taken.clone()));
                }
                Event::Outgoing(Outgoing::Publish(packet)) => {
                    self.stats.sent.fetch_add(1, Ordering::Relaxed);
                    window.sent_as(packet);
                }
                Event::Incoming(Packet::PubAck(ack)) => {
                    let Some(message) = window.acked(ack.pkid) else {
                        return Ok(Ended::Lost(StateError::Unsolicited(ack.pkid).into()));
                    };
                    let Addressed { position, until } = message;
                    let keep = self.settings.keep_acknowledged;
                    self.on_disk(move |outbox| match keep {
                        true => outbox.acknowledge(position, until),
                        false => outbox.remove(position),
                    })
                    .await?;
                    self.stats.acked.fetch_add(1, Ordering::Relaxed);
                    if aim == Aim::Drain && self.outbox.is_empty() {
                        return Ok(Ended::Reached);
                    }
                }
                _ => {}
            }
        }
    }

    /// After the server's answer to CONNECT. Before a SUBSCRIBE, so before anything is sent: what the server may have
    /// forgotten goes first.
    async fn meet(&self, remembers: bool) -> Result<(), PublishError> {
        let now = (self.settings.clock)();
        let reoffered = self
            .on_disk(move |outbox| {
                outbox.forget_ended(now)?;
                let reoffered = if remembers { 0 } else { outbox.reoffer()? };
                outbox.session_heard()?;
                Ok(reoffered)
            })
            .await?;
        if reoffered > 0 {
            tracing::info!(
                messages = reoffered,
                "the server has no session: sending again"
            );
            let reoffered = u64::try_from(reoffered).unwrap_or(u64::MAX);
            self.stats.reoffered.fetch_add(reoffered, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The recipient's topic first, and at QoS 0: nothing but the newest certificate counts, and none must come again.
    /// What is for the program only if it asked.
    fn filters(&self, down: &str) -> Vec<SubscribeFilter> {
        let filter = |topic: &str, qos| SubscribeFilter::new(topic.to_owned(), qos);
        let mut filters = vec![filter(RECIPIENT_TOPIC, QoS::AtMostOnce)];
        if self.program().is_some() {
            filters.extend([down, NOTICES_TOPIC].map(|topic| filter(topic, QoS::AtLeastOnce)));
        }
        filters
    }

    /// What nobody takes is not acknowledged, and comes again on a later connection.
    fn hand_over(&self, message: Incoming) {
        let Some(program) = self.program() else {
            return;
        };
        if program.try_send(message).is_err() {
            tracing::warn!("the program does not take what the server says");
        }
    }

    fn program(&self) -> Option<mpsc::Sender<Incoming>> {
        let program = self.program.lock();
        program.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Acknowledges what was taken, and ends what was kept for long enough.
    async fn tend(
        &self,
        client: &AsyncClient,
        acks: &mut mpsc::UnboundedReceiver<Publish>,
    ) -> Result<Ended, PublishError> {
        let mut forgetting = tokio::time::interval(FORGETTING);
        forgetting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(publish) = acks.recv() => {
                    if client.ack(&publish).await.is_err() {
                        return Ok(Ended::Lost(ConnectionError::RequestsDone));
                    }
                }
                _ = forgetting.tick() => {
                    let now = (self.settings.clock)();
                    self.on_disk(move |outbox| outbox.forget_ended(now)).await?;
                }
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
