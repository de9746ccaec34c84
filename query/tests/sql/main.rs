//! SQL against a real store: what comes back, what never does, and what is written down about it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fixture that fails is a failed test"
)]

mod audit;
mod chunks;
mod door;
mod losses;
mod refusals;
mod said;
mod served;
mod stored;
mod visibility;
mod ward;
