//! Publishing over MQTT 3.1.1 and TLS, until the server has acknowledged everything.
//!
//! `connection` holds one connection from CONNECT to its end; here is what outlives a connection: when to
//! try again, when to stop, and what was learnt. Nothing is ever taken out of the outbox but by a PUBACK, and what the
//! server may have forgotten is put back.

mod connection;
mod incoming;
mod pauses;
mod tls;
mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rumqttc::ConnectionError;
use rustls::ClientConfig;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::RecipientCertificate;

pub use self::incoming::{Incoming, Source};
use self::pauses::Pauses;
use crate::{DeviceIdentity, Outbox, OutboxError};

/// Where the server is. The host is also the name that its certificate must bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or IP address.
    pub host: String,
    /// Port; 8883 for MQTT over TLS.
    pub port: u16,
}

/// How a [`Publisher`] behaves.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// Messages that are sent and not yet acknowledged, at most. Bounds what the server holds for one device.
    pub window: u16,
    /// Silence after which the connection is tried with a PINGREQ; it is given up after twice that. At least 1 s.
    pub keep_alive: Duration,
    /// Pause after the first failure; doubled with every further one, and shortened by chance to half at most.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// How long a new connection may take until the server has published a trusted envelope certificate on it; then it is
    /// given up.
    pub recipient_patience: Duration,
    /// Whether acknowledged messages are kept for a server that is restored from a backup; see
    /// [`Outbox::acknowledge`]. Without it such a server lacks what it acknowledged after the backup.
    pub keep_acknowledged: bool,
    /// Reads the time, to check the envelope certificate's validity and to end what is kept by it.
    pub clock: fn() -> Timestamp,
}

impl PublisherSettings {
    /// A window of 64 messages, a keep-alive of 15 s, pauses from 200 ms to 30 s, a patience of 30 s; what was
    /// acknowledged is kept.
    #[must_use]
    pub fn new(clock: fn() -> Timestamp) -> Self {
        Self {
            window: 64,
            keep_alive: Duration::from_secs(15),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            recipient_patience: Duration::from_secs(30),
            keep_acknowledged: true,
            clock,
        }
    }
}

/// Counters of a [`Publisher`], each only ever rising.
#[derive(Debug, Default)]
pub struct PublisherStats {
    sent: AtomicU64,
    acked: AtomicU64,
    reoffered: AtomicU64,
    connections: AtomicU64,
    failures: AtomicU64,
}

impl PublisherStats {
    /// PUBLISH packets handed to the transport, repetitions included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages that the server acknowledged, repetitions included.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Acknowledged messages that waited once more because the server had no session of this device.
    #[must_use]
    pub fn reoffered(&self) -> u64 {
        self.reoffered.load(Ordering::Relaxed)
    }

    /// Connections that the server accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that failed or ended without our wish.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Why publishing ended without its aim.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The identity does not make a TLS client.
    #[error("preparing TLS with the device's identity")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The outbox failed.
    #[error("sending from the outbox")]
    Outbox(#[source] OutboxError),
    /// A step on the disk was abandoned: the runtime is shutting down.
    #[error("using the outbox was cut short; what was not acknowledged is still in it")]
    Interrupted,
    /// Time ran out. What was not acknowledged is still in the outbox.
    #[error(
        "the deadline passed with {pending} messages not acknowledged; they stay in the outbox"
    )]
    Deadline {
        /// Messages left.
        pending: usize,
        /// How the last connection ended, if one did.
        #[source]
        cause: Option<Box<ConnectionError>>,
    },
    /// Time ran out before the server published an envelope certificate that the device trusts.
    #[error(
        "the deadline passed without an envelope certificate on v1/recipient that the device's authority issued"
    )]
    NoRecipient {
        /// How the last connection ended, if one did.
        #[source]
        cause: Option<Box<ConnectionError>>,
    },
}

/// What a run is for, and so when it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Until the outbox is empty.
    Drain,
    /// Until a trusted envelope certificate is known.
    Recipient,
    /// For ever.
    Serve,
}

/// Publishes the outbox of one device.
///
/// Each connection is made afresh and sends everything that waits, in the order of boot and sequence, with
/// `QoS` 1 to `v1/d/{device}/vitals`; the server knows what it has already. When it says that it has no session of this
/// device, it may have been restored from a backup: then what it acknowledged, as far as that is
/// [kept](Outbox::acknowledge), waits again. What was sealed for another envelope key
/// than the server publishes on that connection is [addressed](crate::Waiting::address) to its present one. Nothing is
/// sent on a connection before a certificate was published there that the device trusts, and what cannot be addressed to
/// it stays in the outbox.
///
/// The MQTT client id is the device id, so a second publisher of the same device takes the session over
/// ([MQTT-3.1.4-2]): run one at a time.
#[derive(Debug)]
pub struct Publisher {
    identity: Arc<DeviceIdentity>,
    outbox: Outbox,
    endpoint: Endpoint,
    settings: PublisherSettings,
    tls: Arc<ClientConfig>,
    stats: Arc<PublisherStats>,
    /// Rung when the outbox has something new.
    pushed: Arc<Notify>,
    recipient: watch::Sender<Option<Arc<RecipientCertificate>>>,
    /// Who takes what the server says; `None` while nobody asked.
    program: Mutex<Option<mpsc::Sender<Incoming>>>,
}

