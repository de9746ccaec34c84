//! The task that owns the writing connection: one transaction for whatever is queued.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use vitalseal_crypto::{DeviceId, SenderKeys as _, SubjectPseudonym};

use super::downlink;
use super::journal::{self, NotedChange};
use super::quarantine::SealedQuarantine;
use super::review::{self, Settlement};
use super::senders::{self, Remembered, Senders};
use super::sessions::SessionChange;
use super::{Admission, InboxError, Judgement, Memory, admission};
use crate::database::{is_full, sqlite};
use crate::space::Space;

/// Commands in one transaction. Beyond this the fsync is no longer what a commit costs, and the
/// wait is felt.
const BATCH: usize = 256;

/// Flushed rows deleted in one transaction: 2 ms, which whoever waits for an acknowledgement does not notice.
const DELETE_STEP: i64 = 256;

/// Pages that the writing connection keeps, in KiB: a minute's messages and the paths to their places in `seen`.
const CACHE_KIB: u32 = 32 * 1024;

type Answer<T> = oneshot::Sender<Result<T, InboxError>>;

pub(super) enum Command {
    Admit(Box<Admission>, Answer<Judgement>),
    Quarantine(Box<SealedQuarantine>, Answer<()>),
    Settle(Box<Settlement>, Answer<bool>),
    Purge(SubjectPseudonym, Answer<()>),
    ForgetSenders(DeviceId, Answer<()>),
    Sessions(Vec<SessionChange>, Answer<()>),
    Downlink(Box<downlink::Change>, Answer<Option<i64>>),
    NoteChanges(Vec<NotedChange>, Answer<()>),
    DeleteFlushed(i64, Answer<u64>),
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    path: PathBuf,
    /// None after a batch that failed, until there is another.
    conn: Option<SqliteConnection>,
    space: Space,
    /// Tombstones: what was on its way when a patient was erased must not come in after the purge.
    erased: HashSet<SubjectPseudonym>,
    memory: Memory,
}

/// Every row here is sealed before it comes, so what is left of a deleted one tells nothing, and need not be written over
/// where that costs a write of its own.
fn options(path: &Path) -> SqliteConnectOptions {
    sqlite::options(path)
        .pragma("secure_delete", "FAST")
        .pragma("cache_size", format!("-{CACHE_KIB}"))
}

/// A batch, sorted by kind. Purges come after admissions: they take along what was queued before
/// them.
#[derive(Default)]
struct Batch {
    admissions: Vec<(Admission, Answer<Judgement>)>,
    quarantines: Vec<(SealedQuarantine, Answer<()>)>,
    settlements: Vec<(Settlement, Answer<bool>)>,
    purges: Vec<(SubjectPseudonym, Answer<()>)>,
    forgotten: Vec<(DeviceId, Answer<()>)>,
    sessions: Vec<(Vec<SessionChange>, Answer<()>)>,
    downlink: Vec<(downlink::Change, Answer<Option<i64>>)>,
    noted: Vec<(Vec<NotedChange>, Answer<()>)>,
    deletions: Vec<(i64, Answer<u64>)>,
}

impl Writer {
    pub(super) async fn new(
        path: &Path,
        erased: HashSet<SubjectPseudonym>,
        memory: Memory,
        space: Space,
    ) -> Result<Self, sqlx::Error> {
        Ok(Self {
            path: path.to_path_buf(),
            conn: Some(options(path).connect().await?),
            space,
            erased,
            memory,
        })
    }

