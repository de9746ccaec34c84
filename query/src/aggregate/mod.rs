//! Aggregates that are answered from sealed statistics.
//!
//! ```text
//!  AggregateExec (final)                 FoldExec
//!    └ AggregateExec (partial)    ─▶       (Scan: sealed rows)
//!        └ DecryptExec (Scan)
//! ```
//!
//! A chunk says of each of its series, sealed, how many readings there are, from when to when, and their minimum, maximum,
//! sum and last value. Grouped by what is the same for a whole series, that is all that most aggregates ask; only a
//! series which a filter cuts, or a step of time, is decoded, and no row is ever made of it.
//!
//! The rule replaces a shape that it understands completely, and leaves every other as it is. It runs before all others,
//! on plans in which an aggregate still stands directly on the scan.

mod fold;
mod groups;
mod shape;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

use fold::FoldExec;
use shape::Shape;

use crate::decrypt::DecryptExec;
use crate::table::Scan;

/// The rule.
#[derive(Debug)]
pub(crate) struct FoldAggregates;

impl PhysicalOptimizerRule for FoldAggregates {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            Ok(match Shape::of(&node, all_readings) {
                Some((shape, scan)) => Transformed::yes(Arc::new(FoldExec::new(shape, scan))),
                None => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "fold_aggregates"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The scan of a leaf that gives all readings of its patients.
fn all_readings(plan: &Arc<dyn ExecutionPlan>) -> Option<Scan> {
    let decrypt = plan.downcast_ref::<DecryptExec>()?;
    decrypt
        .yields_all_readings()
        .then(|| decrypt.scan().clone())
}
