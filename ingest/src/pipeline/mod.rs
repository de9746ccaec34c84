//! From received bytes to a durable, patient-sealed row, or to the quarantine. One message, one [`Outcome`].
//!
//! ```text
//! bytes ─▶ Received ─▶ Expected ─▶ Verified ─▶ Opened ─▶ Rewrapped ─▶ Admitted ─▶ Stored | Duplicate
//!          shape       state       signature   open      patient KEK  judged, fsync
//!          issuer      replay      fork        payload
//!                      patient     assigned    plausible
//!             └──────────┴───────────┴───────────┴──────────────────────┴─▶ Refusal ─▶ kept, audited ─▶ Quarantined
//! ```
//!
//! Checks run cheapest first, and each stage consumes the proof of the one before, so that none can be skipped or
//! reordered: there is no other way to make an `Expected` than from a `Received`, and so on. A stage stands in the file
//! of its name, with the step into it; `Received`, `Verified` and `Opened` hold the envelope's proof of the same name.
//!
//! One task takes a message through all of them, on the threads of `workers`. A connection's messages are verified side
//! by side and admitted in their [`Order`]. What is in flight is bounded in bytes ([`IN_FLIGHT_BYTES`]).
//!
//! Never here: an outcome before it is durable; a plaintext payload that outlives its stage; a reason told to a peer.

mod admitted;
mod budget;
mod evidence;
mod expected;
mod opened;
mod order;
mod quarantine;
mod received;
mod release;
mod rewrapped;
mod time;
mod verified;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use vitalseal_crypto::{Backend, BackendError, DeviceId};
use vitalseal_storage::{
    AuditError, AuditSink, Clock, InboxError, KeyError, QuarantineReason, RegistryError, Store,
    StoreError,
};

use self::budget::Budget;
pub use self::order::Order;
use self::order::Turn;
use self::quarantine::{Kept, Refusal};
use self::received::Received;
pub use self::release::Released;
use self::rewrapped::Rewrapped;
use self::time::Terms;
pub use self::time::TimeLimits;
use self::workers::Workers;
use crate::clones::{CloneError, CloneSignal, Clones};

/// Bytes of envelopes between arrival and outcome, over all connections. 64 MiB is 256 envelopes of the largest size or
/// about 60,000 ordinary ones: more than two seconds of the fastest verification measured on two cores, so storage is
/// the one to be waited for, and little beside the memory of ten thousand TLS connections.
pub const IN_FLIGHT_BYTES: usize = 64 * 1024 * 1024;

/// One credit. Small messages cost a whole one, which also pays for their bookkeeping.
const CREDIT_BYTES: usize = 1024;

/// What became of a message: it is to be acknowledged. All three are durable, but for strangers' messages beyond what
/// [so many](Pipeline::for_strangers) of them may add to the quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Verified, sealed for the patient, in the inbox.
    Stored {
        /// Readings in the message.
        readings: u32,
        /// The message before it, which it names, was not here.
        gap: bool,
    },
    /// The same signed bytes were stored before.
    Duplicate,
    /// Refused for this reason, and kept aside.
    Quarantined(QuarantineReason),
}

