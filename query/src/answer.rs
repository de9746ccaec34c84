//! What a query answers.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::physical_plan::{RecordBatchStream, SendableRecordBatchStream};
use futures::Stream;

/// The rows of a query as they come, and what has to be told beside them.
#[must_use = "rows come when they are polled, and what is missing from them is in the notices"]
pub struct Answer {
    rows: SendableRecordBatchStream,
    notices: Vec<String>,
}

impl Answer {
    pub(crate) fn new(rows: SendableRecordBatchStream, notices: Vec<String>) -> Self {
        Self { rows, notices }
    }

    /// What of the answer is known to be missing, because damage took it: a sentence each, of patients whom the asker may
    /// see. Whoever shows rows to a person shows these too.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The rows alone.
    #[must_use]
    pub fn into_rows(self) -> SendableRecordBatchStream {
        self.rows
    }
}

impl Stream for Answer {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.as_mut().poll_next(context)
    }
}

impl RecordBatchStream for Answer {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}