    /// Ends when asked to, or when the last handle is gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut closing = None;
        let mut commands = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut commands, BATCH).await > 0 {
            let mut batch = Batch::default();
            for command in commands.drain(..) {
                match command {
                    Command::Admit(admission, answer) => {
                        batch.admissions.push((*admission, answer));
                    }
                    Command::Quarantine(refused, answer) => {
                        batch.quarantines.push((*refused, answer));
                    }
                    Command::Settle(settlement, answer) => {
                        batch.settlements.push((*settlement, answer));
                    }
                    Command::Purge(subject, answer) => batch.purges.push((subject, answer)),
                    Command::ForgetSenders(device, answer) => {
                        batch.forgotten.push((device, answer));
                    }
                    Command::Sessions(changes, answer) => batch.sessions.push((changes, answer)),
                    Command::Downlink(change, answer) => batch.downlink.push((*change, answer)),
                    Command::NoteChanges(changes, answer) => batch.noted.push((changes, answer)),
                    Command::DeleteFlushed(high, answer) => batch.deletions.push((high, answer)),
                    Command::Close(answer) => {
                        // What was sent before still gets its answer.
                        queue.close();
                        closing = Some(answer);
                    }
                }
            }
            self.commit(batch).await;
        }
        // The last close of a WAL database writes the log back; errors change nothing that was
        // promised.
        self.let_go().await;
        if let Some(answer) = closing {
            let _ = answer.send(());
        }
    }

    async fn commit(&mut self, mut batch: Batch) {
        self.erased
            .extend(batch.purges.iter().map(|(subject, _)| subject.clone()));
        let erased = &self.erased;
        let late = batch
            .admissions
            .extract_if(.., |(a, _)| erased.contains(&a.subject));
        for (admission, answer) in late {
            let _ = answer.send(Err(InboxError::Erased(admission.subject)));
        }
        for (refused, _) in &mut batch.quarantines {
            if refused.subject.as_ref().is_some_and(|s| erased.contains(s)) {
                refused.body = None;
            }
        }
        match self.write(&batch).await {
            Ok(outcome) => {
                self.remember(&batch, &outcome);
                self.memory.room.change(outcome.kept_bytes);
                for ((_, answer), judgement) in batch.admissions.into_iter().zip(outcome.judged) {
                    // A sender that stopped waiting will learn it from the device's repetition.
                    let _ = answer.send(Ok(judgement));
                }
                let quarantined = batch.quarantines.into_iter().map(|(_, answer)| answer);
                let purged = batch.purges.into_iter().map(|(_, answer)| answer);
                let forgotten = batch.forgotten.into_iter().map(|(_, answer)| answer);
                let sessions = batch.sessions.into_iter().map(|(_, answer)| answer);
                let noted = batch.noted.into_iter().map(|(_, answer)| answer);
                let others = purged.chain(forgotten).chain(sessions).chain(noted);
                for answer in quarantined.chain(others) {
                    let _ = answer.send(Ok(()));
                }
                for ((_, answer), queued) in batch.downlink.into_iter().zip(outcome.queued) {
                    let _ = answer.send(Ok(queued));
                }
                for ((_, answer), settled) in batch.settlements.into_iter().zip(outcome.settled) {
                    let _ = answer.send(Ok(settled));
                }
                for ((_, answer), deleted) in batch.deletions.into_iter().zip(outcome.deleted) {
                    let _ = answer.send(Ok(deleted));
                }
            }
            Err(cause) => {
                if is_full(&cause) {
                    self.space.ran_out();
                }
                // What the driver, SQLite and the kernel each make of a transaction whose write or sync failed differs,
                // and a sync that is tried again reports success for pages that were given up. Only a connection that
                // found everything anew, and synced it, knows what is there.
                self.let_go().await;
                batch.fail(cause);
            }
        }
    }

    async fn write(&mut self, batch: &Batch) -> Result<Outcome, sqlx::Error> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            none => none.insert(sqlite::connect_synced(&options(&self.path)).await?),
        };
        write(conn, batch, &self.memory.senders).await
    }

    async fn let_go(&mut self) {
        if let Some(conn) = self.conn.take() {
            let _ = conn.close().await;
        }
    }

    /// Before anybody is answered: whoever is told that a message is kept may name its key.
    fn remember(&self, batch: &Batch, outcome: &Outcome) {
        for ((admission, _), judgement) in batch.admissions.iter().zip(&outcome.judged) {
            if judgement.is_stored() {
                self.memory.newest.note(&admission.message);
            }
        }
        for ((change, _), queued) in batch.downlink.iter().zip(&outcome.queued) {
            self.memory.waiting.note(change, *queued);
        }
        for (device, key) in batch.introduced(&outcome.judged) {
            self.memory.senders.remember(device, *key);
        }
        for (device, _) in &batch.forgotten {
            self.memory.senders.forget(device);
        }
    }
}

