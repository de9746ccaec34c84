//! How a long command shows how far it is: a bar on a terminal, else a line for each tenth. Always on standard error:
//! standard output is the answer's.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vitalseal_storage::Progress;

/// Shows steps to a person.
#[derive(Debug)]
pub(crate) struct Shown {
    to: To,
}

#[derive(Debug)]
enum To {
    Bar(ProgressBar),
    /// Tenths that were told of, of so many steps.
    Lines(Mutex<Option<(u64, u64)>>),
    Nobody,
}

impl Shown {
    /// A quiet one shows nothing.
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            return Self { to: To::Nobody };
        }
        if !std::io::stderr().is_terminal() {
            return Self {
                to: To::Lines(Mutex::default()),
            };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { to: To::Bar(bar) }
    }
}

impl Progress for Shown {
    fn step(&self, done: u64, of: u64, what: &str) {
        match &self.to {
            To::Bar(bar) => {
                bar.set_length(of);
                bar.set_position(done);
                bar.set_message(what.to_owned());
            }
            To::Lines(told) => {
                let now = (done.saturating_mul(10).checked_div(of).unwrap_or(0), of);
                // A poisoned lock only costs a line.
                let Ok(mut told) = told.lock() else { return };
                if *told != Some(now) {
                    *told = Some(now);
                    eprintln!("{:>3} %  {what}", now.0 * 10);
                }
            }
            To::Nobody => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let To::Bar(bar) = &self.to {
            bar.finish_and_clear();
        }
    }
}
