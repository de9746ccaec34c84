//! `devices`: the devices that are assigned to a patient whom the asker may see.
//!
//! | Column | Arrow type | Meaning |
//! |---|---|---|
//! | `device` | `Utf8` | device id |
//! | `state` | `Utf8` | `active` or `revoked` |
//! | `patient` | `Utf8` | pseudonym of the patient it measures now |
//! | `enrolled_at` | `Timestamp(µs, UTC)` | when its certificate was issued |

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use vitalseal_storage::registry::DeviceState;

use super::instant;
use crate::error::QueryError;
use crate::run::QueryRun;

/// The table. Stateless but for its schema.
#[derive(Debug)]
pub(crate) struct Devices(SchemaRef);

impl Devices {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Schema::new(vec![
            Field::new("device", DataType::Utf8, false),
            Field::new("state", DataType::Utf8, false),
            Field::new("patient", DataType::Utf8, false),
            Field::new("enrolled_at", instant(), false),
        ])))
    }
}

#[async_trait]
impl TableProvider for Devices {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let run = QueryRun::of(session)?;
        run.scope().await?;
        let rows = DeviceRows {
            run,
            schema: Arc::clone(&self.0),
        };
        Ok(Arc::new(StreamingTableExec::try_new(
            Arc::clone(&self.0),
            vec![Arc::new(rows)],
            projection,
            [],
            false,
            None,
        )?))
    }
}

/// Reads the registry when the query runs, after its start was recorded.
#[derive(Debug)]
struct DeviceRows {
    run: Arc<QueryRun>,
    schema: SchemaRef,
}

impl PartitionStream for DeviceRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (run, schema) = (Arc::clone(&self.run), Arc::clone(&self.schema));
        let rows = async move { rows(&run, schema).await };
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            futures::stream::once(rows),
        ))
    }
}

async fn rows(run: &QueryRun, schema: SchemaRef) -> Result<RecordBatch> {
    let scope = run.scope().await?;
    let devices = run
        .deps
        .store
        .registry
        .devices()
        .await
        .map_err(|cause| QueryError::Storage {
            what: "devices",
            cause: Box::new(cause),
        })?;
    let mut device = StringBuilder::new();
    let mut state = StringBuilder::new();
    let mut patient = StringBuilder::new();
    let mut enrolled_at = TimestampMicrosecondBuilder::new();
    for row in devices {
        let Some(assigned) = row.patient.filter(|p| scope.patients().contains(p)) else {
            continue;
        };
        run.shown(&assigned);
        device.append_value(row.id.as_str());
        state.append_value(match row.state {
            DeviceState::Active => "active",
            DeviceState::Revoked => "revoked",
        });
        patient.append_value(assigned.as_str());
        enrolled_at.append_value(row.enrolled_at.as_microsecond());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(device.finish()),
        Arc::new(state.finish()),
        Arc::new(patient.finish()),
        Arc::new(enrolled_at.finish().with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}
