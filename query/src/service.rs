//! The query service: what all sessions stand on.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use vitalseal_storage::Store;
use vitalseal_storage::ports::{AccessPolicy, AuditSink, Authenticator, Clock, Identity, Purpose};

use crate::error::QueryError;
use crate::runtime;
use crate::session::QuerySession;

/// What the service needs from above and below.
#[derive(Debug)]
pub struct QueryDeps {
    /// Sealed rows, registry and patient keys.
    pub store: Store,
    /// Decides whose readings a query may see.
    pub policy: Arc<dyn AccessPolicy>,
    /// Checks the token of a new connection.
    pub authenticator: Arc<dyn Authenticator>,
    /// Takes the record of every access.
    pub audit: Arc<dyn AuditSink>,
    /// The present instant.
    pub clock: Arc<dyn Clock>,
}

/// The longest deadline that is taken. A breach report looks for queries that were running when its window opened, and must
/// know how far back the oldest of them may have begun.
pub const LONGEST_DEADLINE: Duration = Duration::from_mins(10);

/// Bounds on what queries may use together and alone.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// Memory for sorts, joins and aggregates of all queries together. Past it a query fails; nothing spills.
    pub memory_bytes: usize,
    /// From the arrival of a query to its last row; at most [`LONGEST_DEADLINE`].
    pub deadline: Duration,
    /// Open connections at the PostgreSQL door.
    pub connections: usize,
}

/// Opens sessions. One for each server.
#[derive(Debug)]
pub struct QueryService {
    pub(crate) deps: Arc<QueryDeps>,
    pub(crate) limits: QueryLimits,
    pub(crate) runtime: Result<Arc<RuntimeEnv>, String>,
}

impl QueryService {
    /// Builds the shared environment: bounded memory, no spilling, no object store.
    #[must_use]
    pub fn new(deps: QueryDeps, mut limits: QueryLimits) -> Arc<Self> {
        if limits.deadline > LONGEST_DEADLINE {
            tracing::warn!(
                seconds = LONGEST_DEADLINE.as_secs(),
                "the deadline of queries is longer than is taken; using the longest"
            );
            limits.deadline = LONGEST_DEADLINE;
        }
        let runtime = runtime::environment(limits.memory_bytes).map_err(|error| error.to_string());
        Arc::new(Self {
            deps: Arc::new(deps),
            limits,
            runtime,
        })
    }

    /// A session for `who` and `purpose`, with an engine context of its own.
    ///
    /// # Errors
    /// [`QueryError::Engine`] when the context cannot be set up.
    #[expect(
        clippy::unused_async,
        reason = "opening a session may come to ask the registry"
    )]
    pub async fn session(
        &self,
        who: Identity,
        purpose: Purpose,
    ) -> Result<QuerySession, QueryError> {
        QuerySession::open(self, who, purpose)
    }
}
