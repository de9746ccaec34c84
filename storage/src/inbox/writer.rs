//! The task that owns the writing connection: one transaction for whatever is queued.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use vitalseal_crypto::SubjectPseudonym;

use super::quarantine::SealedQuarantine;
use super::{Admission, Admitted, InboxError};
use crate::sqlite::{number, us};

/// Commands in one transaction. Beyond this the fsync is no longer what a commit costs, and the
/// wait is felt.
const BATCH: usize = 256;

/// Flushed rows deleted in one transaction: some 30 ms.
const DELETE_STEP: i64 = 4096;

type Answer<T> = oneshot::Sender<Result<T, InboxError>>;

pub(super) enum Command {
    Admit(Box<Admission>, Answer<Admitted>),
    Quarantine(Box<SealedQuarantine>, Answer<()>),
    Purge(SubjectPseudonym, Answer<()>),
    DeleteFlushed(i64, Answer<u64>),
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    conn: SqliteConnection,
    /// Tombstones: what was on its way when a patient was erased must not come in after the purge.
    erased: HashSet<SubjectPseudonym>,
}

/// A batch, sorted by kind. Purges come after admissions: they take along what was queued before
/// them.
#[derive(Default)]
struct Batch {
    admissions: Vec<(Admission, Answer<Admitted>)>,
    quarantines: Vec<(SealedQuarantine, Answer<()>)>,
    purges: Vec<(SubjectPseudonym, Answer<()>)>,
    deletions: Vec<(i64, Answer<u64>)>,
}

impl Writer {
    pub(super) fn new(conn: SqliteConnection, erased: HashSet<SubjectPseudonym>) -> Self {
        Self { conn, erased }
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
                    Command::Purge(subject, answer) => batch.purges.push((subject, answer)),
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
        let _ = self.conn.close().await;
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
        match write(&mut self.conn, &batch).await {
            Ok(outcome) => {
                for ((_, answer), admitted) in batch.admissions.into_iter().zip(outcome.admitted) {
                    // A sender that stopped waiting will learn it from the device's repetition.
                    let _ = answer.send(Ok(admitted));
                }
                let done = batch.quarantines.into_iter().map(|(_, answer)| answer);
                for answer in done.chain(batch.purges.into_iter().map(|(_, answer)| answer)) {
                    let _ = answer.send(Ok(()));
                }
                for ((_, answer), deleted) in batch.deletions.into_iter().zip(outcome.deleted) {
                    let _ = answer.send(Ok(deleted));
                }
            }
            Err(cause) => batch.fail(Arc::new(cause)),
        }
    }
}

impl Batch {
    fn fail(self, cause: Arc<sqlx::Error>) {
        tracing::error!(error = %cause, "a batch of messages could not be made durable");
        let failed = || InboxError::Batch(Arc::clone(&cause));
        for (_, answer) in self.admissions {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.quarantines {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.purges {
            let _ = answer.send(Err(failed()));
        }
        for (_, answer) in self.deletions {
            let _ = answer.send(Err(failed()));
        }
    }
}

struct Outcome {
    admitted: Vec<Admitted>,
    deleted: Vec<u64>,
}

async fn write(conn: &mut SqliteConnection, batch: &Batch) -> Result<Outcome, sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    let admitted = admit(&mut tx, &batch.admissions).await?;
    for (refused, _) in &batch.quarantines {
        refused.insert(&mut tx).await?;
    }
    for (subject, _) in &batch.purges {
        sqlx::query("DELETE FROM inbox WHERE subject = $1")
            .bind(subject.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE quarantine SET body = NULL WHERE subject = $1")
            .bind(subject.as_str())
            .execute(&mut *tx)
            .await?;
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
    Ok(Outcome { admitted, deleted })
}

/// Decides new, duplicate or fork inside the transaction, with three statements for a batch of new
/// messages.
async fn admit(
    conn: &mut SqliteConnection,
    admissions: &[(Admission, Answer<Admitted>)],
) -> Result<Vec<Admitted>, sqlx::Error> {
    if admissions.is_empty() {
        return Ok(Vec::new());
    }
    // The same counters twice in one batch: the first decides, the others are held against it.
    let mut first: HashMap<(&str, i64, i64), usize> = HashMap::new();
    let mut keys = Vec::with_capacity(admissions.len());
    for (at, (admission, _)) in admissions.iter().enumerate() {
        let message = &admission.message;
        let key = (
            message.device.as_str(),
            number(message.boot)?,
            number(message.sequence)?,
        );
        first.entry(key).or_insert(at);
        keys.push(key);
    }
    let mut insert: QueryBuilder<Sqlite> =
        QueryBuilder::new("INSERT INTO seen (device, boot, sequence, signed_hash) ");
    insert.push_values(first.values(), |mut row, &at| {
        let (device, boot, sequence) = keys[at];
        row.push_bind(device.to_owned())
            .push_bind(boot)
            .push_bind(sequence);
        row.push_bind(admissions[at].0.signed_hash.to_vec());
    });
    insert.push(" ON CONFLICT DO NOTHING RETURNING device, boot, sequence");
    let mut fresh = HashSet::with_capacity(first.len());
    for row in insert
        .build()
        .persistent(false)
        .fetch_all(&mut *conn)
        .await?
    {
        let key = (
            row.try_get("device")?,
            row.try_get("boot")?,
            row.try_get("sequence")?,
        );
        fresh.extend(first.get(&key).copied());
    }

    let mut admitted = Vec::with_capacity(admissions.len());
    for (at, key) in keys.iter().enumerate() {
        let (admission, _) = &admissions[at];
        let before = first.get(key).copied().unwrap_or(at);
        admitted.push(if fresh.contains(&at) {
            Admitted::Stored
        } else {
            let same = if fresh.contains(&before) {
                admissions[before].0.signed_hash == admission.signed_hash
            } else {
                let hash: Vec<u8> = sqlx::query_scalar(
                    "SELECT signed_hash FROM seen WHERE device = $1 AND boot = $2 AND sequence = $3",
                )
                .bind(key.0)
                .bind(key.1)
                .bind(key.2)
                .fetch_one(&mut *conn)
                .await?;
                hash == admission.signed_hash
            };
            if same { Admitted::Duplicate } else { Admitted::Fork }
        });
    }

    // In the order of arrival, so that row numbers follow it.
    let mut new: Vec<usize> = fresh.into_iter().collect();
    if new.is_empty() {
        return Ok(admitted);
    }
    new.sort_unstable();
    let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new(
        "INSERT INTO inbox (subject, device, boot, sequence, received_at_us, first_at_us, last_at_us, \
         readings, envelope) ",
    );
    insert.push_values(new, |mut row, at| {
        let (admission, _) = &admissions[at];
        let (device, boot, sequence) = keys[at];
        row.push_bind(admission.subject.as_str().to_owned());
        row.push_bind(device.to_owned())
            .push_bind(boot)
            .push_bind(sequence);
        row.push_bind(us(admission.received_at));
        row.push_bind(us(admission.first_at))
            .push_bind(us(admission.last_at));
        row.push_bind(i64::from(admission.readings))
            .push_bind(admission.envelope.clone());
    });
    insert.build().persistent(false).execute(conn).await?;
    Ok(admitted)
}
