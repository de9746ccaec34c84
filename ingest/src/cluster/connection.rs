//! One connection to the cluster: CONNECT, subscribe, take messages, acknowledge them in order, DISCONNECT.
//!
//! ```text
//!  follow ─▶ arrived ─▶ submit ─▶ under way ─▶ settle ─▶ rumqttc's queue ─▶ follow
//!  polls               waits for credit        waits for the outcome       sends the PUBACK
//! ```
//!
//! The four parts run side by side, so that the connection is kept alive while the store is slow. What they hold is
//! bounded by the window: the cluster sends no more than the receive maximum ahead (MQTT 5 §4.9); for `QoS` 0, which is
//! not bounded so, the connection is not read any further.
//!
//! rumqttc: its event loop is never dropped in the middle of a poll while the connection is to live, as an
//! acknowledgement that it had taken from its queue would be gone, and used for one connection only. What it then throws
//! away, and what it would throw away by itself when the cluster has no session of ours, is acknowledgements of messages
//! that come again and our certificate, which is published on each connection. Its own limit on packets is the one that
//! it announces.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, ConnectReturnCode, Filter, Packet, PubAckReason, Publish,
    RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::{DeviceId, IdError};

use super::consumer::{Consumer, Lost};
use super::{PLAIN_FILTER, SHARED_FILTER, Shared};
use crate::edge::RECIPIENT_TOPIC;
use crate::pipeline::{Outcome, PipelineError};

/// The largest packet that we ask for. The cluster discards what is larger, as MQTT 5 §3.1.2.11.4 tells it to, and only
/// its log says so; so this is well beyond the largest envelope, and what is between the two is quarantined.
const PACKET_BYTES: u32 = 1024 * 1024;

/// The cluster keeps the session until we end it (MQTT 5 §3.1.2.11.2), or for as long as its operator allows.
const NEVER_EXPIRES: u32 = u32::MAX;

/// Silence after which a PINGREQ asks whether the cluster is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The event loop tells of something at each ping; when it does not, it is stuck at a peer that does not read.
const STUCK: Duration = Duration::from_secs(60);

/// How long connecting may take, in seconds.
const CONNECT_TIMEOUT_S: u64 = 20;

/// Room in rumqttc's queue and its packet ids for what is not an acknowledgement: one SUBSCRIBE, few certificates.
const OWN_REQUESTS: u16 = 8;

/// At the end: how long outcomes under way may take, and then the farewell.
const DRAIN: Duration = Duration::from_secs(5);
const FAREWELL: Duration = Duration::from_secs(1);

/// Stands for the device of a topic that names none, so that such a message is kept as any refused one is.
const UNNAMED: &str = "unnamed";

/// Why a connection is lost, or given up so that the cluster sends again what is not acknowledged.
#[derive(Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error("the connection ended: {0}")]
    Connection(ConnectionError),
    #[error("the cluster refused the connection: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("the cluster does not do {0}, which is needed here")]
    Unsupported(&'static str),
    #[error(
        "the cluster refused the subscription to {0} with QoS 1: {1:?}; its access list has to allow it"
    )]
    Subscription(&'static str, Option<SubscribeReasonCode>),
    #[error("the cluster broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("a message only names its session key, which is not known yet")]
    UnknownSender,
    #[error("a message could not be made durable")]
    Pipeline(#[from] PipelineError),
    #[error("standing in for the device of a topic that names none")]
    Unnamed(#[from] IdError),
}

impl From<ConnectionError> for Reason {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code) => Self::Refused(code),
            // Its text is the packet.
            ConnectionError::NotConnAck(_) => {
                Self::Protocol("it answered CONNECT with another packet")
            }
            error => Self::Connection(error),
        }
    }
}

/// rumqttc's queue is full, which the window does not allow for, or closed, which its event loop tells better.
impl From<ClientError> for Reason {
    fn from(_: ClientError) -> Self {
        Self::Protocol("more messages are unacknowledged than the receive maximum")
    }
}

/// A message on its way through the pipeline.
struct UnderWay {
    publish: Publish,
    device: DeviceId,
    outcome: BoxFuture<'static, Result<Outcome, PipelineError>>,
}

