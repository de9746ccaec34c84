//! What a watcher sees: on a terminal a bar on standard error, with each step's line above it; elsewhere
//! the lines alone, on standard output. With `--json` nothing: there one object is all that is printed.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Announces each step and how it ended.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Progress {
    /// `steps` is how many there will be; a quiet one says nothing.
    pub(super) fn new(steps: usize, quiet: bool) -> Self {
        // Lines above a bar go where the bar goes; whoever pipes standard output wants them there.
        let watched = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = (!quiet && watched).then(|| {
            let bar = ProgressBar::new(u64::try_from(steps).unwrap_or(u64::MAX));
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {spinner} {msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, quiet }
    }

    /// A step begins.
    pub(super) fn begin(&self, what: &'static str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what);
        }
    }

    /// A step ended.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(super) fn end(&self, ok: bool, name: &str, detail: &str) -> anyhow::Result<()> {
        let line = format!("{}  {name:<12} {detail}", if ok { "ok  " } else { "FAIL" });
        match &self.bar {
            Some(bar) => {
                bar.println(line);
                bar.inc(1);
                Ok(())
            }
            None if self.quiet => Ok(()),
            None => output::line(&line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
