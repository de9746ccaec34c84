//! Refused messages, kept sealed.
//!
//! A refused message may be anything, cleartext readings of a broken device included, so it is
//! sealed before SQLite sees it. The context binds the body to its row:
//!
//! ```text
//! context = "vitalseal/quarantine/1" || 0x00 || device || 0x00 || received_at, i64 µs BE
//! ```
//!
//! If the message parses as an envelope, the patient that it names is noted, so that an erasure
//! finds its body.

use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, SqliteConnection};
use vitalseal_crypto::{MAX_ENVELOPE_BYTES, PageKey, Received, SubjectPseudonym};
use zeroize::Zeroizing;

use super::{InboxError, NewQuarantine, QuarantineRow};
use crate::ports::QuarantineReason;
use crate::sqlite::{at, count, number, parsed, us};

/// Longest kept detail: it is one of our own sentences, never a peer's text at length.
const DETAIL_CHARS: usize = 512;

pub(super) struct SealedQuarantine {
    device: String,
    counters: Option<(i64, i64)>,
    reason: QuarantineReason,
    detail: String,
    received_at_us: i64,
    size: i64,
    pub(super) subject: Option<SubjectPseudonym>,
    pub(super) body: Option<Vec<u8>>,
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

pub(super) fn seal(refused: NewQuarantine, key: &PageKey) -> Result<SealedQuarantine, InboxError> {
    let received_at_us = us(refused.received_at);
    let body = refused.body.map(Zeroizing::new);
    let size = body.as_ref().map_or(0, |b| b.len());
    // What no envelope can be is counted, not kept: a device must not fill the disk with it.
    let kept = body.as_ref().filter(|b| b.len() <= MAX_ENVELOPE_BYTES);
    let subject = kept
        .and_then(|b| Received::decode(b).ok())
        .map(|r| r.header().subject.clone())
        .or(refused.subject);
    let sealed = kept
        .map(|body| key.seal(&context(refused.device.as_str(), received_at_us), body))
        .transpose()?;
    let counter = |n: u64| number(n).ok();
    Ok(SealedQuarantine {
        device: refused.device.as_str().to_owned(),
        counters: refused
            .message
            .and_then(|(b, s)| Some((counter(b)?, counter(s)?))),
        reason: refused.reason,
        detail: refused.detail.chars().take(DETAIL_CHARS).collect(),
        received_at_us,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        subject,
        body: sealed,
    })
}

impl SealedQuarantine {
    pub(super) async fn insert(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO quarantine (device, boot, sequence, reason, detail, received_at_us, times, size, \
             subject, body) VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $9) \
             ON CONFLICT (device, boot, sequence, reason) \
             WHERE boot IS NOT NULL AND sequence IS NOT NULL DO UPDATE SET times = times + 1",
        )
        .bind(&self.device)
        .bind(self.counters.map(|(boot, _)| boot))
        .bind(self.counters.map(|(_, sequence)| sequence))
        .bind(self.reason.as_str())
        .bind(&self.detail)
        .bind(self.received_at_us)
        .bind(self.size)
        .bind(self.subject.as_ref().map(SubjectPseudonym::as_str))
        .bind(self.body.as_deref())
        .execute(conn)
        .await
        .map(drop)
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

pub(super) async fn body(
    id: i64,
    key: &PageKey,
    pool: &SqlitePool,
) -> Result<Option<Zeroizing<Vec<u8>>>, InboxError> {
    let row = sqlx::query("SELECT device, received_at_us, body FROM quarantine WHERE id = $1")
        .bind(id)
        .fetch_optional(pool)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let Some(sealed) = row.try_get::<Option<&[u8]>, _>("body")? else {
        return Ok(None);
    };
    let context = context(row.try_get("device")?, row.try_get("received_at_us")?);
    Ok(Some(key.open(&context, sealed)?))
}
