//! What a leaf of the tree is: the canonical JSON of one record.
//!
//! Canonical means: compact JSON of a typed record whose members always come in declaration order, UTF-8, times in
//! RFC 3339 with `Z`. The very bytes that were hashed are stored and never re-encoded, so a later version of the types
//! does not disturb the tree.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tlog_tiles::tlog::record_hash;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord};

use super::AuditLogError;

/// One record and its place in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Number of the record, from 0 without gaps.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    #[serde(flatten)]
    pub event: AuditEvent,
}

impl AuditEntry {
    /// Reads the stored bytes of record `seq`.
    pub(super) fn decode(seq: u64, leaf: &str) -> Result<Self, AuditLogError> {
        let record: AuditRecord =
            serde_json::from_str(leaf).map_err(|source| AuditLogError::Decode { seq, source })?;
        Ok(Self {
            seq,
            at: record.at,
            actor: record.actor,
            event: record.event,
        })
    }
}

/// The bytes that stand for a record in the tree.
///
/// # Errors
///
/// When the record can not be written as JSON, which no record type of ours causes.
pub(crate) fn canonical_leaf(record: &AuditRecord) -> Result<String, serde_json::Error> {
    serde_json::to_string(record)
}

impl AuditEntry {
    /// The hash that stands for this entry in the tree, in hexadecimal.
    ///
    /// # Errors
    ///
    /// When the entry can not be written in canonical form.
    pub fn leaf_hash(&self) -> Result<String, AuditLogError> {
        let record = AuditRecord {
            at: self.at,
            actor: self.actor.clone(),
            event: self.event.clone(),
        };
        let leaf = canonical_leaf(&record).map_err(|e| AuditLogError::Encode(Arc::new(e)))?;
        Ok(hex::encode(record_hash(leaf.as_bytes()).0))
    }
}
