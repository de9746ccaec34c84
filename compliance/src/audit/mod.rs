//! The audit log: what was done, by whom, to what and when, in an order that nobody can change quietly.
//!
//! Every record is a leaf of a Merkle tree (RFC 6962 §2.1 hashing). With each commit the tree's head is signed with
//! the log's own Ed25519 key as a C2SP checkpoint (`c2sp.org/tlog-checkpoint` inside `c2sp.org/signed-note`):
//!
//! ```text
//! hospital.example/vitalseal/audit         origin, also the name of the key
//! 1042                                     number of records
//! qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=   root hash
//!
//! — hospital.example/vitalseal/audit Az3grl…     signature
//! ```
//!
//! Whoever keeps one checkpoint elsewhere (a mail to the data protection officer, a print-out, another system) can later
//! tell whether the log was cut or rewritten below it: [`AuditLog::verify`] takes that checkpoint. Without one kept
//! elsewhere, a thief of the data directory *and* of the signing key could write another history; nothing inside a
//! file can prevent that, and this module does not claim to.
//!
//! What stands in a record is decided by `storage::ports::AuditEvent`: ids, counts, times, hashes, and reasons that an
//! operator typed. Never readings, names of patients, key bytes, or SQL literals.

mod checkpoint;
mod database;
mod error;
mod identity;
mod leaf;
mod log;
mod proof;
mod tree;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use checkpoint::SignedCheckpoint;
pub use error::AuditLogError;
pub use identity::{AuditKey, KeyMalformed, NoteRefused};
pub use leaf::AuditEntry;
pub use log::{AuditLog, CreatedLog};
pub use proof::{InclusionProof, ProofRefused};
pub use verify::{AuditFault, AuditVerification};

pub(crate) use leaf::canonical_leaf;
