//! Where log lines go: standard error, so that standard output stays a program's.
//!
//! `VITALSEAL_LOG` takes the usual directives (`info`, `vitalseal_ingest=debug`, …) for vitalseal's own
//! crates. At no level, `trace` included, does a line show a reading, a name or a key: our types that hold
//! them have no such `Debug`, and the crates below us are not heard at all, because a SQL parser, a query
//! planner and a database driver log the very text and literals that pass through them.

use std::env::{self, VarError};
use std::io::IsTerminal as _;

use tracing::Metadata;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

const VARIABLE: &str = "VITALSEAL_LOG";

/// Starts logging for this process; a second call changes nothing.
///
/// Colours are for a terminal only: in a file or a journal they would be noise.
pub fn start(default: &str) {
    let (levels, wrong) = levels(env::var(VARIABLE), default);
    if let Some(wrong) = wrong {
        eprintln!("vitalseal: {VARIABLE} {wrong}; logging at `{default}`");
    }
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter_fn(is_ours));
    let _ = tracing_subscriber::registry()
        .with(levels)
        .with(lines)
        .try_init();
}

/// The levels asked for, or the default ones and what is wrong with those asked for.
fn levels(asked: Result<String, VarError>, default: &str) -> (EnvFilter, Option<String>) {
    let wrong = match asked {
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => Some("is not UTF-8".to_owned()),
        Ok(asked) if asked.trim().is_empty() => None,
        Ok(asked) => match EnvFilter::try_new(&asked) {
            Ok(levels) => return (levels, None),
            Err(error) => Some(format!("is not understood ({error}): {asked:?}")),
        },
    };
    (EnvFilter::new(default), wrong)
}

/// Whether a line comes from one of vitalseal's own crates.
fn is_ours(line: &Metadata<'_>) -> bool {
    line.target().starts_with("vitalseal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_levels_are_reported_and_replaced_by_the_default() {
        let (levels_used, wrong) = levels(Ok("vitalseal_ingest=loud".to_owned()), "info");
        assert_eq!(levels_used.to_string(), "info");
        assert!(wrong.unwrap().contains("vitalseal_ingest=loud"));
    }

    #[test]
    fn levels_that_are_understood_or_absent_are_no_cause_for_a_warning() {
        let (levels_used, wrong) = levels(Ok("vitalseal_ingest=debug".to_owned()), "info");
        assert_eq!(levels_used.to_string(), "vitalseal_ingest=debug");
        assert_eq!(wrong, None);
        for absent in [Err(VarError::NotPresent), Ok(String::new())] {
            let (levels_used, wrong) = levels(absent, "warn");
            assert_eq!(levels_used.to_string(), "warn");
            assert_eq!(wrong, None);
        }
    }
}
