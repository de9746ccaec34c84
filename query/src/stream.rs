//! The rows of a running query, under its deadline and with its end recorded.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vitalseal_storage::ports::QueryOutcome;

use crate::error::QueryError;
use crate::run::QueryRun;

/// What ends a query from outside.
pub(crate) struct Limits {
    /// The instant after which no row is handed out.
    pub(crate) deadline: Instant,
    /// The deadline's length in seconds, for the error text.
    pub(crate) seconds: u64,
    /// Fired by a cancel request or a shutdown.
    pub(crate) cancel: CancellationToken,
}

/// Wraps `rows` so that the deadline and cancellation hold for every batch and the end is recorded
/// before the client learns of it: `completed` before the last poll returns, `failed` before the error
/// does, `cancelled` when the stream is dropped half-way.
pub(crate) fn supervised(
    rows: SendableRecordBatchStream,
    limits: Limits,
    end: EndOfQuery,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let state = Some((rows, limits, end));
    let batches = stream::unfold(state, |state| async {
        let (mut rows, limits, mut end) = state?;
        let next = tokio::select! {
            biased;
            () = limits.cancel.cancelled() => Some(Err(QueryError::Cancelled.into())),
            () = tokio::time::sleep_until(limits.deadline) => {
                Some(Err(QueryError::Deadline(limits.seconds).into()))
            }
            next = rows.next() => next,
        };
        match next {
            Some(Ok(batch)) => Some((Ok(batch), Some((rows, limits, end)))),
            Some(Err(error)) => {
                // The plan stops working before the end is written down.
                drop(rows);
                let error = QueryError::from(error);
                let error = match end.record(error.outcome()).await {
                    Ok(()) => error,
                    Err(unrecorded) => unrecorded,
                };
                Some((Err(error.into()), None))
            }
            None => match end.record(QueryOutcome::Completed).await {
                Ok(()) => None,
                Err(unrecorded) => Some((Err(unrecorded.into()), None)),
            },
        }
    });
    adapted(schema, Box::pin(batches))
}

type Batches = Pin<Box<dyn futures::Stream<Item = Result<RecordBatch>> + Send>>;

fn adapted(schema: SchemaRef, batches: Batches) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// The duty to record how a query ended. Dropped without [`Self::record`], it records `cancelled`. Either way what still
/// works for the query stops.
pub(crate) struct EndOfQuery(Option<Arc<QueryRun>>);

impl EndOfQuery {
    /// A query whose start was recorded owes an end; one that read nothing of ours does not.
    pub(crate) fn of(run: Arc<QueryRun>) -> Self {
        Self(Some(run))
    }

    /// Records the end, once.
    ///
    /// # Errors
    /// [`QueryError::Audit`].
    pub(crate) async fn record(&mut self, outcome: QueryOutcome) -> Result<(), QueryError> {
        let Some(run) = self.0.clone() else {
            return Ok(());
        };
        run.stop();
        let recorded = run.record_end(outcome).await;
        // Only now: a client that goes away while the record is written still leaves one.
        self.0 = None;
        recorded
    }
}

impl Drop for EndOfQuery {
    fn drop(&mut self) {
        let Some(run) = self.0.take() else { return };
        run.stop();
        if !run.begun() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::error!("a query was dropped outside the runtime; its end is not recorded");
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = run.record_end(QueryOutcome::Cancelled).await {
                tracing::error!(%error, "the end of a cancelled query is not recorded");
            }
        });
    }
}

impl fmt::Debug for EndOfQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndOfQuery")
            .field("owed", &self.0.is_some())
            .finish()
    }
}
