//! How long work goes on that nobody waits for any more.
//!
//! A client takes the rows of a query and goes away at twenty instants, spread over the time that the query takes alone.
//! It and the query run on a runtime of their own. What counts is until that runtime has no task left: whatever opened
//! for the query has ended, and so has the one that records its end in the audit log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::sealed::{Sealed, ask};

const DEPARTURES: u32 = 20;

/// Looked at so often; the figures are not finer.
const LOOK: Duration = Duration::from_micros(100);

/// A question that takes long, and how.
pub struct Long {
    /// Ends the names of its figures.
    pub name: &'static str,
    sql: String,
}

/// Answered from what sealed rows hold: each is opened.
pub fn of_rows() -> Long {
    let sql = "SELECT code, count(*), avg(value), min(value), max(value) FROM vitals GROUP BY code";
    Long {
        name: "rows",
        sql: sql.to_owned(),
    }
}

/// Over chunks: what the engine adds up from decoded columns, what is folded by the second, and what sixty-four conditions
/// are asked of.
pub fn of_chunks() -> [Long; 3] {
    let decoded = "SELECT code, avg(value * value) FROM vitals GROUP BY code";
    let folded = "SELECT date_trunc('second', ts), avg(value) FROM vitals GROUP BY 1";
    // Between any two temperatures, and within what is measured, so that none is decided by the least and the most.
    let condition = |n| format!("(value < {0}.123 OR value > {0}.124)", 36 + n);
    let conditions: Vec<_> = (0..64).map(condition).collect();
    let filtered = format!(
        "SELECT count(*) FROM vitals WHERE {}",
        conditions.join(" AND ")
    );
    [
        ("decoded", decoded.to_owned()),
        ("seconds", folded.to_owned()),
        ("conditions", filtered),
    ]
    .map(|(name, sql)| Long { name, sql })
}

/// Adds the figures of one question: what it takes when it is waited for, and what is left of it afterwards.
pub fn measure(
    question: &Long,
    sealed: &Sealed,
    figure: &mut impl FnMut(String, f64, &'static str),
) {
    let alone = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let depart = |after: Duration| departure(&alone, sealed, &question.sql, after);
    // The quickest is the measure of the departures: one that comes too late tells nothing.
    let whole = [(); 3].map(|()| depart(Duration::MAX).waited);
    let whole = whole.into_iter().min().unwrap();
    let mut left = Vec::new();
    for at in 0..DEPARTURES {
        let departed = depart(whole * (2 * at + 1) / (2 * DEPARTURES));
        left.extend(departed.left);
    }
    alone.shutdown_background();
    if left.is_empty() {
        println!(
            "    ({} is over before its client goes away)",
            question.name
        );
        return;
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    left.sort_unstable();
    let (median, most) = (left[left.len() / 2], left[left.len() - 1]);
    figure(
        format!("cancel_{}_whole_ms", question.name),
        ms(whole),
        "ms",
    );
    figure(
        format!("cancel_{}_median_ms", question.name),
        ms(median),
        "ms",
    );
    figure(format!("cancel_{}_most_ms", question.name), ms(most), "ms");
}

struct Departed {
    waited: Duration,
    /// From there until no work was left; `None` when the query was over already.
    left: Option<Duration>,
}

fn departure(alone: &Runtime, sealed: &Sealed, sql: &str, after: Duration) -> Departed {
    let (session, sql) = (Arc::clone(&sealed.session), sql.to_owned());
    let started = Instant::now();
    let client = alone.spawn(async move { ask(&session, &sql).await.len() });
    while !client.is_finished() && started.elapsed() < after {
        std::thread::sleep(LOOK);
    }
    let waited = started.elapsed();
    let over = client.is_finished();
    client.abort();
    while alone.metrics().num_alive_tasks() > 0 {
        std::thread::sleep(LOOK);
    }
    let left = (!over).then(|| started.elapsed() - waited);
    Departed { waited, left }
}
