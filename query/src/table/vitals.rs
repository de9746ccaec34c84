//! `vitals`: one row a reading.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `patient` | `Utf8View` | pseudonym |
//! | `device` | `Utf8View` | device id |
//! | `code`, `display` | `Utf8View` | LOINC (or MDC) code and its name |
//! | `value` | `Float64` | measured value |
//! | `unit` | `Utf8View` | UCUM unit |
//! | `ts` | `Timestamp(µs, UTC)` | when it was measured |
//! | `received_at` | `Timestamp(µs, UTC)` | when the server made it durable |
//! | `quality` | `Utf8View` | `ok` or `flagged` (outside the plausible range) |
//! | `boot`, `sequence` | `Int64` | with `device`: the message that it came in, as `provenance` has it |
//!
//! No column is null, no order is promised.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use vitalseal_storage::catalog::TableKind;

use super::{Blob, Scan, instant};
use crate::decrypt::{self, DecryptExec};
use crate::wanted::Parsed;

/// Columns of `vitals`.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8View, false);
        Arc::new(Schema::new(vec![
            text("patient"),
            text("device"),
            text("code"),
            text("display"),
            Field::new("value", DataType::Float64, false),
            text("unit"),
            Field::new("ts", instant(), false),
            Field::new("received_at", instant(), false),
            text("quality"),
            Field::new("boot", DataType::Int64, false),
            Field::new("sequence", DataType::Int64, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// A filter of more conditions than this (a list of numbers or texts is one) is the engine's, which stops between them.
const MAX_CONDITIONS: usize = 64;

/// The table. Stateless: see the [module above](super).
#[derive(Debug)]
pub(crate) struct Vitals;

#[async_trait]
impl TableProvider for Vitals {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// What is understood completely, and quickly decided, is decided in the scan, for rows that the asker may see. The
    /// engine keeps the rest, and applies it to the rows that come out.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let schema = schema();
        let answers = filters.iter().map(|filter| {
            let parsed = Parsed::of(filter, &schema);
            if parsed.exact && parsed.test.size() <= MAX_CONDITIONS {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        });
        Ok(answers.collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Whatever is offered here was answered `Exact`: nobody else applies it.
        let exact = |filter: &Expr| Parsed::of(filter, &schema()).exact;
        if !filters.iter().all(exact) {
            return Err(DataFusionError::Internal(
                "a filter of vitals is not understood any more as it was when it was offered"
                    .to_owned(),
            ));
        }
        let projected = match projection {
            Some(columns) => Arc::new(schema().project(columns)?),
            None => schema(),
        };
        let scan = Scan::of(
            session,
            TableKind::Vitals,
            Blob::Readings,
            filters,
            schema(),
        )
        .await?;
        let Some(scan) = scan else {
            return Ok(Arc::new(EmptyExec::new(projected)));
        };
        let opener = decrypt::Vitals::new(Arc::clone(&scan.run), projected, limit);
        // The engine names a limit only when no filter is left to it.
        Ok(Arc::new(DecryptExec::new(scan, Arc::new(opener), limit)))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{SessionContext, col, lit};

    use super::*;

    #[tokio::test]
    async fn a_filter_that_the_scan_does_not_understand_ends_the_query() {
        let state = SessionContext::new().state();
        let scan = async |filter: Expr| Vitals.scan(&state, Some(&vec![4]), &[filter], None).await;
        let refused = scan(col("boot").eq(lit(1_i64))).await.unwrap_err();
        assert!(matches!(refused, DataFusionError::Internal(_)), "{refused}");
        // What is understood gets as far as the question who asks.
        let outside = scan(col("value").gt(lit(60.0))).await.unwrap_err();
        assert!(matches!(outside, DataFusionError::Plan(_)), "{outside}");
    }

    #[test]
    fn the_engine_keeps_what_is_not_understood_or_takes_long() {
        let answer = |filter: &Expr| Vitals.supports_filters_pushdown(&[filter]).unwrap();
        let pair = |limit: i32| {
            let value = col("value").gt(lit(f64::from(limit)));
            value.and(col("code").eq(lit(limit.to_string())))
        };
        let either = |pairs| (1..pairs).map(pair).fold(pair(0), Expr::or);
        assert_eq!(answer(&either(32)), [TableProviderFilterPushDown::Exact]);
        for kept in [either(33), pair(0).or(col("boot").eq(lit(1_i64)))] {
            assert_eq!(answer(&kept), [TableProviderFilterPushDown::Unsupported]);
        }
    }
}
