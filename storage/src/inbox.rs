//! Durable intake and hot tier: what was acknowledged but is not in a file yet.
//!
//! One task owns the writing connection. It takes whatever is queued, up to 256 commands, into one
//! transaction and answers each only after `COMMIT` returned with `synchronous=FULL`. If the
//! transaction fails, everybody in it is told so. Nothing of it happened, or, after an error at the
//! very end, it is there after the next start: once, like any message that was stored and not
//! acknowledged.
//!
//! A row holds an at-rest envelope, already wrapped for its patient; a refused body is sealed before
//! it is handed to SQLite. So no measured value is ever in this file, its write-ahead log, or a freed
//! page.
//!
//! The counters of every admitted message stay in `seen` for ever: a replay is answered
//! [`Judgement::Duplicate`] years later, and other signed bytes under the same counters, or a broken
//! link between two messages, are [`Judgement::Fork`].

mod admission;
mod boots;
mod chain;
mod downlink;
mod evidence;
mod journal;
mod newest;
mod quarantine;
mod review;
pub(crate) mod rows;
mod senders;
mod sessions;
mod tables;
mod writer;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use vitalseal_crypto::{
    CloneKind, DeviceId, MAX_COUNTER, MessageId, P256Point, PageKey, SenderKeyId, SubjectPseudonym,
};

pub use self::chain::BootChain;
use self::downlink::Waiting;
pub use self::downlink::{
    DownlinkError, DownlinkRow, Listener, MAX_DOWNLINK_BYTES, MAX_DOWNLINK_WAITING,
};
pub use self::evidence::KeptProof;
pub(crate) use self::journal::NotedChange;
use self::newest::Newest;
pub use self::quarantine::{NewQuarantine, Place};
use self::quarantine::{Room, SealedQuarantine};
pub use self::review::{QuarantineFilter, QuarantineRow, QuarantineState, Settled};
pub use self::senders::Senders;
pub use self::sessions::{KeptSession, SessionChange};
use self::writer::{Command, Writer};
use crate::database::sqlite::{self, SqliteFile};
use crate::database::{at_opt, count, damaged, number};
use crate::lock::StoreLock;
use crate::space::Space;

/// Commands that may wait for the writer. Four full batches: enough to fill the next one while one
/// commits, few enough that a stalled disk is felt by the senders within a second.
const QUEUE: usize = 1024;

/// A verified message, already re-wrapped for its patient, that is to be made durable.
#[derive(Clone)]
pub struct Admission {
    /// Device and counters.
    pub message: MessageId,
    /// SHA-256 of the countersigned bytes: tells a replay from a fork.
    pub signed_hash: [u8; 32],
    /// Signed hash of the message before it, if it names one: tells a gap from a fork.
    pub previous: Option<[u8; 32]>,
    /// The session key that it carried in full, and the name that later messages may give it.
    pub introduced: Option<(SenderKeyId, P256Point)>,
    /// Patient.
    pub subject: SubjectPseudonym,
    /// When the device sealed it, by its own clock.
    pub issued_at: Timestamp,
    /// What it has to show of its place among the device's messages.
    pub required: Required,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Earliest instant measured.
    pub first_at: Timestamp,
    /// Latest instant measured.
    pub last_at: Timestamp,
    /// Number of readings inside.
    pub readings: u32,
    /// At-rest COSE envelope.
    pub envelope: Vec<u8>,
}

/// What a message has to show of its place among its device's other messages before it is stored; by default nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Required {
    /// The chain has to prove its place: it is the first of its boot, or it and a message beside it are linked. For what
    /// is too old for its own instant to be enough.
    pub link: bool,
    /// By how much boots may lie over each other, by the device's clock. `None`: not asked, and the message's instant
    /// does not count for others either.
    pub boot_overlap: Option<SignedDuration>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// What is found of an [`Admission`], inside the transaction that stores it if it is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// New, and durable now.
    Stored,
    /// New, and durable now; but the message before it, which it names, is not here.
    StoredAfterGap,
    /// The very same signed bytes were admitted before.
    Duplicate,
    /// It contradicts a stored message: two devices hold one key. Nothing was stored.
    Fork(Fork),
    /// It was sealed while another boot ran: two devices hold one key. Nothing was stored.
    BootsOverlap {
        /// The nearest boot that ran then.
        other: u64,
    },
    /// It is old, and the chain does not prove its place. Nothing was stored.
    Stale,
}

