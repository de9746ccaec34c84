//! Signed tree heads, `c2sp.org/tlog-checkpoint`.

use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tlog::Hash;

use super::AuditLogError;
use super::identity::{AuditIdentity, AuditKey, NoteRefused};

/// A tree head whose signature was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// Number of records below this head.
    pub size: u64,
    /// Root hash over them.
    pub root: [u8; 32],
}

impl SignedCheckpoint {
    /// Checks the signature and the origin and reads the head.
    ///
    /// # Errors
    ///
    /// When the note is malformed, not signed by `key`, or the head of another log.
    pub fn open(note: &str, key: &AuditKey) -> Result<Self, NoteRefused> {
        let text = key.open(note)?;
        let head = Checkpoint::from_bytes(text.as_bytes()).map_err(|_| NoteRefused::Malformed)?;
        if head.origin() != key.origin() {
            return Err(NoteRefused::Signature(key.origin().to_owned()));
        }
        Ok(Self {
            size: head.size(),
            root: head.hash().0,
        })
    }
}

/// Signs a head.
pub(super) fn sign(
    identity: &AuditIdentity,
    size: u64,
    root: Hash,
) -> Result<String, AuditLogError> {
    identity.sign(&format!("{}\n{size}\n{root}\n", identity.key().origin()))
}
