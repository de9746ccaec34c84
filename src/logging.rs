//! Where log lines go: standard error, so that standard output stays a program's.
//!
//! `VITALSEAL_LOG` takes the usual directives (`info`, `vitalseal_ingest=debug`, …) for vitalseal's own
//! crates. At no level, `trace` included, does a line show a reading, a name or a key: our types that hold
//! them have no such `Debug`, and the crates below us are not heard at all, because a SQL parser, a query
//! planner and a database driver log the very text and literals that pass through them.

use std::io::IsTerminal as _;

use tracing::Metadata;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// Starts logging for this process; a second call changes nothing.
pub fn start(default: &str) {
    let levels =
        EnvFilter::try_from_env("VITALSEAL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(filter_fn(is_ours));
    let _ = tracing_subscriber::registry()
        .with(levels)
        .with(lines)
        .try_init();
}

/// Whether a line comes from one of vitalseal's own crates.
fn is_ours(line: &Metadata<'_>) -> bool {
    line.target().starts_with("vitalseal")
}
