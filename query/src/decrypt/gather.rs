//! Batches out of sealed rows, for tables whose rows are few and long.
//!
//! Rows are opened one after the other and gathered until there are enough for a batch; none is opened before the batch
//! before it was taken.

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;

use crate::table::Sealed;

/// Bytes of a batch. One more sealed row may still be added to it.
const BYTES_PER_BATCH: usize = 1 << 20;

/// The rows of a table while they are gathered.
pub(super) trait Gather: Send {
    /// Opens the sealed row `at` as far as it is wanted, and adds what is inside.
    ///
    /// # Errors
    /// When it is damaged, or the query is over.
    fn add(&mut self, at: usize, sealed: &Sealed) -> Result<()>;

    /// About how many bytes were added since the last batch.
    fn bytes(&self) -> usize;

    /// What was added since the last batch.
    ///
    /// # Errors
    /// None is known: the columns have equal lengths.
    fn batch(&mut self) -> Result<RecordBatch>;
}

/// The batches of some sealed rows.
pub(super) struct Batches<G> {
    pub(super) gather: G,
    pub(super) sealed: Sealed,
    pub(super) next: usize,
}

impl<G: Gather> Batches<G> {
    fn find(&mut self) -> Result<Option<RecordBatch>> {
        while self.next < self.sealed.rows.num_rows() && self.gather.bytes() < BYTES_PER_BATCH {
            let at = self.next;
            self.next += 1;
            self.gather.add(at, &self.sealed)?;
        }
        if self.gather.bytes() == 0 {
            return Ok(None);
        }
        self.gather.batch().map(Some)
    }
}

impl<G: Gather> Iterator for Batches<G> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find();
        if found.is_err() {
            self.next = usize::MAX;
        }
        found.transpose()
    }
}
