//! `patients`: the patients that the policy lets the asker see, with their identity.
//!
//! | Column | Arrow type | Null when |
//! |---|---|---|
//! | `patient` | `Utf8` | never: the pseudonym |
//! | `name`, `mrn` | `Utf8` | not recorded, or erased with the key that sealed it |
//! | `state` | `Utf8` | never: `active` or `erased` |
//! | `created_at` | `Timestamp(µs, UTC)` | never |

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
use vitalseal_storage::registry::PatientState;

use super::instant;
use crate::error::QueryError;
use crate::run::QueryRun;

/// The table. Stateless but for its schema.
#[derive(Debug)]
pub(crate) struct Patients(SchemaRef);

impl Patients {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Schema::new(vec![
            Field::new("patient", DataType::Utf8, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("mrn", DataType::Utf8, true),
            Field::new("state", DataType::Utf8, false),
            Field::new("created_at", instant(), false),
        ])))
    }
}

#[async_trait]
impl TableProvider for Patients {
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
        let rows = PatientRows {
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
struct PatientRows {
    run: Arc<QueryRun>,
    schema: SchemaRef,
}

impl PartitionStream for PatientRows {
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
    let mut patient = StringBuilder::new();
    let mut name = StringBuilder::new();
    let mut mrn = StringBuilder::new();
    let mut state = StringBuilder::new();
    let mut created_at = TimestampMicrosecondBuilder::new();
    for subject in scope.patients() {
        let found = run
            .deps
            .store
            .registry
            .patient(subject)
            .await
            .map_err(|cause| QueryError::Storage {
                what: "patients",
                cause: Box::new(cause),
            })?;
        let Some(row) = found else { continue };
        run.shown(subject);
        patient.append_value(row.subject.as_str());
        name.append_option(
            row.identity
                .as_ref()
                .and_then(|known| known.name.as_deref()),
        );
        mrn.append_option(row.identity.as_ref().and_then(|known| known.mrn.as_deref()));
        state.append_value(match row.state {
            PatientState::Active => "active",
            PatientState::Erased => "erased",
        });
        created_at.append_value(row.created_at.as_microsecond());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(patient.finish()),
        Arc::new(name.finish()),
        Arc::new(mrn.finish()),
        Arc::new(state.finish()),
        Arc::new(created_at.finish().with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}
