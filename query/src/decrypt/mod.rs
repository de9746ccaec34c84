//! `DecryptExec`: sealed rows in, rows of a table out. The only place of this crate that opens anything.
//!
//! A leaf to the engine: where its input comes from is between it and [`Scan`]. It claims no order and no statistics, and
//! whatever filter it is offered while a query runs only spares it work.
//!
//! What is opened is decided in three steps, each of which can only narrow: the patient is in the query's scope *and*
//! has a key now ([`Sealed::visible`]); the clear columns say that something wanted can be inside; and what is sealed
//! bears them out. A message's patient, device and counters are signed, a chunk's patient and bucket are bound into its
//! blob; its signals, span and counts are compared with what was opened, and the audit log counts the latter. A difference
//! ends the query. Evidence is opened only together with the readings that name it.
//!
//! What is passed over is never opened, so it is compared with nothing: whoever writes files under the store's key can
//! narrow those columns, and hide a row from the queries whose filters then pass over it. To bind them to what is sealed
//! would change nothing: what hides a row hides its binding. `vitalseal store check` finds it: by the SHA-256 that the
//! catalog has of each file, by the evidence, which all of these columns but the signals are compared with, and by the
//! readings, if there are keys.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt, stream};

mod chunks;
mod columns;
mod decoded;
mod gather;
mod gathered;
mod pieces;
mod provenance;
mod rows;
mod vitals;
mod waveforms;

pub(crate) use columns::{Column, READINGS_PER_BATCH};
#[cfg(test)]
pub(crate) use decoded::tests::{since, undecodable};
pub(crate) use decoded::{Decoded, Needs};
pub(crate) use pieces::{MessagePiece, Piece, Pieces, SeriesPiece};
pub(crate) use provenance::Provenance;
pub(crate) use vitals::Vitals;
pub(crate) use waveforms::Waveforms;

use crate::table::{Scan, Sealed};

/// Turns sealed rows into rows of a table.
pub(crate) trait Opener: fmt::Debug + Send + Sync + 'static {
    /// Columns of the rows that come out.
    fn schema(&self) -> SchemaRef;

    /// Whether each row is a reading, so that an aggregate may be folded from what is said of whole series.
    fn yields_readings(&self) -> bool {
        false
    }

    /// Opens what is wanted of `sealed`, batch by batch. A row whose patient is not
    /// [visible](Sealed::visible) must leave no trace: not in a row, not in an error, not in a count.
    fn open(
        self: Arc<Self>,
        sealed: Sealed,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;
}

/// Opens what a scan finds.
pub(crate) struct DecryptExec {
    scan: Scan,
    opener: Arc<dyn Opener>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl DecryptExec {
    /// At most `fetch` rows of each partition are of use.
    pub(crate) fn new(scan: Scan, opener: Arc<dyn Opener>, fetch: Option<usize>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(opener.schema()),
            Partitioning::UnknownPartitioning(scan.partitions()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self {
            scan,
            opener,
            fetch,
            properties,
        }
    }

    /// What is read.
    pub(crate) fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Whether the rows are readings, and all of them are wanted.
    pub(crate) fn yields_all_readings(&self) -> bool {
        self.fetch.is_none() && self.opener.yields_readings()
    }
}

impl ExecutionPlan for DecryptExec {
    fn name(&self) -> &'static str {
        "DecryptExec"
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
                "DecryptExec has no children".to_owned(),
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

    /// Remembers the filters of joins and top-k sorts above; their bounds move while the query runs. None is answered
    /// for, so each is applied above as well.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let answers = vec![PushedDown::No; result.parent_filters.len()];
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(answers);
        if phase != FilterPushdownPhase::Post || result.parent_filters.is_empty() {
            return Ok(answer);
        }
        let filters = result.parent_filters.into_iter().map(|f| f.filter);
        let scan = self.scan.narrowed(filters.collect(), self.opener.schema());
        Ok(answer.with_updated_node(Arc::new(Self {
            scan,
            opener: Arc::clone(&self.opener),
            fetch: self.fetch,
            properties: Arc::clone(&self.properties),
        })))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let opener = Arc::clone(&self.opener);
        let rows = self
            .scan
            .sealed(partition, &context)?
            .map_ok(move |sealed| stream::iter(Arc::clone(&opener).open(sealed)))
            .try_flatten();
        let rows = match self.fetch {
            Some(limit) => limited(rows, limit).left_stream(),
            None => rows.right_stream(),
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.opener.schema(),
            rows,
        )))
    }
}

/// Ends the stream with the row that is the last of use, and leaves the rest sealed.
fn limited(
    rows: impl stream::Stream<Item = Result<RecordBatch>> + Send,
    limit: usize,
) -> impl stream::Stream<Item = Result<RecordBatch>> + Send {
    stream::unfold((Box::pin(rows), limit), |(mut rows, left)| async move {
        if left == 0 {
            return None;
        }
        let next = rows
            .next()
            .await?
            .map(|batch| batch.slice(0, batch.num_rows().min(left)));
        let taken = next.as_ref().map_or(left, RecordBatch::num_rows);
        Some((next, (rows, left - taken)))
    })
}

impl DisplayAs for DecryptExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecryptExec")
    }
}

impl fmt::Debug for DecryptExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptExec")
            .field("scan", &self.scan)
            .field("fetch", &self.fetch)
            .finish_non_exhaustive()
    }
}
