//! A few threads for the arithmetic: a signature and an opening cost a fifth of a millisecond, too long to keep the other
//! connections of a runtime thread waiting, too short to be worth a `spawn_blocking` each.
//!
//! One queue, many threads: a slow job delays only the thread that has it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that wait per thread. Enough that a thread never idles while a task is being woken to send the next one; the
/// memory behind them is bounded by the pipeline's credits, not by this.
const QUEUED_PER_THREAD: usize = 64;

/// The threads; they end when this is dropped and their queue is empty.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: mpsc::Sender<Job>,
}

impl Workers {
    /// # Errors
    /// When the operating system refuses a thread.
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>(threads * QUEUED_PER_THREAD);
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("pipeline-{index}"))
                .spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `job` on a worker; `None` when it panicked or the workers are gone.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody waiting any more is no reason to fail.
            let _ = done.send(job());
        });
        self.jobs.send(job).await.ok()?;
        result.await.ok()
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // Held while waiting: exactly one idle thread waits on the queue, the others on the lock.
        let job = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(job) = job else { return };
        // A job owns all that it touches, so nothing half-done is left behind; its waiter sees the sender dropped.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a pipeline job panicked; its message stays unacknowledged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_job_costs_its_own_result_only() {
        let workers = Workers::start(1).unwrap();
        let lost: Option<()> = workers.run(|| panic!("job")).await;
        assert_eq!(lost, None);
        assert_eq!(workers.run(|| 7).await, Some(7));
    }
}
