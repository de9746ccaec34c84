//! One user's SQL session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::{SendableRecordBatchStream, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, Identity, Purpose, QueryOutcome};

use crate::aggregate::FoldAggregates;
use crate::error::QueryError;
use crate::run::QueryRun;
use crate::service::{QueryDeps, QueryService};
use crate::statement::{Verdict, verdict};
use crate::stream::{EndOfQuery, Limits, supervised};
use crate::table;

/// The one database that there is.
pub(crate) const DATABASE: &str = "vitalseal";

/// Longest statement read. BI tools write a few kilobytes.
pub(crate) const MAX_SQL_BYTES: usize = 256 * 1024;

/// Concurrent partitions of one query: the machines we build for have two cores.
const PARTITIONS: usize = 2;

/// A session: an identity, a purpose and an engine context that nobody else has.
///
/// The context holds table names and functions, no data. Each query gets its own access decision, its
/// own cut of the store and its own two audit records.
pub struct QuerySession {
    deps: Arc<QueryDeps>,
    who: Identity,
    purpose: Purpose,
    deadline: Duration,
    context: SessionContext,
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
        let config = SessionConfig::new()
            .with_default_catalog_and_schema(DATABASE, "public")
            .with_create_default_catalog_and_schema(true)
            .with_information_schema(true)
            .with_target_partitions(PARTITIONS);
        let mut rules = PhysicalOptimizer::new().rules;
        rules.insert(0, Arc::new(FoldAggregates));
        // No table factories and no file formats: CREATE EXTERNAL TABLE and COPY have nothing to stand on
        // even if a plan for one got past every other check.
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(SessionStateDefaults::default_scalar_functions())
            .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_table_function_list(SessionStateDefaults::default_table_functions())
            .with_physical_optimizer_rules(rules)
            .build();
        let context = SessionContext::new_with_state(state);
        for (name, provider) in table::all() {
            context.register_table(name, provider)?;
        }
        setup_pg_catalog(&context, DATABASE, EmptyContextProvider).map_err(|error| *error)?;
        Ok(Self {
            deps: Arc::clone(&service.deps),
            who,
            purpose,
            deadline: service.limits.deadline,
            context,
            parser: PostgresCompatibilityParser::new(),
        })
    }

    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.who
    }

    /// Runs one query and streams its rows. The access is recorded before the first row and after the last.
    ///
    /// # Errors
    /// [`QueryError::Refused`] for anything but a single query, [`QueryError::Parse`], [`QueryError::Engine`]
    /// for planning errors, [`QueryError::Audit`] when the access could not be recorded.
    pub async fn sql(&self, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
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
        let state = self.context.state();
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
    ) -> Result<SendableRecordBatchStream, QueryError> {
        if let Err(reason) = verified(&plan) {
            return Err(self.refuse(reason).await);
        }
        let seconds = self.deadline.as_secs();
        let limits = Limits {
            deadline: Instant::now() + self.deadline,
            seconds,
            cancel,
        };
        let run = QueryRun::begin(Arc::clone(&self.deps), self.who.clone(), self.purpose)?;
        let mut state = self.context.state();
        state.config_mut().set_extension(Arc::clone(&run));
        state.mark_start_execution();
        let planning = state.create_physical_plan(&plan);
        let physical = tokio::select! {
            biased;
            () = limits.cancel.cancelled() => return Err(QueryError::Cancelled),
            () = tokio::time::sleep_until(limits.deadline) => return Err(QueryError::Deadline(seconds)),
            planned = planning => planned?,
        };
        let ours = run.touched() || table::mentioned(&plan)?;
        let mut end = if ours {
            run.record_start(sql).await?;
            EndOfQuery::of(Some(run))
        } else {
            EndOfQuery::of(None)
        };
        match execute_stream(physical, state.task_ctx()) {
            Ok(rows) => Ok(supervised(rows, limits, end)),
            Err(error) => {
                end.record(QueryOutcome::Failed).await?;
                Err(error.into())
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
