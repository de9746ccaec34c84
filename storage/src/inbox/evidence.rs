//! Proofs that a device's key is in two hands.
//!
//! A proof is kept when the fork is found, not made when it is asked for: by then an erasure may have
//! taken one of the two messages. It holds no recipient, so it opens nothing and may outlive the
//! patient. One a boot is kept, and a few a device: the second proves no more than the first, and a
//! clone that sends much must neither fill the disk with it nor keep the server searching.

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection};
use vitalseal_crypto::{DeviceId, MessageId};

use super::{Inbox, InboxError};
use crate::database::{at, count, number};
use crate::ports::QuarantineReason;

/// A kept proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptProof {
    /// Boot that both messages claim.
    pub boot: u64,
    /// When the second of them came.
    pub found_at: Timestamp,
    /// The encoded [`CloneProof`](vitalseal_crypto::CloneProof).
    pub proof: Vec<u8>,
}

/// Proofs kept against one device, the first ones: a boot number is whatever a clone writes there.
const KEPT: i64 = 16;

/// Keeps a proof, unless there is one of this boot, or enough.
pub(super) async fn keep(
    device: &str,
    boot: i64,
    found_at_us: i64,
    proof: &[u8],
    conn: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO clone_proofs (device, boot, found_at_us, proof) SELECT $1, $2, $3, $4 \
         WHERE (SELECT COUNT(*) FROM clone_proofs WHERE device = $1) < $5 ON CONFLICT DO NOTHING",
    )
    .bind(device)
    .bind(boot)
    .bind(found_at_us)
    .bind(proof)
    .bind(KEPT)
    .execute(conn)
    .await
    .map(drop)
}

impl Inbox {
    /// Whether a proof from this fork would be kept and was not looked for before.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn wants_proof(&self, fork: &MessageId) -> Result<bool, InboxError> {
        let wanted = sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT 1 FROM clone_proofs WHERE device = $1 AND boot = $2) \
             AND NOT EXISTS (SELECT 1 FROM quarantine \
             WHERE device = $1 AND boot = $2 AND sequence = $3 AND reason = $4) \
             AND (SELECT COUNT(*) FROM clone_proofs WHERE device = $1) < $5",
        )
        .bind(fork.device.as_str())
        .bind(number(fork.boot)?)
        .bind(number(fork.sequence)?)
        .bind(QuarantineReason::Fork.as_str())
        .bind(KEPT);
        Ok(wanted.fetch_one(self.database().pool()).await?)
    }

    /// The proofs against this device, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn clone_proofs(&self, device: &DeviceId) -> Result<Vec<KeptProof>, InboxError> {
        let rows = sqlx::query(
            "SELECT boot, found_at_us, proof FROM clone_proofs WHERE device = $1 ORDER BY found_at_us",
        )
        .bind(device.as_str())
        .fetch_all(self.database().pool())
        .await?;
        let mut proofs = Vec::with_capacity(rows.len());
        for row in rows {
            proofs.push(KeptProof {
                boot: count(row.try_get("boot")?)?,
                found_at: at(row.try_get("found_at_us")?)?,
                proof: row.try_get("proof")?,
            });
        }
        Ok(proofs)
    }
}
