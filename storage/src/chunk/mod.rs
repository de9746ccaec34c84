//! Sealed chunks: what compaction makes of the messages of one patient in one bucket of time.
//!
//! ```text
//! ChunkRow ── said of it, encrypted with the file: patient, bucket, times, counts, signals, devices
//!    ├─ sealed    under the patient's key    readings: messages │ series: what they amount to │ values │ times │ messages
//!    │                                       or waveforms: messages │ stretches │ samples
//!    └─ evidence  under the store's key      the at-rest envelopes, bit for bit
//! ```
//!
//! Each file draws what it writes: `readings.rs`, `waveforms.rs`, `evidence.rs`, `devices.rs`. The parts of a plaintext are
//! `head.rs`, which binds what is sealed to its evidence, `messages.rs`, and columns of `values.rs`, `times.rs` and
//! `runs.rs`, all of them integers that `pack.rs` packs. How a plaintext is sealed, and what its AAD binds, is drawn in
//! `keys/blob.rs` of the crypto crate.
//!
//! What stands here are formats, as pure functions: bytes in, bytes out, no key, no file, no clock. What never may is an
//! error, a `Debug` text or a panic with a value in it.

mod build;
mod bytes;
mod devices;
mod error;
mod evidence;
mod head;
mod lanes;
mod messages;
mod pack;
mod pad;
mod quiet;
mod readings;
mod row;
mod runs;
mod stats;
mod times;
mod values;
mod waveforms;
mod wiped;

#[cfg(test)]
mod tests;

pub use self::build::ReadingsBuilder;
pub use self::devices::{DeviceSummary, Devices};
pub use self::error::{ChunkError, MAX_MESSAGES, MAX_READINGS};
pub use self::evidence::{Evidence, EvidenceBuilder, MAX_EVIDENCE_BYTES, Noted};
pub use self::head::evidence_of;
pub use self::messages::{MessageMeta, Messages};
pub use self::pad::padded_length;
pub use self::readings::{Readings, Series};
pub use self::row::ChunkRow;
pub use self::stats::Stats;
pub use self::waveforms::{WaveformRow, Waveforms, WaveformsBuilder};

/// Version of what a chunk's sealed columns are: bound into each of them. Each layout begins with a version of its own.
pub const SCHEMA_VERSION: u8 = 1;
