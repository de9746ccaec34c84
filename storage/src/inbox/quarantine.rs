//! Refused messages, kept sealed.
//!
//! A refused message may be anything, cleartext readings of a broken device included, so it is
//! sealed before SQLite sees it: under the KEK of the patient whom it is about, so that every copy of
//! it ends with that key, and only without such a patient under the quarantine page key. The context
//! binds the body to its row:
//!
//! ```text
//! context = "vitalseal/quarantine/1" || 0x00 || device || 0x00 || received_at, i64 µs BE
//! ```
//!
//! It is about the patient that it names, if it parses as an envelope, and else about the one whom
//! its device measures.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use jiff::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use vitalseal_crypto::{
    DeviceId, Kek, Kid, MAX_ENVELOPE_BYTES, P256Point, SenderKeyId, Signed, SubjectPseudonym,
    default_backend,
};
use zeroize::Zeroizing;

use super::senders::Remembered;
use super::{InboxError, evidence};
use crate::database::{number, us};
use crate::ports::QuarantineReason;
use crate::registry::PatientState;
use crate::store::{Store, StoreError};

/// Longest kept detail: it is one of our own sentences, never a peer's text at length.
const DETAIL_CHARS: usize = 512;

/// Kept bodies together, unless set otherwise: 2,000 of the largest envelopes or some 500,000 ordinary ones, which is
/// more than anybody reviews, and little beside the inbox.
const QUARANTINE_BYTES: i64 = 512 << 20;

/// A refused message that is to be kept aside.
#[derive(Clone)]
pub struct NewQuarantine {
    /// Device that the TLS session vouched for.
    pub device: DeviceId,
    /// Boot and sequence, as far as they could be read. The same refusal of the same bytes is kept once.
    pub message: Option<(u64, u64)>,
    /// Why.
    pub reason: QuarantineReason,
    /// More words, without any content of the message.
    pub detail: String,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The patient whom the device measures, when the message itself cannot be read for one: the body
    /// goes with that patient's erasure.
    pub subject: Option<SubjectPseudonym>,
    /// The message as it came, or as it would be stored; sealed before it is written, and not written about an erased
    /// patient.
    pub body: Option<Vec<u8>>,
    /// Of a message that its device signed, that opened, and whose body is as it would be stored: SHA-256 of the
    /// countersigned bytes. A review may release it, so it is never given up for want of room.
    pub releasable: Option<[u8; 32]>,
    /// Of a message that opened, the session key that it carried in full, and the name that later messages may give it:
    /// the device takes it to be known once this one is acknowledged.
    pub introduced: Option<(SenderKeyId, P256Point)>,
    /// Its place in the chain, if its device signed it and that place is not what is wrong with it.
    pub place: Option<Place>,
    /// Of a fork, the encoded proof: kept with it, once a boot.
    pub clone_proof: Option<Vec<u8>>,
}

impl fmt::Debug for NewQuarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("NewQuarantine");
        out.field("device", &self.device)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Of a refused message that its device signed: what the message after it may name, so that one fault in a backlog does
/// not take the proof of its order from all that follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// SHA-256 of the countersigned bytes.
    pub signed_hash: [u8; 32],
    /// Signed hash of the message before it, if it names one.
    pub previous: Option<[u8; 32]>,
    /// As [`Required::link`](super::Required::link): if so, the place counts only when the chain proves it.
    pub must_link: bool,
}