impl Consumer {
    /// Makes one connection and keeps it until it is lost, or given up (`Err`), or we are told to stop (`Ok`).
    pub(super) async fn consume(&mut self, shutdown: &CancellationToken) -> Result<(), Lost> {
        let shared = Arc::clone(&self.shared);
        let speaks = self.index == 0;
        let window = shared.settings.window.max(1);
        let room = usize::from(window) * 2;
        let queue = room + usize::from(OWN_REQUESTS);
        let (client, mut events) = AsyncClient::new(self.options(window), queue);
        let (arrived, arriving) = mpsc::channel(room);
        let (submitted, under_way) = mpsc::channel(room);
        let mut progress = false;
        let settled = async {
            let submit = submit(&shared, arriving, submitted, shutdown);
            let settle = self.settle(under_way, &client, &mut progress);
            tokio::try_join!(submit, settle).map(|_| ())
        };
        let patience = async {
            shutdown.cancelled().await;
            sleep(DRAIN).await;
        };
        let ended = tokio::select! {
            ended = follow(&shared, &client, &mut events, arrived) => ended,
            ended = settled => ended,
            ended = announce(&shared, &client), if speaks => ended,
            () = patience => Ok(()),
        };
        match ended {
            Ok(()) => {
                farewell(&client, &mut events).await;
                Ok(())
            }
            Err(reason) => Err(Lost { reason, progress }),
        }
    }

    fn options(&self, window: u16) -> MqttOptions {
        let settings = &self.shared.settings;
        let mut options = MqttOptions::new(self.name(), &settings.host, settings.port);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(NEVER_EXPIRES);
        properties.receive_maximum = Some(window);
        properties.max_packet_size = Some(PACKET_BYTES);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(false)
            .set_manual_acks(true)
            .set_connection_timeout(CONNECT_TIMEOUT_S)
            .set_outgoing_inflight_upper_limit(OWN_REQUESTS)
            .set_connect_properties(properties)
            .set_network_options(network);
        if let Some(tls) = &settings.tls {
            let tls = TlsConfiguration::Rustls(Arc::clone(tls));
            options.set_transport(Transport::tls_with_config(tls));
        }
        if let Some(login) = &settings.login {
            options.set_credentials(&login.user, &login.password);
        }
        options
    }

    /// Acknowledges in the order of arrival [MQTT-4.6.0-2], and only from here. Ends when nothing more is submitted.
    async fn settle(
        &mut self,
        mut under_way: mpsc::Receiver<UnderWay>,
        client: &AsyncClient,
        progress: &mut bool,
    ) -> Result<(), Reason> {
        let shared = Arc::clone(&self.shared);
        while let Some(message) = under_way.recv().await {
            let UnderWay {
                publish,
                device,
                outcome,
            } = message;
            let outcome = match outcome.await {
                Ok(outcome) => outcome,
                Err(PipelineError::UnknownSender) if !self.has_waited_for_sender(&device) => {
                    return Err(Reason::UnknownSender);
                }
                Err(PipelineError::UnknownSender) => {
                    let pipeline = &shared.deps.pipeline;
                    pipeline.give_up_sender(&device, &publish.payload).await?
                }
                Err(error) => return Err(error.into()),
            };
            if matches!(outcome, Outcome::Stored { .. }) {
                self.knows_sender(&device);
            }
            shared.metrics.count_acked(outcome);
            client.try_ack(&publish)?;
            *progress = true;
        }
        Ok(())
    }
}

/// Drives the connection: hands on what comes, sends what is queued.
async fn follow(
    shared: &Shared,
    client: &AsyncClient,
    events: &mut EventLoop,
    arrived: mpsc::Sender<Publish>,
) -> Result<(), Reason> {
    // Leaves after the CONNACK.
    let name = match shared.settings.shared {
        true => SHARED_FILTER,
        false => PLAIN_FILTER,
    };
    let mut filter = Filter::new(name, QoS::AtLeastOnce);
    // What is retained came when it was published.
    filter.retain_forward_rule = RetainForwardRule::Never;
    client.try_subscribe_many([filter])?;
    let mut _connected = None;
    loop {
        let Ok(event) = timeout(STUCK, events.poll()).await else {
            let stuck = io::Error::from(io::ErrorKind::TimedOut);
            return Err(ConnectionError::Io(stuck).into());
        };
        let Event::Incoming(packet) = event? else {
            continue;
        };
        match packet {
            Packet::ConnAck(answer) => check(&answer, shared.settings.shared)?,
            Packet::SubAck(answer) => match answer.return_codes.first() {
                Some(SubscribeReasonCode::Success(QoS::AtLeastOnce)) => {
                    tracing::info!(host = %shared.settings.host, "consuming from the MQTT cluster");
                    _connected = Some(shared.metrics.connection());
                }
                refused => return Err(Reason::Subscription(name, refused.cloned())),
            },
            Packet::Publish(publish) => {
                shared.metrics.received.fetch_add(1, Relaxed);
                if publish.dup {
                    shared.metrics.redelivered.fetch_add(1, Relaxed);
                }
                if publish.qos == QoS::ExactlyOnce {
                    return Err(Reason::Protocol(
                        "it sent QoS 2 to a subscription with QoS 1",
                    ));
                }
                // Nobody takes it any more when we are stopping: it comes again.
                let _ = arrived.send(publish).await;
            }
            Packet::PubAck(answer) => match answer.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {}
                reason => tracing::error!(
                    ?reason,
                    "the MQTT cluster does not let us publish on {RECIPIENT_TOPIC}: devices do not learn the envelope \
                     key; its access list has to allow it"
                ),
            },
            _ => {}
        }
    }
}

