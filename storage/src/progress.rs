//! How far a long work on the store is, for whoever watches it.
//!
//! Never here: a patient, a value. What is worked on is named by its file or its kind.

/// Hears how far a long work is. Called often, and never waited for: whoever is slow misses steps.
pub trait Progress: Send + Sync {
    /// `done` of `of` steps are done, and `what` comes next. `of` may grow while the work goes on.
    fn step(&self, done: u64, of: u64, what: &str);
}

/// Hears nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn step(&self, _: u64, _: u64, _: &str) {}
}