impl Store {
    /// Keeps a refused message aside; resolves after the commit is on disk.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn quarantine(&self, mut refused: NewQuarantine) -> Result<(), StoreError> {
        let body = refused.body.take().map(Zeroizing::new);
        let size = body.as_ref().map_or(0, |b| b.len());
        // What is wrapped for its patient is so differently each time that it comes.
        let digest = refused.releasable.unwrap_or_else(|| {
            let came = body.as_ref().map_or(&[][..], |b| b);
            default_backend().sha256(&[came])
        });
        // What no envelope can be is counted, not kept: a device must not fill the disk with it.
        let body = body.filter(|b| b.len() <= MAX_ENVELOPE_BYTES);
        let named = body.as_ref().and_then(|b| Signed::decode(b).ok());
        let subject = named
            .map(|r| r.header().subject.clone())
            .or(refused.subject.take());
        let keys = match &subject {
            Some(subject) => self.keys.patient_keys(subject).await?,
            None => None,
        };
        let (body, size) = match &subject {
            // Nothing new is kept about whoever was erased.
            Some(subject) if keys.is_none() && self.is_erased(subject).await? => (None, 0),
            _ => (body, size),
        };
        // What can never be stored is not worth a place that something else needs: its row says all that there is to
        // say. What could be stored after a review must not be lost, so its device keeps it until there is room.
        let body = match body {
            Some(_) if self.inbox.memory.room.is_full(size) => {
                if refused.releasable.is_some() && !self.is_kept(&refused, &digest).await? {
                    return Err(InboxError::QuarantineFull.into());
                }
                None
            }
            body => body,
        };
        let kek = keys.as_ref().map(|keys| keys.current());
        let received_at_us = us(refused.received_at);
        let context = context(refused.device.as_str(), received_at_us);
        let sealed = body
            .as_ref()
            .map(|body| match kek {
                Some(kek) => kek.seal(&context, body),
                None => self.inbox.quarantine_key.seal(&context, body),
            })
            .transpose()
            .map_err(InboxError::from)?;
        let counter = |n: u64| number(n).ok();
        let refused = SealedQuarantine {
            device: refused.device,
            counters: refused
                .message
                .and_then(|(b, s)| Some((counter(b)?, counter(s)?))),
            reason: refused.reason,
            detail: refused.detail.chars().take(DETAIL_CHARS).collect(),
            received_at_us,
            size: i64::try_from(size).unwrap_or(i64::MAX),
            digest,
            subject,
            kid: kek.map(Kek::kid).cloned(),
            body: sealed,
            introduced: refused.introduced,
            place: refused.place,
            clone_proof: refused.clone_proof,
        };
        Ok(self.inbox.keep_aside(refused).await?)
    }

    /// Whether this only repeats a row, which takes no room.
    async fn is_kept(
        &self,
        refused: &NewQuarantine,
        digest: &[u8; 32],
    ) -> Result<bool, InboxError> {
        let Some((boot, sequence)) = refused.message else {
            return Ok(false);
        };
        let kept = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM quarantine WHERE device = $1 AND boot = $2 \
             AND sequence = $3 AND reason = $4 AND digest = $5)",
        )
        .bind(refused.device.as_str())
        .bind(number(boot)?)
        .bind(number(sequence)?)
        .bind(refused.reason.as_str())
        .bind(digest.as_slice());
        Ok(kept.fetch_one(self.inbox.db.pool()).await?)
    }

    /// A pseudonym that never existed was not erased.
    async fn is_erased(&self, subject: &SubjectPseudonym) -> Result<bool, StoreError> {
        let row = self.registry.patient(subject).await?;
        Ok(row.is_some_and(|row| row.state == PatientState::Erased))
    }
}

pub(super) struct SealedQuarantine {
    pub(super) device: DeviceId,
    counters: Option<(i64, i64)>,
    reason: QuarantineReason,
    detail: String,
    received_at_us: i64,
    size: i64,
    digest: [u8; 32],
    pub(super) subject: Option<SubjectPseudonym>,
    kid: Option<Kid>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) introduced: Option<Remembered>,
    place: Option<Place>,
    clone_proof: Option<Vec<u8>>,
}

pub(super) fn context(device: &str, received_at_us: i64) -> Vec<u8> {
    let instant = received_at_us.to_be_bytes();
    [
        b"vitalseal/quarantine/1\0",
        device.as_bytes(),
        b"\0",
        &instant,
    ]
    .concat()
}

