//! Proof that one record is in the log, checkable with nothing but the verifier key.

use serde::{Deserialize, Serialize};
use tlog_tiles::tlog::{Hash, check_record};

use super::identity::{AuditKey, NoteRefused};
use super::{AuditEntry, AuditLogError, SignedCheckpoint};

/// An RFC 6962 §2.1.1 audit path with the signed head that it leads to. The record itself is not in it: its hash is, so
/// that a proof can be shown to somebody who may not see the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// Number of the record.
    pub seq: u64,
    /// Leaf hash of the record, `SHA-256(0x00 ‖ record)`, in hexadecimal.
    pub leaf_hash: String,
    /// Hashes from the leaf's neighbour up to the root's, in hexadecimal.
    pub path: Vec<String>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// Why a proof was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofRefused {
    /// A hash is not 32 bytes of hexadecimal.
    #[error("the proof holds a malformed hash")]
    Malformed,
    /// The checkpoint is not signed by the log's key.
    #[error("the proof's checkpoint is not the log's")]
    Checkpoint(#[source] NoteRefused),
    /// The path does not lead from the leaf to the root.
    #[error("the path does not lead from the record to the checkpoint's root")]
    Path,
}

impl InclusionProof {
    pub(super) fn new(seq: u64, leaf: Hash, path: &[Hash], checkpoint: String) -> Self {
        let path = path.iter().map(|hash| hex::encode(hash.0)).collect();
        Self {
            seq,
            leaf_hash: hex::encode(leaf.0),
            path,
            checkpoint,
        }
    }

    /// Checks the proof and returns the head that the record is below.
    ///
    /// # Errors
    ///
    /// When anything about it does not hold.
    pub fn verify(&self, key: &AuditKey) -> Result<SignedCheckpoint, ProofRefused> {
        let head =
            SignedCheckpoint::open(&self.checkpoint, key).map_err(ProofRefused::Checkpoint)?;
        let leaf = parse(&self.leaf_hash)?;
        // Longer paths do not exist for a size of 64 bits, and are not worth hashing.
        if self.path.len() > 64 {
            return Err(ProofRefused::Path);
        }
        let path = self
            .path
            .iter()
            .map(|hash| parse(hash))
            .collect::<Result<Vec<_>, _>>()?;
        check_record(&path, head.size, Hash(head.root), self.seq, leaf)
            .map_err(|_| ProofRefused::Path)?;
        Ok(head)
    }

    /// Whether the proof is about exactly this entry.
    ///
    /// # Errors
    ///
    /// When the entry can not be written in canonical form.
    pub fn is_about(&self, entry: &AuditEntry) -> Result<bool, AuditLogError> {
        let hash = entry.leaf_hash()?;
        Ok(self.seq == entry.seq && self.leaf_hash == hash)
    }
}

fn parse(text: &str) -> Result<Hash, ProofRefused> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| ProofRefused::Malformed)?;
    Ok(Hash(hash))
}