impl Batch {
    /// The session keys of the admissions that were stored, as `judged` says, and of what is quarantined.
    fn introduced<'a>(
        &'a self,
        judged: &'a [Judgement],
    ) -> impl Iterator<Item = (&'a DeviceId, &'a Remembered)> {
        let both = self.admissions.iter().zip(judged);
        let stored = both
            .filter(|(_, judgement)| judgement.is_stored())
            .map(|((admission, _), _)| (&admission.message.device, &admission.introduced));
        let quarantines = self.quarantines.iter();
        let refused = quarantines.map(|(refused, _)| (&refused.device, &refused.introduced));
        stored
            .chain(refused)
            .filter_map(|(device, introduced)| Some((device, introduced.as_ref()?)))
    }

    fn fail(self, cause: sqlx::Error) {
        tracing::error!(error = %cause, "a batch of messages could not be made durable");
        let is_full = is_full(&cause);
        let cause = Arc::new(cause);
        let failed = || match is_full {
            true => InboxError::Full(Arc::clone(&cause)),
            false => InboxError::Batch(Arc::clone(&cause)),
        };
        for (_, answer) in self.admissions {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.quarantines {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.settlements {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.purges {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.forgotten {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.sessions {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.downlink {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.noted {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.deletions {
            let _ = answer.send(Err(failed()));
        }
    }
}

struct Outcome {
    judged: Vec<Judgement>,
    settled: Vec<bool>,
    queued: Vec<Option<i64>>,
    deleted: Vec<u64>,
    /// By how much the kept bodies of refused messages grew.
    kept_bytes: i64,
}

async fn write(
    conn: &mut SqliteConnection,
    batch: &Batch,
    known: &Senders,
) -> Result<Outcome, sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    let admissions: Vec<_> = batch.admissions.iter().map(|(a, _)| a).collect();
    let judged = admission::admit(&mut tx, &admissions).await?;
    for (device, key) in batch.introduced(&judged) {
        if known.find(device, &key.0).is_none() {
            senders::insert(&mut tx, device, key).await?;
        }
    }
    let mut kept_bytes = 0;
    for (refused, _) in &batch.quarantines {
        kept_bytes += refused.insert(&mut tx).await?;
    }
    let mut settled = Vec::with_capacity(batch.settlements.len());
    for (settlement, _) in &batch.settlements {
        let (now, freed) = settlement.write(&mut tx).await?;
        kept_bytes -= freed;
        settled.push(now);
    }
    for (subject, _) in &batch.purges {
        sqlx::query("DELETE FROM inbox WHERE subject = $1")
            .bind(subject.as_str())
            .execute(&mut *tx)
            .await?;
        kept_bytes -= review::purge(subject, &mut tx).await?;
    }
    for (device, _) in &batch.forgotten {
        sqlx::query("DELETE FROM sender_keys WHERE device = $1")
            .bind(device.as_str())
            .execute(&mut *tx)
            .await?;
    }
    for change in batch.sessions.iter().flat_map(|(changes, _)| changes) {
        change.write(&mut tx).await?;
    }
    let mut queued = Vec::with_capacity(batch.downlink.len());
    for (change, _) in &batch.downlink {
        queued.push(change.write(&mut tx).await?);
    }
    for (changes, _) in &batch.noted {
        journal::note(changes, &mut tx).await?;
    }
    let mut deleted = Vec::with_capacity(batch.deletions.len());
    for (high, _) in &batch.deletions {
        let done = sqlx::query(
            "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE id <= $1 ORDER BY id LIMIT $2)",
        )
        .bind(high)
        .bind(DELETE_STEP)
        .execute(&mut *tx)
        .await?;
        deleted.push(done.rows_affected());
    }
    tx.commit().await?;
    Ok(Outcome {
        judged,
        settled,
        queued,
        deleted,
        kept_bytes,
    })
}
