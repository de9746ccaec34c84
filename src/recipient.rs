//! Epochs of the server's envelope key: started with an overlap, published, destroyed when they end.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{CertificateAuthority, KeyEpoch, RecipientCertificate, default_backend};
use vitalseal_storage::Store;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink};

use crate::config::Recipient;

/// Starts a new epoch if the newest one ends within the overlap, and destroys the keys of ended ones.
/// Returns whether anything changed.
///
/// # Errors
/// A certificate cannot be issued, or the key store or the audit log cannot be written.
pub(crate) async fn tend(
    store: &Store,
    authority: &CertificateAuthority,
    audit: &dyn AuditSink,
    settings: &Recipient,
    now: Timestamp,
) -> anyhow::Result<bool> {
    let newest_end = store
        .keys
        .recipients()
        .await?
        .iter()
        .map(|key| key.not_after)
        .max();
    let overlap = SignedDuration::from_hours(i64::from(settings.overlap_h));
    let ending = newest_end.is_none_or(|end| end.duration_since(now) <= overlap);
    if ending {
        start_epoch(store, authority, audit, settings, now).await?;
    }
    let ended = store.keys.destroy_recipients_ended_before(now).await?;
    for (epoch, kid) in &ended {
        let event = AuditEvent::RecipientKeyDestroyed {
            epoch: *epoch,
            kid: kid.clone(),
        };
        audit
            .record(AuditRecord {
                at: now,
                actor: Actor::System,
                event,
            })
            .await?;
    }
    Ok(ending || !ended.is_empty())
}

/// Issues, keeps and audits the key of the next epoch.
///
/// # Errors
/// As [`tend`].
pub(crate) async fn start_epoch(
    store: &Store,
    authority: &CertificateAuthority,
    audit: &dyn AuditSink,
    settings: &Recipient,
    now: Timestamp,
) -> anyhow::Result<()> {
    let last = store
        .keys
        .recipients()
        .await?
        .iter()
        .map(|key| key.epoch.0)
        .max();
    let epoch = KeyEpoch(last.map_or(0, |last| last + 1));
    let until = now
        .checked_add(SignedDuration::from_hours(i64::from(settings.epoch_h)))
        .context("computing the end of the envelope key epoch")?;
    let key = authority
        .issue_recipient(epoch, now, until, default_backend())
        .context("issuing the envelope certificate")?;
    store.keys.put_recipient(&key, epoch, now, until).await?;
    let event = AuditEvent::RecipientEpochStarted {
        epoch,
        kid: key.kid().clone(),
    };
    audit
        .record(AuditRecord {
            at: now,
            actor: Actor::System,
            event,
        })
        .await?;
    Ok(())
}

/// The certificate that devices seal to now.
///
/// # Errors
/// The key store cannot be read, or holds no key that is valid now.
pub(crate) async fn current(store: &Store, now: Timestamp) -> anyhow::Result<RecipientCertificate> {
    let current = store
        .keys
        .current_recipient(now)
        .await
        .context("loading the envelope key")?;
    current.context("no envelope key is valid now; check the machine's clock")
}
