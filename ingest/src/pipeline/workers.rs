//! The pipeline's own threads: a message is taken from arrival to outcome by one task on them.
//!
//! A signature and an opening cost a tenth of a millisecond of arithmetic. On the runtime of the connections and queries
//! they would keep others waiting, and be kept waiting; handed to a thread for the arithmetic alone, each message would
//! cost two changes of threads more, which is what a message costs most after its signature.

use std::fmt;
use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// A runtime for messages alone; it ends when this is dropped.
pub(super) struct Workers(Option<Runtime>);

impl Workers {
    /// # Errors
    /// When the operating system refuses a thread.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(threads).thread_name("pipeline");
        // Waiting for a connection of the registry's pool has a deadline.
        Ok(Self(Some(builder.enable_time().build()?)))
    }

    /// Begins `work` now; `None` when the workers are going away. A panic costs its own result only.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        self.0.as_ref().map(|runtime| runtime.spawn(work))
    }
}

impl Drop for Workers {
    /// The last message may be the one that lets go of them, on one of their own threads: nothing is waited for.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_message_costs_its_own_result_only() {
        let workers = Workers::start(1).unwrap();
        let lost = workers.spawn(async { panic!("message") }).unwrap();
        assert!(lost.await.is_err());
        assert_eq!(workers.spawn(async { 7 }).unwrap().await.unwrap(), 7);
    }
}
