//! One query while it runs: for whom, for what, under which decision, and what was opened for it.
//!
//! The run travels to the tables as an extension of the query's own session configuration, so that a
//! table holds no identity and two queries can never share one.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::Session;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use jiff::Timestamp;
use tokio::sync::OnceCell;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::Cut;
use vitalseal_storage::ports::{
    Actor, AuditEvent, AuditRecord, Authorized, Identity, Purpose, QueryOutcome,
};

use crate::error::QueryError;
use crate::missing::Missing;
use crate::service::QueryDeps;
use crate::start::{Asked, LastListed, Start};

/// The state that one query shares between its scans, its stream and its audit records.
pub(crate) struct QueryRun {
    asked: Asked,
    listed: Arc<LastListed>,
    start: Start,
    pub(crate) deps: Arc<QueryDeps>,
    scope: OnceCell<Arc<Authorized>>,
    cut: OnceCell<(Arc<Cut>, MemoryReservation)>,
    stopped: AtomicBool,
    tally: Mutex<Tally>,
    /// What is lost of what is asked for.
    pub(crate) missing: Missing,
}

/// What was opened so far. Counts what left the seal, whether or not a filter dropped it afterwards; readings that are
/// opened for the first bytes alone, which name their evidence, do not.
#[derive(Debug, Default)]
struct Tally {
    patients: BTreeSet<SubjectPseudonym>,
    messages: u64,
    readings: u64,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    identities: u64,
}

impl QueryRun {
    /// Begins a run of `sql` with a random id; `listed` is what the queries of one session share.
    ///
    /// # Errors
    /// [`QueryError::Random`].
    pub(crate) fn begin(
        deps: Arc<QueryDeps>,
        who: Identity,
        purpose: Purpose,
        sql: &str,
        listed: Arc<LastListed>,
    ) -> Result<Arc<Self>, QueryError> {
        let mut id = [0_u8; 16];
        getrandom::fill(&mut id).map_err(|_| QueryError::Random)?;
        Ok(Arc::new(Self {
            asked: Asked {
                query: hex::encode(id),
                who,
                purpose,
                sql: sql.into(),
            },
            listed,
            start: Start::default(),
            deps,
            scope: OnceCell::new(),
            cut: OnceCell::new(),
            stopped: AtomicBool::new(false),
            tally: Mutex::new(Tally::default()),
            missing: Missing::default(),
        }))
    }

    /// The run that `session` was made for.
    ///
    /// # Errors
    /// When a table is scanned outside a [`QuerySession`](crate::QuerySession): nothing is readable then.
    pub(crate) fn of(session: &dyn Session) -> EngineResult<Arc<Self>> {
        session.config().get_extension::<Self>().ok_or_else(|| {
            DataFusionError::Plan("these tables can only be read through a query session".into())
        })
    }

    /// The patients that this query may see. Asked once: every scan of a query sees one decision. From then on the start
    /// of the query is recorded.
    ///
    /// # Errors
    /// [`QueryError::Policy`].
    pub(crate) async fn scope(&self) -> Result<Arc<Authorized>, QueryError> {
        let decide = || async {
            let now = self.deps.clock.now();
            let (who, purpose) = (&self.asked.who, self.asked.purpose);
            let decided = self.deps.policy.patients_readable_by(who, purpose, now);
            let scope = Arc::new(decided.await.map_err(QueryError::Policy)?);
            self.start
                .begin(&self.asked, &scope, &self.listed, &self.deps);
            Ok(scope)
        };
        self.scope.get_or_try_init(decide).await.map(Arc::clone)
    }

    /// Whether the query's start is recorded, or is about to be: it owes an end.
    pub(crate) fn begun(&self) -> bool {
        self.start.begun()
    }

    /// Returns when the query's start is on record. Nothing may be opened, and no row handed out, before.
    ///
    /// # Errors
    /// [`QueryError::Audit`]: the query must then not run.
    pub(crate) async fn recorded(&self) -> Result<(), QueryError> {
        self.start.recorded().await
    }

    /// The rows of this query's one consistent cut, already limited to [`Self::scope`]. Its hot rows are a copy of the
    /// query's own: they are charged to `memory` once, as soon as they are there, and until the query is over.
    ///
    /// # Errors
    /// [`QueryError::Policy`], [`QueryError::Storage`], [`QueryError::Engine`] when the hot rows are too many.
    pub(crate) async fn cut(&self, memory: &Arc<dyn MemoryPool>) -> Result<Arc<Cut>, QueryError> {
        let scope = self.scope().await?;
        let take = || async {
            let taken = self.deps.store.cut(&scope).await;
            let cut = taken.map_err(|cause| QueryError::Storage {
                what: "sealed readings",
                cause: Box::new(cause),
            })?;
            let held = MemoryConsumer::new("hot rows").register(memory);
            held.try_grow(cut.hot.get_array_memory_size())?;
            Ok::<_, QueryError>((Arc::new(cut), held))
        };
        let (cut, _) = self.cut.get_or_try_init(take).await?;
        Ok(Arc::clone(cut))
    }

    /// What to tell beside the answer. All of it is known once the query is planned.
    pub(crate) fn notices(&self) -> Vec<String> {
        let cut = self.cut.get();
        cut.map_or_else(Vec::new, |(cut, _)| self.missing.notices(&cut.losses))
    }

    /// Says that nobody waits for rows any more: whatever still opens them ends.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Asked before anything more is opened.
    ///
    /// # Errors
    /// [`QueryError::Cancelled`] after [`Self::stop`].
    pub(crate) fn going_on(&self) -> Result<(), QueryError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(QueryError::Cancelled);
        }
        Ok(())
    }

    /// Counts opened messages of one patient: one, or all of a chunk.
    pub(crate) fn opened(
        &self,
        patient: &SubjectPseudonym,
        messages: u64,
        readings: u64,
        span: Option<(Timestamp, Timestamp)>,
    ) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if !tally.patients.contains(patient) {
            tally.patients.insert(patient.clone());
        }
        tally.messages += messages;
        tally.readings += readings;
        if let Some((first, last)) = span {
            tally.first_at = Some(tally.first_at.map_or(first, |at| at.min(first)));
            tally.last_at = Some(tally.last_at.map_or(last, |at| at.max(last)));
        }
    }

    /// Counts a patient whose entry was shown without opening a message, with a name or record number in it or without.
    pub(crate) fn shown(&self, patient: &SubjectPseudonym, identified: bool) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.patients.insert(patient.clone());
        tally.identities += u64::from(identified);
    }

    /// Records how the query ended and what it opened, if its start is on record.
    ///
    /// # Errors
    /// [`QueryError::Audit`].
    pub(crate) async fn record_end(&self, outcome: QueryOutcome) -> Result<(), QueryError> {
        if !self.begun() || self.recorded().await.is_err() {
            return Ok(());
        }
        let event = {
            let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            AuditEvent::QueryFinished {
                query: self.asked.query.clone(),
                outcome,
                patients: tally.patients.iter().cloned().collect(),
                messages: tally.messages,
                readings: tally.readings,
                first_at: tally.first_at,
                last_at: tally.last_at,
                identities: tally.identities,
            }
        };
        let record = AuditRecord {
            at: self.deps.clock.now(),
            actor: Actor::User(self.asked.who.user.clone()),
            event,
        };
        let recorded = self.deps.audit.record(record).await;
        recorded.map_err(QueryError::Audit)
    }
}

impl fmt::Debug for QueryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryRun")
            .field("id", &self.asked.query)
            .finish_non_exhaustive()
    }
}
