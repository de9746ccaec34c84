//! What the fuzz targets do with their input: one function each.
//!
//! Each says whether the input was taken, and panics when an invariant is broken. The same files are part of the
//! tests of `crypto/` and `vitals/`, which replay the seeds of `corpus/` on every run: so they may use nothing that
//! those crates' tests do not have.

pub mod certificate;
pub mod clone_proof;
pub mod envelope;
pub mod payload;