impl Judgement {
    /// Whether it is in the inbox now, and was not before.
    #[must_use]
    pub fn is_stored(self) -> bool {
        matches!(self, Self::Stored | Self::StoredAfterGap)
    }
}

/// Which stored message a new one contradicts, and in what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fork {
    /// In what.
    pub kind: CloneKind,
    /// Sequence of the stored one, which is of the same device and boot.
    pub other: u64,
}

/// The inbox failed. After one of these from [`Inbox::admit`] or [`Store::quarantine`](crate::Store::quarantine) the
/// message must not be acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The database could not be used.
    #[error("using the inbox")]
    Sql(#[from] sqlx::Error),
    /// The batch that this was part of did not commit; nothing of it is stored.
    #[error("making a batch of messages durable")]
    Batch(#[source] Arc<sqlx::Error>),
    /// As [`InboxError::Batch`], because the disk is full.
    #[error(
        "making a batch of messages durable: the disk is full; free some space, and messages are taken again within \
         seconds"
    )]
    Full(#[source] Arc<sqlx::Error>),
    /// A counter above 2^53 - 1, an instant or a size that does not fit.
    #[error("the message's {0} is out of range")]
    OutOfRange(&'static str),
    /// The patient was erased after the message was verified. Sent again, it will be refused as
    /// such.
    #[error("patient {0} was erased")]
    Erased(SubjectPseudonym),
    /// The refused body could not be sealed, or a kept one not opened.
    #[error("sealing or opening a quarantined body")]
    Seal(#[from] vitalseal_crypto::keys::KeyError),
    /// No room for the body of a refused message that a review might release.
    #[error(
        "the quarantine is full; review it (`vitalseal quarantine list`) or raise mqtt.quarantine_mib"
    )]
    QuarantineFull,
    /// The store is closing or its writer is gone.
    #[error("the inbox is closed")]
    Closed,
}

/// Handle on the inbox; clones share it.
#[derive(Clone)]
pub struct Inbox {
    db: SqliteFile,
    commands: mpsc::Sender<Command>,
    quarantine_key: Arc<PageKey>,
    memory: Memory,
}

/// What of the database is kept in memory, as of the last commit: the writer changes it, everybody reads it.
#[derive(Clone)]
struct Memory {
    senders: Senders,
    room: Room,
    waiting: Waiting,
    newest: Newest,
}