impl SealedQuarantine {
    /// Returns the bytes by which the kept bodies grew.
    pub(super) async fn insert(&self, conn: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
        let signed_hash = match &self.place {
            Some(place) => self.proven(place, &mut *conn).await?,
            None => None,
        };
        let times: i64 = sqlx::query_scalar(
            "INSERT INTO quarantine (device, boot, sequence, reason, detail, received_at_us, times, size, \
             digest, subject, kid, body, signed_hash, state) \
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $9, $10, $11, $12, 'held') \
             ON CONFLICT DO UPDATE SET times = times + 1 RETURNING times",
        )
        .bind(self.device.as_str())
        .bind(self.counters.map(|(boot, _)| boot))
        .bind(self.counters.map(|(_, sequence)| sequence))
        .bind(self.reason.as_str())
        .bind(&self.detail)
        .bind(self.received_at_us)
        .bind(self.size)
        .bind(self.digest.as_slice())
        .bind(self.subject.as_ref().map(SubjectPseudonym::as_str))
        .bind(self.kid.as_ref().map(Kid::as_bytes))
        .bind(self.body.as_deref())
        .bind(signed_hash.map(|hash| hash.to_vec()))
        .fetch_one(&mut *conn)
        .await?;
        if let (Some(proof), Some((boot, _))) = (&self.clone_proof, self.counters) {
            let device = self.device.as_str();
            evidence::keep(device, boot, self.received_at_us, proof, conn).await?;
        }
        let is_new = times == 1 && self.body.is_some();
        Ok(if is_new { self.size } else { 0 })
    }

    /// Its signed hash, if the message after it may name it: it is fresh, the first of its boot, or names a message that
    /// is stored or was itself kept aside with its place proven.
    async fn proven(
        &self,
        place: &Place,
        conn: &mut SqliteConnection,
    ) -> Result<Option<[u8; 32]>, sqlx::Error> {
        let Some((boot, sequence)) = self.counters else {
            return Ok(None);
        };
        if !place.must_link || sequence == 0 {
            return Ok(Some(place.signed_hash));
        }
        let Some(previous) = place.previous else {
            return Ok(None);
        };
        let holds: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM seen WHERE device = $1 AND boot = $2 AND sequence = $3 \
             AND signed_hash = $4) OR EXISTS (SELECT 1 FROM quarantine WHERE device = $1 \
             AND boot = $2 AND sequence = $3 AND signed_hash = $4)",
        )
        .bind(self.device.as_str())
        .bind(boot)
        .bind(sequence - 1)
        .bind(previous.as_slice())
        .fetch_one(conn)
        .await?;
        Ok(holds.then_some(place.signed_hash))
    }
}

/// Room for kept bodies; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<RoomState>);

#[derive(Debug)]
struct RoomState {
    kept_bytes: AtomicI64,
    limit_bytes: AtomicI64,
}

impl Room {
    pub(super) async fn load(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        let kept: i64 = sqlx::query_scalar(
            "SELECT COALESCE(SUM(size), 0) FROM quarantine WHERE body IS NOT NULL",
        )
        .fetch_one(pool)
        .await?;
        Ok(Self(Arc::new(RoomState {
            kept_bytes: AtomicI64::new(kept),
            limit_bytes: AtomicI64::new(QUARANTINE_BYTES),
        })))
    }

    pub(super) fn limit(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.limit_bytes.store(bytes, Relaxed);
    }

    /// After the commit.
    pub(super) fn change(&self, bytes: i64) {
        self.0.kept_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        u64::try_from(self.0.kept_bytes.load(Relaxed)).unwrap_or(0)
    }

    /// Whether a body of this size has no room. Messages on their way at the same time may pass together: the limit is
    /// overshot by what is in flight at most.
    pub(super) fn is_full(&self, size: usize) -> bool {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let after = self.0.kept_bytes.load(Relaxed).saturating_add(size);
        after > self.0.limit_bytes.load(Relaxed)
    }
}
