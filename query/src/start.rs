//! The record of a query's start: that it was let through, and whose readings it may see.
//!
//! It is written while the query is still planned, from the moment on when its scope is decided. **Nothing is opened before
//! it is durable**: whoever fetches a key, or reads who somebody is, waits for [`Start::recorded`] first.
//!
//! A scope may have hundreds of patients, and seldom changes. So a query lists its scope when no query of its session did
//! so, or another scope, or longer than [`SCOPE_HOLDS`] ago; else it names the query that did. Whoever reads the log from
//! an instant on begins that much earlier and finds every list. What is compared is the decision, which every query gets
//! anew: nothing here decides whose readings anybody sees.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use jiff::{SignedDuration, Timestamp};
use vitalseal_storage::ports::{
    Actor, AuditError, AuditEvent, AuditRecord, Authorized, Identity, Purpose, SCOPE_HOLDS,
};

use crate::error::QueryError;
use crate::service::QueryDeps;

/// The scope that a query of this session listed last: which query, what, and when.
#[derive(Default)]
pub(crate) struct LastListed(Mutex<Option<(String, Arc<Authorized>, Timestamp)>>);

impl LastListed {
    /// The query that listed `scope`, and lately.
    fn find(&self, scope: &Authorized, now: Timestamp) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (query, listed, at) = last.as_ref()?;
        // After a clock was set back nothing is known of when.
        let lately = (SignedDuration::ZERO..=SCOPE_HOLDS).contains(&now.duration_since(*at));
        (lately && **listed == *scope && !scope.patients().is_empty()).then(|| query.clone())
    }

    fn remember(&self, query: String, scope: Arc<Authorized>, at: Timestamp) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((query, scope, at));
    }
}

/// What is recorded, but for the scope.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Random id of the query.
    pub(crate) query: String,
    pub(crate) who: Identity,
    pub(crate) purpose: Purpose,
    /// As it came: its values are taken out of what is recorded.
    pub(crate) sql: Arc<str>,
}

type Recorded = Shared<BoxFuture<'static, Result<(), Arc<AuditError>>>>;

/// The start of one query.
#[derive(Default)]
pub(crate) struct Start(OnceLock<Recorded>);

impl Start {
    /// Begins to record it, once, in a task of its own.
    pub(crate) fn begin(
        &self,
        asked: &Asked,
        scope: &Arc<Authorized>,
        listed: &Arc<LastListed>,
        deps: &Arc<QueryDeps>,
    ) {
        self.0.get_or_init(|| {
            let (asked, scope) = (asked.clone(), Arc::clone(scope));
            let written = write(asked, scope, Arc::clone(listed), Arc::clone(deps));
            tokio::spawn(written)
                .map(|done| done.unwrap_or_else(|stopped| Err(AuditError::new(stopped))))
                .map(|done| done.map_err(Arc::new))
                .boxed()
                .shared()
        });
    }

    /// Whether it was begun: the query reads what is ours.
    pub(crate) fn begun(&self) -> bool {
        self.0.get().is_some()
    }

    /// Returns when it is durable.
    ///
    /// # Errors
    /// [`QueryError::Audit`] when it is not, or was never begun: nothing must be opened then.
    pub(crate) async fn recorded(&self) -> Result<(), QueryError> {
        let unasked = || QueryError::Audit(AuditError::new("no scope was decided"));
        let recorded = self.0.get().ok_or_else(unasked)?.clone().await;
        recorded.map_err(|cause| QueryError::Audit(AuditError::new(cause)))
    }
}

async fn write(
    asked: Asked,
    scope: Arc<Authorized>,
    listed: Arc<LastListed>,
    deps: Arc<QueryDeps>,
) -> Result<(), AuditError> {
    let at = deps.clock.now();
    let scope_of = listed.find(&scope, at);
    let lists = scope_of.is_none();
    let patients = scope.patients().iter().filter(|_| lists);
    let event = AuditEvent::QueryStarted {
        query: asked.query.clone(),
        user: asked.who.user.clone(),
        purpose: asked.purpose,
        patients: patients.cloned().collect(),
        scope_of,
        sql: crate::redact(&asked.sql),
    };
    let actor = Actor::User(asked.who.user);
    deps.audit.record(AuditRecord { at, actor, event }).await?;
    if lists {
        listed.remember(asked.query, scope, at);
    }
    Ok(())
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("begun", &self.begun())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(patients: &[u8]) -> Arc<Authorized> {
        let patients = patients
            .iter()
            .map(|n| format!("p{}", hex::encode([*n; 16])));
        let patients = patients.map(|patient| patient.parse().unwrap());
        Arc::new(Authorized::new(patients.collect()))
    }

    #[test]
    fn only_the_same_scope_listed_lately_is_referred_to() {
        let listed = LastListed::default();
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let holds = SCOPE_HOLDS.as_secs();
        assert_eq!(listed.find(&scope(&[1, 2]), at(0)), None);
        listed.remember("q".into(), scope(&[1, 2]), at(0));
        assert_eq!(listed.find(&scope(&[2, 1]), at(holds)), Some("q".into()));
        for (asked, now) in [
            (scope(&[1]), 1),
            (scope(&[1, 2, 3]), 1),
            (scope(&[]), 1),
            (scope(&[1, 2]), holds + 1),
            (scope(&[1, 2]), -1),
        ] {
            assert_eq!(listed.find(&asked, at(now)), None, "{asked:?} at {now}");
        }
        listed.remember("r".into(), scope(&[]), at(0));
        assert_eq!(listed.find(&scope(&[]), at(1)), None, "nothing is as short");
    }
}
