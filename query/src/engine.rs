//! The engine of one session: table names, functions and rules, no data and no identity.
//!
//! What `pg_catalog` shows it finds in the session's list of catalogs, and stands in that list itself: a circle, which
//! nothing would ever free. Some megabytes a session would stay for as long as the server runs, so the engine takes
//! `pg_catalog` out again when it ends.

use std::fmt;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;

use crate::aggregate::FoldAggregates;
use crate::table;

/// The one database that there is.
pub(crate) const DATABASE: &str = "vitalseal";

/// What `pg_catalog` is registered as.
const PG_CATALOG: &str = "pg_catalog";

/// Concurrent partitions of one query: the machines we build for have two cores.
const PARTITIONS: usize = 2;

/// A context that no other session has.
pub(crate) struct Engine(SessionContext);

impl Engine {
    /// # Errors
    /// When DataFusion refuses a table or `pg_catalog` cannot be set up.
    pub(crate) fn new(runtime: Arc<RuntimeEnv>) -> Result<Self> {
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
        let engine = Self(SessionContext::new_with_state(state));
        for (name, provider) in table::all() {
            engine.0.register_table(name, provider)?;
        }
        setup_pg_catalog(&engine.0, DATABASE, EmptyContextProvider).map_err(|error| *error)?;
        Ok(engine)
    }

    /// A copy of the state, for one query.
    pub(crate) fn state(&self) -> SessionState {
        self.0.state()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let taken_out = self
            .0
            .catalog(DATABASE)
            .map(|catalog| catalog.deregister_schema(PG_CATALOG, true));
        if let Some(Err(error)) = taken_out {
            tracing::warn!(%error, "the tables of an ended SQL session stay in memory");
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::environment;

    #[test]
    fn an_ended_session_leaves_nothing_in_memory() {
        let engine = Engine::new(environment(1 << 20).unwrap()).unwrap();
        let catalogs = Arc::downgrade(engine.state().catalog_list());
        assert!(catalogs.upgrade().is_some());
        drop(engine);
        assert!(catalogs.upgrade().is_none(), "the catalogs hold each other");
    }
}