/// The message is not durable: do not acknowledge it, close the session, let the device try again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Reading or writing the inbox.
    #[error("keeping the message in the inbox")]
    Inbox(#[from] InboxError),
    /// Keeping a refused message.
    #[error("keeping the refused message aside")]
    Store(#[from] StoreError),
    /// Reading the registry.
    #[error("looking up the device or the patient")]
    Registry(#[from] RegistryError),
    /// Reading the key store.
    #[error("loading the keys that the message needs")]
    Keys(#[from] KeyError),
    /// The refusal could not be recorded.
    #[error("recording the refusal in the audit log")]
    Audit(#[from] AuditError),
    /// A clone was found, and the alarm could not be given.
    #[error("giving the alarm of a cloned device")]
    Clone(#[from] CloneError),
    /// The primitives failed at wrapping.
    #[error("re-wrapping the content key for the patient")]
    Rewrap(#[from] BackendError),
    /// The device signed it, and names a session key that is not remembered: one of many, or lost by a restore. Taken for
    /// refused it would be lost; not acknowledged, the device sends it again with its key in full.
    #[error(
        "the message only names its session key, which is not known; it has to come with that key in full"
    )]
    UnknownSender,
    /// More was refused of this device in a while than is kept aside of one. It loses nothing, and comes again.
    #[error("too much of the device is refused; what comes is kept aside again, but slowly")]
    TooManyRefused,
    /// The disk has no room for messages.
    #[error("the disk is full; free some space, and messages are taken again within seconds")]
    Full,
    /// The operating system refused a thread.
    #[error("starting the pipeline's threads")]
    Threads(#[source] std::io::Error),
    /// A stage panicked, or the runtime or the worker threads are going away.
    #[error("the pipeline is not running")]
    Stopped,
}

impl PipelineError {
    /// Whether it failed for want of space: told once, and not for every message.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Full
                | Self::TooManyRefused
                | Self::Inbox(InboxError::Full(_))
                | Self::Store(StoreError::Inbox(
                    InboxError::Full(_) | InboxError::QuarantineFull
                ))
        )
    }
}

/// What the pipeline works with.
#[derive(Debug, Clone)]
pub struct PipelineDeps {
    /// Registry, keys and inbox.
    pub store: Store,
    /// How old messages may be.
    pub times: TimeLimits,
    /// Where refusals are recorded.
    pub audit: Arc<dyn AuditSink>,
    /// Gives `received_at`.
    pub clock: Arc<dyn Clock>,
    /// Hears of messages that show a clone.
    pub clones: Clones,
    /// Primitives.
    pub backend: &'static dyn Backend,
}

/// Handle to the pipeline; clones share its workers and its credits. The workers end when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
    voucher: Voucher,
}

/// What says which device a message is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voucher {
    /// The connection proved it.
    Connection,
    /// Whoever sent it. Its signature may.
    Sender,
}

#[derive(Debug)]
struct Shared {
    deps: PipelineDeps,
    workers: Workers,
    credits: Arc<Semaphore>,
    /// Held while the evidence of a fork is looked for, which reads files, until it is kept: the searches of many forks
    /// wait for each other, and the later ones find that they are spared.
    searching: Mutex<()>,
    budget: Budget,
    /// Messages refused since the start.
    refused: std::sync::Mutex<BTreeMap<QuarantineReason, u64>>,
}

/// Room for one message, given back when its outcome is known. Wait for it *before* reading more from a connection.
#[derive(Debug)]
#[must_use = "credit that is dropped is given back"]
pub struct Credit(#[expect(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

impl Pipeline {
    /// Starts `workers` threads (at least one) and returns the handle.
    ///
    /// # Errors
    /// [`PipelineError::Threads`].
    pub fn start(deps: PipelineDeps, workers: usize) -> Result<Self, PipelineError> {
        let workers = Workers::start(workers.max(1)).map_err(PipelineError::Threads)?;
        let credits = Arc::new(Semaphore::new(IN_FLIGHT_BYTES / CREDIT_BYTES));
        Ok(Self {
            voucher: Voucher::Connection,
            shared: Arc::new(Shared {
                deps,
                workers,
                credits,
                searching: Mutex::default(),
                budget: Budget::default(),
                refused: std::sync::Mutex::default(),
            }),
        })
    }

    /// The same for messages of which nothing but the signature shows whose they are. Nobody waits for those that are not
    /// signed, and whoever forges them may name any device: together they are kept aside so fast and no faster, and
    /// beyond that they are counted. Of what is signed everything is kept.
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        Self {
            voucher: Voucher::Sender,
            ..self.clone()
        }
    }

    /// Where signs of clones are reported.
    pub(crate) fn clones(&self) -> &Clones {
        &self.shared.deps.clones
    }

    /// Takes a device's message to its outcome. `device` is the one that the connection proved to be, or
    /// [was named](Pipeline::for_strangers).
    ///
    /// Once started, a message runs to its end even when this future is dropped: a disconnect cannot leave a quarantined
    /// message without its audit record.
    ///
    /// # Errors
    /// [`PipelineError`]: not durable, so not to be acknowledged.
    pub async fn submit(
        &self,
        device: &DeviceId,
        payload: Bytes,
    ) -> Result<Outcome, PipelineError> {
        let credit = self.reserve(payload.len()).await?;
        let mut alone = Order::default();
        self.submit_reserved(credit, &mut alone, device.clone(), payload)
            .await
    }

    /// How many messages were refused since the start, for each reason there is.
    #[must_use]
    pub fn quarantined(&self) -> Vec<(QuarantineReason, u64)> {
        // Every change is one addition: a panic elsewhere cannot leave half of one.
        let refused = self.shared.refused.lock();
        let refused = refused.unwrap_or_else(PoisonError::into_inner);
        let count = |reason| (reason, refused.get(&reason).copied().unwrap_or(0));
        QuarantineReason::ALL.into_iter().map(count).collect()
    }

    /// Waits until a message of `bytes` may come in.
    ///
    /// # Errors
    /// [`PipelineError::Full`], [`PipelineError::Stopped`].
    pub async fn reserve(&self, bytes: usize) -> Result<Credit, PipelineError> {
        // A message larger than all credits together would wait for ever; the edge's packet limit is far below.
        let wanted = bytes
            .div_ceil(CREDIT_BYTES)
            .clamp(1, IN_FLIGHT_BYTES / CREDIT_BYTES);
        let wanted = u32::try_from(wanted).map_err(|_| PipelineError::Stopped)?;
        let credits = Arc::clone(&self.shared.credits);
        let permit = credits.acquire_many_owned(wanted).await;
        // After the wait, which a full disk may have ended.
        if self.shared.deps.store.space.is_full() {
            return Err(PipelineError::Full);
        }
        permit.map(Credit).map_err(|_| PipelineError::Stopped)
    }

    /// [`Pipeline::submit`] with the credit in hand. The work starts now, not when the future is first polled, and the
    /// message is admitted or refused after those that were submitted before it in the same `order`.
    ///
    /// # Errors
    /// As [`Pipeline::submit`].
    pub fn submit_reserved(
        &self,
        credit: Credit,
        order: &mut Order,
        device: DeviceId,
        payload: Bytes,
    ) -> impl Future<Output = Result<Outcome, PipelineError>> + Send + use<> {
        let (shared, voucher) = (Arc::clone(&self.shared), self.voucher);
        let turn = order.next();
        let terms = Terms::new(shared.deps.clock.now(), shared.deps.times);
        let work = self.spawn(async move {
            let outcome = shared.take(device, payload, terms, turn, voucher).await;
            drop(credit);
            outcome
        });
        async move { work.await? }
    }

    /// Quarantines a message of which [`PipelineError::UnknownSender`] was said. For whoever cannot tell the device to
    /// send it again with its session key in full, and has waited for that key long enough.
    ///
    /// # Errors
    /// As [`Pipeline::submit`].
    pub(crate) async fn give_up_sender(
        &self,
        device: &DeviceId,
        payload: &Bytes,
    ) -> Result<Outcome, PipelineError> {
        let (shared, device, body) = (Arc::clone(&self.shared), device.clone(), payload.clone());
        let voucher = self.voucher;
        let work = self.spawn(async move {
            let detail = "its session key did not come in full";
            let refusal = Refusal::new(QuarantineReason::UnknownKey, detail);
            let refusal = match Received::decode(&device, &body) {
                Ok(received) => refusal.about(received.envelope.header()),
                Err(refused) => refused,
            };
            let now = shared.deps.clock.now();
            let kept = Kept::as_it_came(body, &refusal);
            shared.keep(&device, refusal, kept, now, voucher).await
        });
        work.await?
    }

    /// Begins `work` on the pipeline's threads; it runs to its end even when nobody waits for it.
    fn spawn<T: Send + 'static, W: Future<Output = T> + Send + 'static>(
        &self,
        work: W,
    ) -> impl Future<Output = Result<T, PipelineError>> + Send + use<T, W> {
        let work = self.shared.workers.spawn(work);
        async move {
            let work = work.ok_or(PipelineError::Stopped)?;
            work.await.map_err(|_| PipelineError::Stopped)
        }
    }
}

impl Shared {
    async fn take(
        &self,
        device: DeviceId,
        body: Bytes,
        terms: Terms,
        mut turn: Turn,
        voucher: Voucher,
    ) -> Result<Outcome, PipelineError> {
        let passed = self.stages(&device, &body, &terms).await;
        // Also for what goes no further: whoever comes next waits for this turn alone.
        turn.come().await;
        let (admitted, _turn) = match passed {
            Ok(Some(rewrapped)) => {
                let inbox = &self.deps.store.inbox;
                (rewrapped.admit(inbox, turn, &terms).await, None)
            }
            // Kept aside before its turn ends: the message after it may name it.
            ended => (ended.map(|_| None), Some(turn)),
        };
        match admitted {
            Ok(Some(admitted)) => Ok(admitted.into()),
            Ok(None) => Ok(Outcome::Duplicate),
            // In a box of its own: it is long, seldom needed, and would be carried along by every message.
            Err(Stop::Refused(refusal)) => {
                Box::pin(self.refuse(&device, body, refusal, &terms, voucher)).await
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn refuse(
        &self,
        device: &DeviceId,
        body: Bytes,
        refusal: Refusal,
        terms: &Terms,
        voucher: Voucher,
    ) -> Result<Outcome, PipelineError> {
        let _searching = match refusal.is_fork() {
            true => Some(self.searching.lock().await),
            false => None,
        };
        let kept = self.to_keep(device, body, &refusal, terms).await?;
        self.keep(device, refusal, kept, terms.received_at, voucher)
            .await
    }

    async fn keep(
        &self,
        device: &DeviceId,
        refusal: Refusal,
        kept: Kept,
        received_at: Timestamp,
        voucher: Voucher,
    ) -> Result<Outcome, PipelineError> {
        let reason = refusal.reason();
        let place = match (voucher, kept.signed) {
            (Voucher::Connection, _) => self.budget.take(Some(device.clone()), Instant::now()),
            (Voucher::Sender, false) => self.budget.take(None, Instant::now()),
            (Voucher::Sender, true) => true,
        };
        if place {
            quarantine::keep(&self.deps, device, refusal, kept, received_at).await?;
        } else if voucher == Voucher::Connection {
            // Whoever floods must not hide a clone behind it.
            if let Some(signal) = CloneSignal::of_refusal(reason) {
                self.deps.clones.suspect(device, signal).await?;
            }
            return Err(PipelineError::TooManyRefused);
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(reason).or_default() += 1;
        Ok(Outcome::Quarantined(reason))
    }

    /// What is to be admitted; `None` for what was before.
    async fn stages(
        &self,
        device: &DeviceId,
        body: &Bytes,
        terms: &Terms,
    ) -> Result<Option<Rewrapped>, Stop> {
        let (store, backend) = (&self.deps.store, self.deps.backend);
        let received = Received::decode(device, body)?;
        let Some(expected) = received.expect(store, backend, terms).await? else {
            return Ok(None);
        };
        let ring = store
            .keys
            .recipient_ring()
            .await
            .map_err(PipelineError::from)?;
        let senders = store.inbox.senders();
        let rewrapped = expected
            .verify(backend)?
            .open(&ring, &senders, backend, terms)?
            .rewrap(backend)?;
        Ok(Some(rewrapped))
    }
}

/// Why a message does not reach the next stage.
#[derive(Debug)]
enum Stop {
    /// It never will: quarantine.
    Refused(Refusal),
    /// It could not be found out: no acknowledgement.
    Failed(PipelineError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: Into<PipelineError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
