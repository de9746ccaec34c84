//! SQL against a real store: what comes back, what never does, and what is written down about it.

mod audit;
mod door;
mod refusals;
mod visibility;
mod ward;
