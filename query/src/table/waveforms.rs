//! `waveforms`: one row a stretch of even samples, as its device took it.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `patient` | `Utf8View` | pseudonym |
//! | `device` | `Utf8View` | device id |
//! | `code`, `display` | `Utf8View` | LOINC (or MDC) code and its name |
//! | `unit` | `Utf8View` | UCUM unit of the samples |
//! | `start` | `Timestamp(µs, UTC)` | when the first sample was taken |
//! | `period_us` | `Float64` | time between two samples, µs |
//! | `samples` | `List(Float64)` | the samples, in order |
//! | `received_at` | `Timestamp(µs, UTC)` | when the server made it durable |
//! | `boot`, `sequence` | `Int64` | with `device`: the message that it came in, as `provenance` has it |
//!
//! No column is null, nor is a sample; no order of rows is promised.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use vitalseal_storage::catalog::TableKind;

use super::{Blob, Scan, instant};
use crate::decrypt::{self, DecryptExec};

/// Columns of `waveforms`.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8View, false);
        Arc::new(Schema::new(vec![
            text("patient"),
            text("device"),
            text("code"),
            text("display"),
            text("unit"),
            Field::new("start", instant(), false),
            Field::new("period_us", DataType::Float64, false),
            Field::new("samples", DataType::List(sample_field()), false),
            Field::new("received_at", instant(), false),
            Field::new("boot", DataType::Int64, false),
            Field::new("sequence", DataType::Int64, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// One sample.
pub(crate) fn sample_field() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, false))
}

/// The table. Stateless: see the [module above](super).
#[derive(Debug)]
pub(crate) struct Waveforms;

#[async_trait]
impl TableProvider for Waveforms {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Rows are few: the scan leaves out what it can, and the engine decides.
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
        let table = TableKind::Waveforms;
        let scan = Scan::of(session, table, Blob::Readings, filters, schema()).await?;
        let Some(scan) = scan else {
            let projected = schema().project(&columns)?;
            return Ok(Arc::new(EmptyExec::new(Arc::new(projected))));
        };
        let opener = decrypt::Waveforms::new(Arc::clone(&scan.run), columns)?;
        // The engine names a limit only when no filter is left to it.
        Ok(Arc::new(DecryptExec::new(scan, Arc::new(opener), limit)))
    }
}