impl Inbox {
    /// Opens what [`Inbox::connect`] found, and starts the writer, which keeps `lock` for as long as it writes.
    pub(crate) async fn open(
        db: SqliteFile,
        path: &Path,
        quarantine_key: Arc<PageKey>,
        erased: HashSet<SubjectPseudonym>,
        space: Space,
        lock: Arc<StoreLock>,
    ) -> Result<(Self, JoinHandle<()>), InboxError> {
        let memory = Memory {
            senders: Senders::load(db.pool()).await?,
            room: Room::load(db.pool()).await?,
            waiting: Waiting::load(db.pool()).await?,
            newest: Newest::default(),
        };
        let writer = Writer::new(path, erased, memory.clone(), space).await?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            writer.run(queue).await;
            drop(lock);
        });
        Ok((
            Self {
                db,
                commands,
                quarantine_key,
                memory,
            },
            task,
        ))
    }

    /// Of a store that goes on from an older copy: ends every session and empties every queue of what devices are told.
    /// Before [`Inbox::open`].
    pub(crate) async fn forget_peers(path: &Path) -> Result<(), InboxError> {
        let mut conn = sqlite::connect_synced(&sqlite::options(path)).await?;
        sessions::forget_all(&mut conn).await?;
        downlink::forget_all(&mut conn).await?;
        Ok(sqlx::Connection::close(conn).await?)
    }

    /// Makes a message durable, once; resolves after the commit is on disk.
    ///
    /// # Errors
    /// When it is not durable: [`InboxError::Batch`], [`InboxError::Full`], [`InboxError::Closed`]; when it never can be:
    /// [`InboxError::OutOfRange`], [`InboxError::Erased`].
    pub async fn admit(&self, admission: Admission) -> Result<Judgement, InboxError> {
        self.enqueue(admission).await?.await
    }

    /// [`Inbox::admit`] in two steps: resolves when the message has its place in the order of admission, to what
    /// resolves when it is on disk.
    ///
    /// # Errors
    /// As [`Inbox::admit`], in either step.
    pub async fn enqueue(
        &self,
        admission: Admission,
    ) -> Result<impl Future<Output = Result<Judgement, InboxError>> + Send + use<>, InboxError>
    {
        if admission.message.boot > MAX_COUNTER || admission.message.sequence > MAX_COUNTER {
            return Err(InboxError::OutOfRange("counter"));
        }
        if i32::try_from(admission.readings).is_err() {
            return Err(InboxError::OutOfRange("number of readings"));
        }
        let answered = self
            .send(|answer| Command::Admit(Box::new(admission), answer))
            .await?;
        Ok(async move { answered.await.map_err(|_| InboxError::Closed)? })
    }

    /// The signed hash under which these counters were admitted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn seen(&self, message: &MessageId) -> Result<Option<[u8; 32]>, InboxError> {
        if self.memory.newest.is_before(message) {
            return Ok(None);
        }
        Box::pin(self.look_up(message)).await
    }

    async fn look_up(&self, message: &MessageId) -> Result<Option<[u8; 32]>, InboxError> {
        let (Ok(boot), Ok(sequence)) = (number(message.boot), number(message.sequence)) else {
            return Ok(None);
        };
        let hash: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT signed_hash FROM seen WHERE device = $1 AND boot = $2 AND sequence = $3",
        )
        .bind(message.device.as_str())
        .bind(boot)
        .bind(sequence)
        .fetch_optional(self.db.pool())
        .await?;
        Ok(hash
            .map(|h| <[u8; 32]>::try_from(h.as_slice()).map_err(damaged))
            .transpose()?)
    }

    /// What is here of a device's messages, boot by boot, and what is missing.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn chain(&self, device: &DeviceId) -> Result<Vec<BootChain>, InboxError> {
        Ok(chain::of(device, self.db.pool()).await?)
    }

    /// The session keys that devices may name.
    #[must_use]
    pub fn senders(&self) -> Senders {
        self.memory.senders.clone()
    }

    /// Forgets the session keys of a device, which was revoked.
    ///
    /// # Errors
    /// When that is not durable.
    pub async fn forget_senders(&self, device: &DeviceId) -> Result<(), InboxError> {
        let device = device.clone();
        self.ask(|answer| Command::ForgetSenders(device, answer))
            .await?
    }

    /// Rows and envelope bytes that wait for the next flush.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn pending(&self) -> Result<(u64, u64), InboxError> {
        let (rows, bytes): (i64, i64) =
            sqlx::query_as("SELECT COUNT(*), COALESCE(SUM(LENGTH(envelope)), 0) FROM inbox")
                .fetch_one(self.db.pool())
                .await?;
        Ok((count(rows)?, count(bytes)?))
    }

    /// When the oldest row that waits for the next flush came.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn oldest(&self) -> Result<Option<Timestamp>, InboxError> {
        let oldest = sqlx::query_scalar("SELECT MIN(received_at_us) FROM inbox")
            .fetch_one(self.db.pool())
            .await?;
        Ok(at_opt(oldest)?)
    }

    /// Deletes an erased patient's rows and quarantined bodies, and refuses later ones.
    pub(crate) async fn purge(&self, subject: &SubjectPseudonym) -> Result<(), InboxError> {
        let subject = subject.clone();
        self.ask(|answer| Command::Purge(subject, answer)).await?
    }

    /// Deletes rows up to `high`, which are in a live file by now. In steps, so that admissions
    /// pass in between.
    pub(crate) async fn delete_flushed(&self, high: i64) -> Result<(), InboxError> {
        while self
            .ask(|answer| Command::DeleteFlushed(high, answer))
            .await??
            > 0
        {}
        Ok(())
    }

    /// The highest number that a row of this inbox ever had; 0 when there was none.
    pub(crate) async fn last_number(&self) -> Result<i64, InboxError> {
        let last = "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'inbox'";
        Ok(sqlx::query_scalar(last).fetch_one(self.db.pool()).await?)
    }

    pub(crate) fn database(&self) -> &SqliteFile {
        &self.db
    }

    /// Answers everything that is queued, then ends the writer.
    pub(crate) async fn close(&self) {
        // A writer that is gone already has nothing left to say.
        let _ = self.ask(Command::Close).await;
        self.db.close().await;
    }

    async fn keep_aside(&self, refused: SealedQuarantine) -> Result<(), InboxError> {
        self.ask(|answer| Command::Quarantine(Box::new(refused), answer))
            .await?
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, InboxError> {
        let answered = self.send(command).await?;
        answered.await.map_err(|_| InboxError::Closed)
    }

    async fn send<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<oneshot::Receiver<T>, InboxError> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| InboxError::Closed)?;
        Ok(answered)
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}
