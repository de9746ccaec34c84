//! Where log lines go: standard error, so that standard output stays a program's.
//!
//! `VITALSEAL_LOG` takes the usual directives (`info`, `vitalseal_ingest=debug`, …). No level, `trace`
//! included, shows a reading, a name or a key: the types that hold them have no such `Debug`.

use tracing_subscriber::EnvFilter;

/// Starts logging for this process; a second call changes nothing.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_env("VITALSEAL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
