//! The tables that users see.
//!
//! None of them holds data or an identity. A scan takes both from the query that is being planned (see
//! `run.rs`), asks the policy, and only then looks at storage.

mod devices;
mod patients;
mod provenance;
mod registry;
mod scan;
mod slices;
mod vitals;
mod waveforms;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::DefaultTableSource;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;

pub use provenance::schema as provenance_schema;
pub(crate) use scan::{Blob, Scan, Sealed};
pub use vitals::schema as vitals_schema;
pub(crate) use waveforms::sample_field;
pub use waveforms::schema as waveforms_schema;

/// Every table with its name.
pub(crate) fn all() -> [(&'static str, Arc<dyn TableProvider>); 5] {
    [
        ("vitals", Arc::new(vitals::Vitals)),
        ("waveforms", Arc::new(waveforms::Waveforms)),
        ("provenance", Arc::new(provenance::Provenance)),
        ("patients", Arc::new(patients::table())),
        ("devices", Arc::new(devices::table())),
    ]
}

/// Whether a plan names one of our tables, also inside a subquery, even if the optimizer then finds
/// that it need not be read.
///
/// # Errors
/// None of its own.
pub(crate) fn mentioned(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<DefaultTableSource>()
        {
            let provider = &source.table_provider;
            found |= provider.downcast_ref::<vitals::Vitals>().is_some()
                || provider.downcast_ref::<waveforms::Waveforms>().is_some()
                || provider.downcast_ref::<provenance::Provenance>().is_some()
                || provider.downcast_ref::<registry::RegistryTable>().is_some();
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// An instant: microseconds since the Unix epoch, UTC.
pub(crate) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}
