//! What an erasure leaves behind, said in the certificate so that nobody finds out later.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::{KeyEpoch, Kid};
use vitalseal_storage::RecipientRow;

/// Something that is left, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "residual", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Residual {
    /// Messages that were recorded on the network before the erasure are sealed to an envelope key of the server: whoever
    /// obtains that private key can open the recording. The server destroys the key when it first runs after the end of its
    /// epoch.
    CapturedTraffic {
        /// Epoch of the envelope key.
        epoch: KeyEpoch,
        /// Its id.
        kid: Kid,
        /// When its epoch ends.
        ends_at: Timestamp,
    },
    /// Sealed messages without a key stay in the files until a vacuum rewrites these, and a while longer.
    SealedCiphertext {
        /// Messages.
        messages: u64,
    },
    /// Backups of the data directory from before hold wraps that end in the destroyed root.
    Backups {
        /// The root epoch that they end in.
        root_epoch_destroyed: KeyEpoch,
        /// Who held it.
        root_provider: String,
    },
    /// The audit log keeps, under the pseudonym, that the patient was treated here and who looked (GDPR 5(2), 17(3)(b), (e)).
    AuditTrail {},
}

impl Residual {
    /// What is left after an erasure at `erased_at`.
    pub(super) fn after(
        recipients: &[RecipientRow],
        erased_at: Timestamp,
        messages: u64,
        root_epoch_destroyed: KeyEpoch,
        root_provider: &str,
    ) -> Vec<Self> {
        // Only what had begun can have been used for the patient's messages.
        let traffic = recipients
            .iter()
            .filter(|row| row.not_before <= erased_at)
            .map(|row| Self::CapturedTraffic {
                epoch: row.epoch,
                kid: row.kid.clone(),
                ends_at: row.not_after,
            });
        let mut residuals: Vec<Self> = traffic.collect();
        if messages > 0 {
            residuals.push(Self::SealedCiphertext { messages });
        }
        residuals.push(Self::Backups {
            root_epoch_destroyed,
            root_provider: root_provider.to_owned(),
        });
        residuals.push(Self::AuditTrail {});
        residuals
    }
}

impl fmt::Display for Residual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CapturedTraffic { epoch, kid, ends_at } => write!(
                f,
                "Network traffic recorded before the erasure and sealed to envelope key {kid} (epoch {epoch}) can be \
                 opened by whoever obtains that key, for which a copy of the data directory and the root provider's cover \
                 of the key are needed. The cover is destroyed, and with it the key in every copy, not before {ends_at}, \
                 when the server next runs after that."
            ),
            Self::SealedCiphertext { messages } => write!(
                f,
                "{messages} sealed messages, without a key, stay in the store's files until the next vacuum rewrites these \
                 and the files that it replaced are removed; the audit log tells when. A bucket that keeps versions of what \
                 was removed keeps these too, until it is told otherwise."
            ),
            Self::Backups { root_epoch_destroyed, root_provider } => write!(
                f,
                "Copies of the data directory and key snapshots from before hold key wraps that end in root epoch \
                 {root_epoch_destroyed}, which was destroyed by the provider \"{root_provider}\"."
            ),
            Self::AuditTrail {} => f.write_str(
                "The audit log keeps, under the pseudonym only, what was done with the patient's data and by whom.",
            ),
        }
    }
}

/// What the certificate does not say, in so many words.
pub(super) fn not_claimed() -> Vec<String> {
    [
        "That no copy of the destroyed root key was made outside vitalseal (by whoever could read where the provider keeps \
         it): vitalseal cannot know of one.",
        "That results which left vitalseal before (query results, exports, print-outs, screens) are gone.",
        "That devices or gateways hold nothing: a device's own memory and outbox are not vitalseal's to erase.",
        "That refused messages of the patient are gone which could not be read as envelopes and came from a device that was \
         assigned to nobody: no patient is known for them, and they are kept sealed in the quarantine under a key that this \
         erasure does not replace.",
        "That the remaining ciphertext is anonymous: it is out of reach as long as AES-256 and the random generator hold.",
    ]
    .map(str::to_owned)
    .to_vec()
}
