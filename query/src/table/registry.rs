//! A table that is read whole from the registry: small, and never from a file.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::future::BoxFuture;

use crate::run::QueryRun;

/// Reads the rows of one query's scope, with every column.
type Read = fn(Arc<QueryRun>, Schemas) -> BoxFuture<'static, Result<RecordBatch>>;

/// Which columns there are and which of them leave the table.
pub(super) struct Schemas {
    pub(super) all: SchemaRef,
    pub(super) asked: SchemaRef,
}

/// The table. It holds no row and no identity: both come with the query.
#[derive(Clone)]
pub(super) struct RegistryTable {
    schema: SchemaRef,
    read: Read,
}

impl RegistryTable {
    pub(super) fn new(columns: Vec<Field>, read: Read) -> Self {
        Self {
            schema: Arc::new(Schema::new(columns)),
            read,
        }
    }
}

impl fmt::Debug for RegistryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryTable")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for RegistryTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
        let asked = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let rows = Rows {
            run,
            table: self.clone(),
            asked,
        };
        Ok(Arc::new(StreamingTableExec::try_new(
            Arc::clone(&self.schema),
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
struct Rows {
    run: Arc<QueryRun>,
    table: RegistryTable,
    asked: SchemaRef,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.table.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.table.schema);
        let schemas = Schemas {
            all: Arc::clone(&schema),
            asked: Arc::clone(&self.asked),
        };
        let (run, read) = (Arc::clone(&self.run), self.table.read);
        let rows = futures::stream::once(async move {
            run.recorded().await?;
            read(run, schemas).await
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}
