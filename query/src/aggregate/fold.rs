//! `FoldExec`: sealed rows in, groups out.

use std::fmt;
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use futures::{TryStreamExt, stream};

use super::groups::Groups;
use super::shape::Shape;
use crate::decrypt::{Piece, Pieces};
use crate::table::Scan;

/// Answers an aggregate over what a scan finds. One partition comes out; all of the scan's are worked on at once.
pub(crate) struct FoldExec {
    shape: Arc<Shape>,
    scan: Scan,
    properties: Arc<PlanProperties>,
}

impl FoldExec {
    pub(super) fn new(shape: Shape, scan: Scan) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&shape.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        Self {
            shape: Arc::new(shape),
            scan,
            properties,
        }
    }
}

/// Folds one partition of the scan.
async fn fold(
    shape: Arc<Shape>,
    scan: Scan,
    partition: usize,
    context: Arc<TaskContext>,
) -> Result<Groups> {
    let memory = MemoryConsumer::new("groups").register(context.memory_pool());
    let mut groups = Groups::new(shape, memory);
    let mut sealed = scan.sealed(partition, &context)?;
    while let Some(rows) = sealed.try_next().await? {
        for piece in Pieces::of(Arc::clone(&scan.run), rows)? {
            match piece? {
                Piece::Series(series) => groups.series(&series)?,
                Piece::Message(message) => groups.message(&message)?,
            }
        }
        // Rows may be at hand without a wait; whoever cancels must get a word in.
        tokio::task::yield_now().await;
    }
    Ok(groups)
}

impl ExecutionPlan for FoldExec {
    fn name(&self) -> &'static str {
        "FoldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            Ok(self)
        } else {
            Err(DataFusionError::Internal(
                "FoldExec has no children".to_owned(),
            ))
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        _partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (shape, scan) = (Arc::clone(&self.shape), self.scan.clone());
        let rows = async move {
            let tasks: Vec<_> = (0..scan.partitions())
                .map(|partition| {
                    let (shape, scan) = (Arc::clone(&shape), scan.clone());
                    SpawnedTask::spawn(fold(shape, scan, partition, Arc::clone(&context)))
                })
                .collect();
            let memory = MemoryConsumer::new("groups").register(context.memory_pool());
            let mut groups = Groups::new(shape, memory);
            for task in tasks {
                let part = task.join().await;
                let part = part.map_err(|error| DataFusionError::External(Box::new(error)))?;
                groups.merge(part?).await?;
            }
            Ok::<_, DataFusionError>(stream::iter(groups.finish()))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.shape.schema),
            stream::once(rows).try_flatten(),
        )))
    }
}

impl DisplayAs for FoldExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FoldExec")
    }
}

impl fmt::Debug for FoldExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoldExec")
            .field("shape", &self.shape)
            .field("scan", &self.scan)
            .finish_non_exhaustive()
    }
}
