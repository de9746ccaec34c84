//! Private keys that stay where they are.

use std::error::Error;
use std::fmt::Debug;

/// A signing key in a hardware module, or on another machine: the authority's (P-256) or the audit log's (Ed25519).
///
/// Whoever uses one checks every signature before it goes anywhere, so an implementation cannot pass off another key, or
/// a fault of its module, as this one.
pub trait RemoteSigner: Send + Sync + Debug {
    /// The public key: 65 bytes SEC 1 (`04 || x || y`) for P-256, 32 bytes (RFC 8032) for Ed25519.
    fn public(&self) -> &[u8];

    /// Signs `message`: ECDSA with SHA-256 as `r || s`, or pure Ed25519. May block, since it may be a network away.
    ///
    /// # Errors
    /// Whatever kept the key from signing, for people: what was attempted, where, and why it failed.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>>;
}