impl Publisher {
    /// A publisher that has not connected yet.
    ///
    /// # Errors
    /// [`PublishError::Tls`]
    pub fn new(
        identity: Arc<DeviceIdentity>,
        outbox: Outbox,
        endpoint: Endpoint,
        settings: PublisherSettings,
    ) -> Result<Self, PublishError> {
        let tls = tls::client_config(&identity).map_err(|error| PublishError::Tls(error.into()))?;
        let pushed = Arc::new(Notify::new());
        let bell = Arc::clone(&pushed);
        outbox.on_push(move || bell.notify_one());
        let stats = Arc::default();
        let (recipient, _) = watch::channel(None);
        Ok(Self {
            identity,
            outbox,
            endpoint,
            settings,
            tls,
            stats,
            pushed,
            recipient,
            program: Mutex::default(),
        })
    }

    /// Counters, which go on counting while it runs.
    #[must_use]
    pub fn stats(&self) -> Arc<PublisherStats> {
        Arc::clone(&self.stats)
    }

    /// The newest envelope certificate that the server published and the device trusts: give it to
    /// [`Sealer::set_recipient`](crate::Sealer::set_recipient) when it changes.
    #[must_use]
    pub fn recipient(&self) -> watch::Receiver<Option<Arc<RecipientCertificate>>> {
        self.recipient.subscribe()
    }

    /// What the server tells this device (`v1/d/{device}/down`) and every device (`v1/notices`), from the next connection
    /// on. Nobody hears it before this is called, and only the last caller does.
    #[must_use]
    pub fn messages(&self) -> mpsc::Receiver<Incoming> {
        let (sender, receiver) = mpsc::channel(incoming::UNTAKEN);
        *self.program.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Publishes until every message is acknowledged, or `deadline` has passed.
    ///
    /// # Errors
    /// [`PublishError::Deadline`], [`PublishError::Outbox`]
    pub async fn run_until_drained(&self, deadline: Duration) -> Result<(), PublishError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        self.run_with_deadline(Aim::Drain, deadline)
            .await?
            .map_err(|cause| PublishError::Deadline {
                pending: self.outbox.len(),
                cause,
            })
    }

    /// Publishes, also what is pushed meanwhile, until it is told to stop.
    ///
    /// # Errors
    /// [`PublishError::Outbox`]; whatever the network does, it tries again.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), PublishError> {
        let mut last = None;
        self.attempt_until(Aim::Serve, &stop, &mut last).await
    }

    /// The envelope certificate that the server keeps on `v1/recipient`, if the device's authority issued it and it is
    /// valid now. Publishes what waits in the outbox meanwhile.
    ///
    /// # Errors
    /// [`PublishError::NoRecipient`], [`PublishError::Outbox`]
    pub async fn fetch_recipient(
        &self,
        deadline: Duration,
    ) -> Result<Arc<RecipientCertificate>, PublishError> {
        let ended = self.run_with_deadline(Aim::Recipient, deadline).await?;
        let known = self.recipient.borrow().clone();
        known.ok_or(PublishError::NoRecipient {
            cause: ended.err().flatten(),
        })
    }

    /// The inner result says whether the aim was reached; if not, how the last connection ended.
    async fn run_with_deadline(
        &self,
        aim: Aim,
        deadline: Duration,
    ) -> Result<Result<(), Option<Box<ConnectionError>>>, PublishError> {
        let stop = CancellationToken::new();
        let mut last = None;
        let attempts = self.attempt_until(aim, &stop, &mut last);
        match tokio::time::timeout(deadline, attempts).await {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Err(last)),
        }
    }

    async fn attempt_until(
        &self,
        aim: Aim,
        stop: &CancellationToken,
        last: &mut Option<Box<ConnectionError>>,
    ) -> Result<(), PublishError> {
        let mut pauses = Pauses::new(self.identity.device().as_str(), &self.settings);
        loop {
            let acked_before = self.stats.acked();
            let Err(error) = self.connect_and_publish(aim, stop).await? else {
                return Ok(());
            };
            self.stats.failures.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(device = %self.identity.device(), %error, "connection ended");
            // A server that accepts connections but nothing else is not well: only progress resets the pause.
            if self.stats.acked() > acked_before {
                pauses.reset();
            }
            let pause = pauses.after(&error);
            *last = Some(Box::new(error));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(Instant::now() + pause) => {}
            }
        }
    }
}