fn check(answer: &ConnAck, shared: bool) -> Result<(), Reason> {
    let properties = answer.properties.as_ref();
    let refused = |what: Option<u8>| what == Some(0);
    if shared && properties.is_some_and(|p| refused(p.shared_subscription_available)) {
        return Err(Reason::Unsupported("shared subscriptions"));
    }
    if properties.is_some_and(|p| refused(p.wildcard_subscription_available)) {
        return Err(Reason::Unsupported("wildcard subscriptions"));
    }
    if properties.is_some_and(|p| refused(p.retain_available)) {
        return Err(Reason::Unsupported("retained messages"));
    }
    if properties.is_some_and(|p| refused(p.max_qos)) {
        return Err(Reason::Unsupported("QoS 1"));
    }
    if let Some(seconds) = properties.and_then(|p| p.session_expiry_interval)
        && seconds != NEVER_EXPIRES
    {
        tracing::warn!(
            seconds,
            "the MQTT cluster keeps messages for us for this long only while no consumer is connected"
        );
    }
    Ok(())
}

/// Hands messages to the pipeline in the order in which they came, as far as there is credit, until told to stop.
async fn submit(
    shared: &Shared,
    mut arriving: mpsc::Receiver<Publish>,
    submitted: mpsc::Sender<UnderWay>,
    shutdown: &CancellationToken,
) -> Result<(), Reason> {
    let pipeline = &shared.deps.pipeline;
    let submitting = async {
        while let Some(publish) = arriving.recv().await {
            let device = sender(shared, &publish.topic)?;
            let credit = pipeline.reserve(publish.payload.len()).await?;
            let (named, payload) = (device.clone(), publish.payload.clone());
            let outcome = shared.orders.submit(pipeline, credit, named, payload);
            let message = UnderWay {
                publish,
                device,
                outcome: outcome.boxed(),
            };
            if submitted.send(message).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = submitting => ended,
    }
}

/// The device that a topic names, or the stand-in: the envelope's issuer is never that one, so it is refused and kept.
fn sender(shared: &Shared, topic: &[u8]) -> Result<DeviceId, IdError> {
    if let Some(device) = device_of(topic) {
        return Ok(device);
    }
    shared.metrics.unnamed.fetch_add(1, Relaxed);
    tracing::warn!(
        topic_bytes = topic.len(),
        "a message from the MQTT cluster is refused: its topic names no device"
    );
    UNNAMED.parse()
}

fn device_of(topic: &[u8]) -> Option<DeviceId> {
    let topic = std::str::from_utf8(topic).ok()?;
    let id = topic.strip_prefix("v1/d/")?.strip_suffix("/vitals")?;
    id.parse().ok()
}

/// Retains the envelope certificate at the cluster, now and whenever it changes. One consumer does, so that an older one
/// never overtakes a newer one.
async fn announce(shared: &Shared, client: &AsyncClient) -> Result<(), Reason> {
    let mut recipient = shared.deps.recipient.clone();
    loop {
        let newest = recipient.borrow_and_update().clone();
        if !newest.is_empty() {
            let qos = QoS::AtLeastOnce;
            client.publish(RECIPIENT_TOPIC, qos, true, newest).await?;
        }
        if recipient.changed().await.is_err() {
            // Its owner is gone; what was published stays.
            return std::future::pending().await;
        }
    }
}

/// Sends the acknowledgements that are queued and DISCONNECT, and waits until the cluster closes the connection: it has
/// read them all by then [MQTT-3.14.4-3]. The session stays.
async fn farewell(client: &AsyncClient, events: &mut EventLoop) {
    if client.try_disconnect().is_err() {
        return;
    }
    let closed = async { while events.poll().await.is_ok() {} };
    // Without it what was acknowledged may come again, and is known.
    let _ = timeout(FAREWELL, closed).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_names_a_device_or_none() {
        let named = device_of(b"v1/d/mon-7/vitals").unwrap();
        assert_eq!(named.as_str(), "mon-7");
        let others: [&[u8]; 8] = [
            b"",
            b"v1/d//vitals",
            b"v1/d/mon 7/vitals",
            b"v1/d/mon-7/down",
            b"v1/d/mon-7/vitals/",
            b"v1/d/m/n/vitals",
            b"v1/d/\xff/vitals",
            "v1/d/\u{e9}/vitals".as_bytes(),
        ];
        for topic in others {
            assert!(device_of(topic).is_none(), "{topic:?}");
        }
        let stand_in: DeviceId = UNNAMED.parse().unwrap();
        assert_eq!(stand_in.as_str(), UNNAMED);
    }
}
