//! The Merkle tree between a table of hashes and the arithmetic of `tlog_tiles`.
//!
//! Hashes are stored in the dense order of Crosby and Wallach that `stored_hash_index(level, n)` computes. Adding a
//! record needs only the *frontier*: the roots of the complete subtrees on the right edge, at most one per bit of the size.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tlog_tiles::tlog::{
    Error, Hash, HashReader, record_hash, stored_hash_index, stored_hashes_for_record_hash,
    sub_tree_index, tree_hash,
};

use super::AuditLogError;

/// The right edge of the tree: enough to append and to know the root.
#[derive(Clone)]
pub(super) struct Frontier {
    size: u64,
    hashes: KnownHashes,
}

impl Frontier {
    /// The frontier of the empty tree.
    pub(super) fn empty() -> Self {
        Self {
            size: 0,
            hashes: KnownHashes::default(),
        }
    }

    /// The stored-hash indexes that the frontier of a tree of `size` records consists of.
    pub(super) fn indexes(size: u64) -> Vec<u64> {
        if size == 0 {
            Vec::new()
        } else {
            sub_tree_index(0, size, Vec::new())
        }
    }

    /// A frontier from hashes that were stored.
    pub(super) fn from_stored(size: u64, hashes: KnownHashes) -> Self {
        Self { size, hashes }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf and returns what must be stored with it: consecutive hashes and the index of the first.
    pub(super) fn append(&mut self, leaf: &[u8]) -> Result<(u64, Vec<Hash>), AuditLogError> {
        let first = stored_hash_index(0, self.size);
        let new = stored_hashes_for_record_hash(self.size, record_hash(leaf), &self.hashes)
            .map_err(tree_error)?;
        for (index, hash) in (first..).zip(&new) {
            self.hashes.0.insert(index, *hash);
        }
        self.size += 1;
        let keep = Self::indexes(self.size);
        self.hashes.0.retain(|index, _| keep.contains(index));
        Ok((first, new))
    }

    /// The root hash, RFC 6962 §2.1.
    pub(super) fn root(&self) -> Result<Hash, AuditLogError> {
        tree_hash(self.size, &self.hashes).map_err(tree_error)
    }
}

/// Hashes that were loaded before the arithmetic asks for them.
#[derive(Clone, Default)]
pub(super) struct KnownHashes(pub(super) HashMap<u64, Hash>);

impl HashReader for KnownHashes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        indexes
            .iter()
            .map(|index| self.0.get(index).copied().ok_or(Error::IndexesNotInTree))
            .collect()
    }
}

/// Notes which hashes a computation would read. The library reads synchronously and our table asynchronously, so a proof
/// is computed twice: once to learn the indexes, once with the hashes at hand.
#[derive(Default)]
pub(super) struct WantedHashes(RefCell<Vec<u64>>);

impl WantedHashes {
    pub(super) fn into_indexes(self) -> Vec<u64> {
        self.0.into_inner()
    }
}

impl HashReader for WantedHashes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        self.0.borrow_mut().extend_from_slice(indexes);
        Err(Error::IndexesNotInTree)
    }
}

pub(super) fn tree_error(cause: Error) -> AuditLogError {
    AuditLogError::Tree(Arc::new(cause))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};
    use tlog_tiles::tlog::EMPTY_HASH;

    use super::*;

    /// RFC 6962 §2.1 written down as the RFC does, recursively over all leaves.
    fn rfc6962(leaves: &[Vec<u8>]) -> [u8; 32] {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => Sha256::new()
                .chain_update([0])
                .chain_update(leaf)
                .finalize()
                .into(),
            _ => {
                let k = (leaves.len()).next_power_of_two() / 2;
                Sha256::new()
                    .chain_update([1])
                    .chain_update(rfc6962(&leaves[..k]))
                    .chain_update(rfc6962(&leaves[k..]))
                    .finalize()
                    .into()
            }
        }
    }

    #[test]
    fn the_frontier_agrees_with_the_definition_at_every_size() {
        let mut frontier = Frontier::empty();
        assert_eq!(frontier.root().unwrap(), EMPTY_HASH);
        let mut leaves = Vec::new();
        for n in 0_u32..130 {
            let leaf = n.to_be_bytes().to_vec();
            frontier.append(&leaf).unwrap();
            leaves.push(leaf);
            assert_eq!(
                frontier.root().unwrap().0,
                rfc6962(&leaves),
                "size {}",
                n + 1
            );
            assert!(
                frontier.hashes.0.len() <= 8,
                "the frontier stays logarithmic"
            );
        }
    }
}
