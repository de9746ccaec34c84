//! What the fuzz targets do with their input: one function each.
//!
//! Each says whether the input was taken, and panics when an invariant is broken. The same files are part of the
//! tests of `crypto/`, `vitals/`, `ingest/` and `storage/`, which replay the seeds of `corpus/` on every run: so they may use nothing
//! that those crates' tests do not have.

pub mod certificate;
/// The formats of chunks, without the store around them.
#[path = "../../storage/src/chunk"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the store uses the rest"
)]
mod chunk {
    mod build;
    mod bytes;
    mod devices;
    mod error;
    mod head;
    mod lanes;
    mod messages;
    mod pack;
    mod pad;
    mod quiet;
    mod readings;
    mod runs;
    mod stats;
    mod times;
    mod values;
    mod waveforms;
    mod wiped;

    pub(crate) use self::build::ReadingsBuilder;
    pub(crate) use self::devices::Devices;
    pub(crate) use self::error::ChunkError;
    pub(crate) use self::readings::Readings;
    pub(crate) use self::waveforms::{Waveforms, WaveformsBuilder};
}
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
pub mod stored;
