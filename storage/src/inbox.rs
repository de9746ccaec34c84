//! Durable intake and hot tier.
use jiff::Timestamp;
use vitalseal_crypto::{DeviceId, MessageId, SubjectPseudonym};
use zeroize::Zeroizing;

use crate::ports::QuarantineReason;

/// A verified message, already re-wrapped for its patient, that is to be made durable.
#[derive(Clone)]
pub struct Admission {
    /// Device and counters.
    pub message: MessageId,
    /// SHA-256 of the countersigned bytes: tells a replay from a fork.
    pub signed_hash: [u8; 32],
    /// Patient.
    pub subject: SubjectPseudonym,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Earliest instant measured.
    pub first_at: Timestamp,
    /// Latest instant measured.
    pub last_at: Timestamp,
    /// Number of readings inside.
    pub readings: u32,
    /// At-rest COSE envelope.
    pub envelope: Vec<u8>,
}
/// What became of an [`Admission`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// New, and durable now.
    Stored,
    /// The very same signed bytes were admitted before.
    Duplicate,
    /// The counter was used before for other signed bytes: a clone.
    Fork,
}
/// A refused message that is to be kept aside.
#[derive(Clone)]
pub struct NewQuarantine {
    /// Device that the TLS session vouched for.
    pub device: DeviceId,
    /// Boot and sequence, as far as they could be read.
    pub message: Option<(u64, u64)>,
    /// Why.
    pub reason: QuarantineReason,
    /// More words, without any content of the message.
    pub detail: String,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The message as it came; sealed before it is written. `None` for an erased patient.
    pub body: Option<Vec<u8>>,
}
/// A message that was kept aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineRow {
    /// Row number.
    pub id: i64,
    /// Device.
    pub device: DeviceId,
    /// Boot and sequence, as far as they could be read.
    pub message: Option<(u64, u64)>,
    /// Why.
    pub reason: QuarantineReason,
    /// More words.
    pub detail: String,
    /// When it first arrived.
    pub received_at: Timestamp,
    /// Bytes of the message as it came.
    pub size: u64,
    /// How often it came.
    pub times: u64,
}
/// The inbox failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// SQL failed.
    #[error("using the inbox")]
    Sql(#[from] sqlx::Error),
}
/// Handle.
#[derive(Clone, Debug)]
pub struct Inbox {}
impl Inbox {
    /// Makes a message durable; resolves after the commit is on disk.
    /// # Errors
    /// When it is not durable.
    pub async fn admit(&self, admission: Admission) -> Result<Admitted, InboxError> { todo!() }
    /// The signed hash under which this counter was admitted.
    /// # Errors
    /// SQL.
    pub async fn seen(&self, message: &MessageId) -> Result<Option<[u8; 32]>, InboxError> { todo!() }
    /// Keeps a refused message aside; resolves after the commit is on disk.
    /// # Errors
    /// When it is not durable.
    pub async fn quarantine(&self, refused: NewQuarantine) -> Result<(), InboxError> { todo!() }
    /// Newest first.
    /// # Errors
    /// SQL.
    pub async fn quarantined(&self, limit: u32) -> Result<Vec<QuarantineRow>, InboxError> { todo!() }
    /// A kept body, opened.
    /// # Errors
    /// SQL.
    pub async fn quarantined_body(&self, id: i64) -> Result<Option<Zeroizing<Vec<u8>>>, InboxError> { todo!() }
    /// Rows and envelope bytes that wait for the next flush.
    /// # Errors
    /// SQL.
    pub async fn pending(&self) -> Result<(u64, u64), InboxError> { todo!() }
}
