//! Epochs of the server's envelope key: started with an overlap, published, destroyed when they end.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use vitalseal_crypto::{CertificateAuthority, RecipientCertificate, default_backend};
use vitalseal_storage::Store;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink};

use crate::config::Recipient;

/// What has to hold before anything is served: there is a key that is valid at this instant, and every
/// key that is held opens.
///
/// # Errors
/// As [`tend`] and [`current`]; or a key does not open.
pub(crate) async fn open(
    store: &Store,
    authority: &CertificateAuthority,
    audit: &dyn AuditSink,
    settings: &Recipient,
    now: Timestamp,
) -> anyhow::Result<RecipientCertificate> {
    tend(store, authority, audit, settings, now).await?;
    // One that does not open would be found by the first message for it, which nobody could acknowledge then.
    let opened = store.keys.recipient_ring().await;
    opened.context("opening the envelope keys")?;
    current(store, now).await
}

/// Starts a new epoch if the newest one ends within the overlap, and destroys the keys of ended ones.
///
/// # Errors
/// A certificate cannot be issued, or the key store or the audit log cannot be written.
pub(crate) async fn tend(
    store: &Store,
    authority: &CertificateAuthority,
    audit: &dyn AuditSink,
    settings: &Recipient,
    now: Timestamp,
) -> anyhow::Result<()> {
    // Only keys that are held and have begun count: one that a wrong clock dated into the future is no
    // reason to go without a usable key until then.
    let known = store.keys.recipients().await?;
    let usable = known.iter().filter(|key| key.held && key.not_before <= now);
    let newest_end = usable.map(|key| key.not_after).max();
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
        store.keys.recipient_recorded(*epoch).await?;
    }
    Ok(())
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
    let epoch = store.keys.next_recipient_epoch().await?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use vitalseal_crypto::Kid;
    use vitalseal_storage::ports::AuditError;
    use vitalseal_storage::{FileRootProvider, StorePaths};

    use super::*;

    /// Audit records in memory; while `broken` it takes none.
    #[derive(Debug, Default)]
    struct Log {
        broken: AtomicBool,
        destroyed: Mutex<Vec<Kid>>,
    }

    #[async_trait]
    impl AuditSink for Log {
        async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
            if self.broken.load(Ordering::Relaxed) {
                return Err(AuditError::new("disk full"));
            }
            if let AuditEvent::RecipientKeyDestroyed { kid, .. } = record.event {
                self.destroyed.lock().unwrap().push(kid);
            }
            Ok(())
        }
    }

    async fn site(now: Timestamp) -> (tempfile::TempDir, Store, CertificateAuthority) {
        let dir = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(&dir.path().join("data"), None);
        let roots = Arc::new(FileRootProvider::new(paths.root_keys()));
        let store = Store::create(&paths, roots, now).await.unwrap();
        let made = CertificateAuthority::create(now).unwrap();
        let authority = CertificateAuthority::open(
            &made.issuing_key_pem,
            &made.issuing_cert_pem,
            &made.root_cert_pem,
        );
        (dir, store, authority.unwrap())
    }

    fn at(hours: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hours)
    }

    #[tokio::test]
    async fn epochs_overlap_and_an_ended_key_is_destroyed() {
        let (_dir, store, authority) = site(at(0)).await;
        let (settings, log) = (Recipient::default(), Log::default());
        let tend = |hour| tend(&store, &authority, &log, &settings, at(hour));
        tend(0).await.unwrap();
        let first = current(&store, at(0)).await.unwrap();
        tend(17).await.unwrap();
        assert_eq!(current(&store, at(17)).await.unwrap().kid(), first.kid());
        tend(18).await.unwrap();
        let second = current(&store, at(18)).await.unwrap();
        assert_ne!(
            second.kid(),
            first.kid(),
            "the successor is published before the end"
        );
        let ring = store.keys.recipient_ring().await.unwrap();
        assert!(
            ring.find(first.kid()).is_some(),
            "what is in flight still opens"
        );
        tend(25).await.unwrap();
        let ring = store.keys.recipient_ring().await.unwrap();
        assert!(ring.find(first.kid()).is_none() && ring.find(second.kid()).is_some());
    }

    #[tokio::test]
    async fn an_end_that_could_not_be_recorded_is_final_and_recorded_later_once() {
        let (_dir, store, authority) = site(at(0)).await;
        let (settings, log) = (Recipient::default(), Log::default());
        let tend = |hour| tend(&store, &authority, &log, &settings, at(hour));
        tend(0).await.unwrap();
        let first = current(&store, at(0)).await.unwrap();
        tend(18).await.unwrap();
        log.broken.store(true, Ordering::Relaxed);
        tend(25).await.unwrap_err();
        let ring = store.keys.recipient_ring().await.unwrap();
        assert!(ring.find(first.kid()).is_none());
        assert!(log.destroyed.lock().unwrap().is_empty());
        log.broken.store(false, Ordering::Relaxed);
        for hour in [25, 26] {
            tend(hour).await.unwrap();
            let destroyed = log.destroyed.lock().unwrap().clone();
            assert_eq!(destroyed, [first.kid().clone()], "hour {hour}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_jumped_ahead_and_back_leaves_a_usable_key() {
        let (_dir, store, authority) = site(at(0)).await;
        let (settings, log) = (Recipient::default(), Log::default());
        let tend = |hour| tend(&store, &authority, &log, &settings, at(hour));
        tend(0).await.unwrap();
        tend(4 * 365 * 24).await.unwrap();
        tend(1).await.unwrap();
        current(&store, at(1)).await.unwrap();
    }
}
