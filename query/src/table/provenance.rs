//! `provenance`: one row a message, as it is stored, with what proves where it came from.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `patient` | `Utf8View` | pseudonym |
//! | `device` | `Utf8View` | device id |
//! | `boot`, `sequence` | `Int64` | the message's counters; with `device` its name |
//! | `kind` | `Utf8View` | which table shows what is inside: `vitals` or `waveforms` |
//! | `issued_at` | `Timestamp(µs, UTC)` | when the device sealed it, by its own clock, in whole seconds |
//! | `received_at` | `Timestamp(µs, UTC)` | when the server made it durable |
//! | `first_at`, `last_at` | `Timestamp(µs, UTC)` | earliest and latest instant measured |
//! | `readings` | `Int64` | how many readings, or samples, are inside |
//! | `certificate` | `Utf8View` | SHA-256 of the device's certificate, hexadecimal |
//! | `signed_hash` | `Utf8View` | SHA-256 of the countersigned bytes, hexadecimal; the next message names it |
//! | `envelope` | `Binary` | the stored COSE message bit for bit, which `vitalseal envelope verify` takes |
//!
//! No column is null, no order is promised. No reading is decoded for it: what it shows is what is signed and what the
//! server noted. Of a chunk whose evidence was lost to damage it shows nothing, and a notice says so.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use vitalseal_storage::catalog::TableKind;

use super::{Blob, Scan, instant};
use crate::decrypt::{self, DecryptExec};
use crate::error::QueryError;

/// Columns of `provenance`.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8View, false);
        let number = |name| Field::new(name, DataType::Int64, false);
        let at = |name| Field::new(name, instant(), false);
        Arc::new(Schema::new(vec![
            text("patient"),
            text("device"),
            number("boot"),
            number("sequence"),
            text("kind"),
            at("issued_at"),
            at("received_at"),
            at("first_at"),
            at("last_at"),
            number("readings"),
            text("certificate"),
            text("signed_hash"),
            Field::new("envelope", DataType::Binary, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// The table. Stateless: see the [module above](super).
#[derive(Debug)]
pub(crate) struct Provenance;

#[async_trait]
impl TableProvider for Provenance {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// The scan leaves out what it can, and the engine decides.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = || (0..schema().fields().len()).collect();
        let columns = projection.cloned().unwrap_or_else(all);
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        for table in [TableKind::Vitals, TableKind::Waveforms] {
            let scan = Scan::of(session, table, Blob::Evidence, filters, schema()).await?;
            let Some(scan) = scan else { continue };
            let run = Arc::clone(&scan.run);
            let keys = run.deps.store.keys.store_keys().await;
            let keys = keys.map_err(|cause| QueryError::Storage {
                what: "store keys",
                cause: Box::new(cause),
            })?;
            let opener =
                decrypt::Provenance::new(run, table, keys, scan.unproven(), columns.clone())?;
            plans.push(Arc::new(DecryptExec::new(scan, Arc::new(opener), limit)));
        }
        match (plans.pop(), plans.pop()) {
            (None, _) => {
                let projected = schema().project(&columns)?;
                Ok(Arc::new(EmptyExec::new(Arc::new(projected))))
            }
            (Some(only), None) => Ok(only),
            (Some(last), Some(first)) => UnionExec::try_new(vec![first, last]),
        }
    }
}
