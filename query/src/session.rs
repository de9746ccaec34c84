//! One user's SQL session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SQLOptions;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::future::join;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, Identity, Purpose, QueryOutcome};

use crate::answer::Answer;
use crate::engine::Engine;
use crate::error::QueryError;
use crate::run::QueryRun;
use crate::service::{QueryDeps, QueryService};
use crate::start::LastListed;
use crate::statement::{Verdict, verdict};
use crate::stream::{EndOfQuery, Limits, supervised};
use crate::table;

/// Longest statement read. BI tools write a few kilobytes.
pub(crate) const MAX_SQL_BYTES: usize = 256 * 1024;

/// A session: an identity, a purpose and an engine that nobody else has.
///
/// Each query gets its own access decision, its
/// own cut of the store and its own two audit records.
pub struct QuerySession {
    deps: Arc<QueryDeps>,
    who: Identity,
    purpose: Purpose,
    deadline: Duration,
    listed: Arc<LastListed>,
    engine: Engine,
    parser: PostgresCompatibilityParser,
}

impl QuerySession {
    pub(crate) fn open(
        service: &QueryService,
        who: Identity,
        purpose: Purpose,
    ) -> Result<Self, QueryError> {
        let runtime = service
            .runtime
            .clone()
            .map_err(DataFusionError::Configuration)?;
        Ok(Self {
            deps: Arc::clone(&service.deps),
            who,
            purpose,
            deadline: service.limits.deadline,
            listed: Arc::default(),
            engine: Engine::new(runtime)?,
            parser: PostgresCompatibilityParser::new(),
        })
    }

    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.who
    }

    /// Runs one query and streams its rows. The access is recorded before the first row and after the last. What is known
    /// to be missing from them is in [`Answer::notices`].
    ///
    /// # Errors
    /// [`QueryError::Refused`] for anything but a single query, [`QueryError::Parse`], [`QueryError::Engine`]
    /// for planning errors, [`QueryError::Audit`] when the access could not be recorded.
    pub async fn sql(&self, sql: &str) -> Result<Answer, QueryError> {
        let mut statements = self.parse(sql)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(QueryError::Refused(
                "give one statement at a time".to_owned(),
            ));
        };
        match verdict(&statement) {
            Verdict::Query => {}
            Verdict::Refused(reason) => return Err(self.refuse(reason).await),
            _ => return Err(QueryError::Refused("only queries return rows".to_owned())),
        }
        let plan = self.plan(statement).await?;
        self.run(plan, sql, CancellationToken::new()).await
    }

    /// Splits and parses a text of one or more statements.
    pub(crate) fn parse(&self, sql: &str) -> Result<Vec<Statement>, QueryError> {
        if sql.len() > MAX_SQL_BYTES {
            return Err(QueryError::Refused(format!(
                "a statement may have {MAX_SQL_BYTES} bytes"
            )));
        }
        self.parser.parse(sql).map_err(|error| {
            QueryError::Parse(Box::new(DataFusionError::SQL(Box::new(error), None)))
        })
    }

    /// Resolves a query against the tables. Reads no data.
    pub(crate) async fn plan(&self, statement: Statement) -> Result<LogicalPlan, QueryError> {
        let state = self.engine.state();
        let statement = EngineStatement::Statement(Box::new(statement));
        let plan = state.statement_to_plan(statement).await?;
        match verified(&plan) {
            Ok(()) => Ok(plan),
            Err(reason) => Err(self.refuse(reason).await),
        }
    }

    /// Runs a plan of [`Self::plan`]; `sql` is the text that the audit log gets in redacted form.
    pub(crate) async fn run(
        &self,
        plan: LogicalPlan,
        sql: &str,
        cancel: CancellationToken,
    ) -> Result<Answer, QueryError> {
        if let Err(reason) = verified(&plan) {
            return Err(self.refuse(reason).await);
        }
        let seconds = self.deadline.as_secs();
        let limits = Limits {
            deadline: Instant::now() + self.deadline,
            seconds,
            cancel,
        };
        let (deps, listed) = (Arc::clone(&self.deps), Arc::clone(&self.listed));
        let run = QueryRun::begin(deps, self.who.clone(), self.purpose, sql, listed)?;
        let mut end = EndOfQuery::of(Arc::clone(&run));
        let mut state = self.engine.state();
        state.config_mut().set_extension(Arc::clone(&run));
        state.mark_start_execution();
        let ours = table::mentioned(&plan)?;
        // The policy is asked first, and answers while the engine is still at work.
        let asking = async {
            if ours {
                run.scope().await?;
            }
            Ok::<_, QueryError>(())
        };
        let beginning = async {
            let (asked, planned) = join(asking, state.create_physical_plan(&plan)).await;
            asked?;
            let rows = execute_stream(planned?, state.task_ctx())?;
            if run.begun() {
                run.recorded().await?;
            }
            Ok(rows)
        };
        let begun = tokio::select! {
            biased;
            () = limits.cancel.cancelled() => Err(QueryError::Cancelled),
            () = tokio::time::sleep_until(limits.deadline) => Err(QueryError::Deadline(seconds)),
            begun = beginning => begun,
        };
        match begun {
            Ok(rows) => Ok(Answer::new(supervised(rows, limits, end), run.notices())),
            Err(error) => {
                // Whoever cancelled does not wait for the record: it is written when `end` is dropped.
                if error.outcome() != QueryOutcome::Cancelled {
                    end.record(error.outcome()).await?;
                }
                Err(error)
            }
        }
    }

    /// Records that a statement was turned away, and makes the error that says so.
    pub(crate) async fn refuse(&self, reason: String) -> QueryError {
        let record = AuditRecord {
            at: self.deps.clock.now(),
            actor: Actor::User(self.who.user.clone()),
            event: AuditEvent::QueryRefused {
                user: self.who.user.clone(),
                reason: reason.clone(),
            },
        };
        match self.deps.audit.record(record).await {
            Ok(()) => QueryError::Refused(reason),
            Err(error) => QueryError::Audit(error),
        }
    }
}

/// The engine's own check, and no `EXPLAIN` however it was spelled.
fn verified(plan: &LogicalPlan) -> Result<(), String> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) {
        return Err("EXPLAIN is not available".to_owned());
    }
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| "only SELECT statements can be run here".to_owned())
}

impl fmt::Debug for QuerySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuerySession")
            .field("who", &self.who)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
