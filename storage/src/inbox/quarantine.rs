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

use jiff::Timestamp;
use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, SqliteConnection};
use vitalseal_crypto::{
    DeviceId, Kek, Kid, MAX_ENVELOPE_BYTES, P256Point, Received, SenderKeyId, SubjectPseudonym,
};
use zeroize::Zeroizing;

use super::senders::Remembered;
use super::{InboxError, evidence};
use crate::ports::QuarantineReason;
use crate::registry::PatientState;
use crate::sqlite::{at, count, damaged, number, parsed, us};
use crate::store::{Store, StoreError};

/// Longest kept detail: it is one of our own sentences, never a peer's text at length.
const DETAIL_CHARS: usize = 512;

/// A refused message that is to be kept aside.
#[derive(Clone)]
pub struct NewQuarantine {
    /// Device that the TLS session vouched for.
    pub device: DeviceId,
    /// Boot and sequence, as far as they could be read. The same refusal of the same counters is
    /// kept once.
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
    /// The message as it came; sealed before it is written, and not written about an erased patient.
    pub body: Option<Vec<u8>>,
    /// Of a message that opened, the session key that it carried in full, and the name that later messages may give it:
    /// the device takes it to be known once this one is acknowledged.
    pub introduced: Option<(SenderKeyId, P256Point)>,
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

impl Store {
    /// Keeps a refused message aside; resolves after the commit is on disk.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn quarantine(&self, refused: NewQuarantine) -> Result<(), StoreError> {
        let body = refused.body.map(Zeroizing::new);
        let size = body.as_ref().map_or(0, |b| b.len());
        // What no envelope can be is counted, not kept: a device must not fill the disk with it.
        let body = body.filter(|b| b.len() <= MAX_ENVELOPE_BYTES);
        let named = body.as_ref().and_then(|b| Received::decode(b).ok());
        let subject = named
            .map(|r| r.header().subject.clone())
            .or(refused.subject);
        let keys = match &subject {
            Some(subject) => self.keys.patient_keys(subject).await?,
            None => None,
        };
        let (body, size) = match &subject {
            // Nothing new is kept about whoever was erased.
            Some(subject) if keys.is_none() && self.is_erased(subject).await? => (None, 0),
            _ => (body, size),
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
            subject,
            kid: kek.map(Kek::kid).cloned(),
            body: sealed,
            introduced: refused.introduced,
            clone_proof: refused.clone_proof,
        };
        Ok(self.inbox.keep_aside(refused).await?)
    }

    /// A refused message as it came; `None` when its body was not kept, or its key is gone.
    ///
    /// # Errors
    /// When a database cannot be read or the body does not open.
    pub async fn quarantined_body(
        &self,
        id: i64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let row = sqlx::query(
            "SELECT device, received_at_us, subject, kid, body FROM quarantine WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(self.inbox.db.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let Some(sealed) = row.try_get::<Option<&[u8]>, _>("body")? else {
            return Ok(None);
        };
        let context = context(row.try_get("device")?, row.try_get("received_at_us")?);
        let opened = match row.try_get::<Option<&[u8]>, _>("kid")? {
            None => self.inbox.quarantine_key.open(&context, sealed),
            Some(kid) => {
                let kid = Kid::from_bytes(kid).map_err(damaged)?;
                let keys = self
                    .keys
                    .patient_keys(&parsed(row.try_get("subject")?)?)
                    .await?;
                let Some(kek) = keys.as_ref().and_then(|keys| keys.find(&kid)) else {
                    return Ok(None);
                };
                kek.open(&context, sealed)
            }
        };
        Ok(Some(opened.map_err(InboxError::from)?))
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
    pub(super) subject: Option<SubjectPseudonym>,
    kid: Option<Kid>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) introduced: Option<Remembered>,
    clone_proof: Option<Vec<u8>>,
}

fn context(device: &str, received_at_us: i64) -> Vec<u8> {
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
    pub(super) async fn insert(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO quarantine (device, boot, sequence, reason, detail, received_at_us, times, size, \
             subject, kid, body) VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $9, $10) \
             ON CONFLICT (device, boot, sequence, reason) \
             WHERE boot IS NOT NULL AND sequence IS NOT NULL DO UPDATE SET times = times + 1",
        )
        .bind(self.device.as_str())
        .bind(self.counters.map(|(boot, _)| boot))
        .bind(self.counters.map(|(_, sequence)| sequence))
        .bind(self.reason.as_str())
        .bind(&self.detail)
        .bind(self.received_at_us)
        .bind(self.size)
        .bind(self.subject.as_ref().map(SubjectPseudonym::as_str))
        .bind(self.kid.as_ref().map(Kid::as_bytes))
        .bind(self.body.as_deref())
        .execute(&mut *conn)
        .await?;
        if let (Some(proof), Some((boot, _))) = (&self.clone_proof, self.counters) {
            let device = self.device.as_str();
            evidence::keep(device, boot, self.received_at_us, proof, conn).await?;
        }
        Ok(())
    }
}

pub(super) async fn list(limit: u32, pool: &SqlitePool) -> Result<Vec<QuarantineRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, device, boot, sequence, reason, detail, received_at_us, size, times FROM quarantine \
         ORDER BY id DESC LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let mut refused = Vec::with_capacity(rows.len());
    for row in rows {
        let counters: (Option<i64>, Option<i64>) = (row.try_get("boot")?, row.try_get("sequence")?);
        refused.push(QuarantineRow {
            id: row.try_get("id")?,
            device: parsed(row.try_get("device")?)?,
            message: match counters {
                (Some(boot), Some(sequence)) => Some((count(boot)?, count(sequence)?)),
                _ => None,
            },
            reason: parsed(row.try_get("reason")?)?,
            detail: row.try_get("detail")?,
            received_at: at(row.try_get("received_at_us")?)?,
            size: count(row.try_get("size")?)?,
            times: count(row.try_get("times")?)?,
        });
    }
    Ok(refused)
}
