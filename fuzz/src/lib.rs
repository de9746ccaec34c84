//! What the fuzz targets do with their input: one function each.
//!
//! Each says whether the input was taken, and panics when an invariant is broken. The same files are part of the
//! tests of `crypto/`, `vitals/` and `ingest/`, which replay the seeds of `corpus/` on every run: so they may use nothing
//! that those crates' tests do not have.

pub mod certificate;
pub mod clone_proof;
/// The edge's own files, without the server around them: what reads a stranger's bytes needs nothing else.
#[path = "../../ingest/src/edge"]
#[allow(dead_code, unused_imports, reason = "the server uses the rest")]
mod edge {
    pub(crate) mod closing;
    pub(crate) mod codec;
    pub(crate) mod frame;
    pub(crate) mod packet;
}
pub mod envelope;
pub mod mqtt;
pub mod payload;
