//! The server's envelope keys, one an epoch, and how the end of an epoch is made final.
//!
//! The private scalar is wrapped under a key that the root provider keeps for this epoch alone. When the epoch ends that
//! key is destroyed: no copy of the data directory, its log or its backups gives the private key back, whatever becomes
//! of the root. The row keeps its wrap, which nothing opens any more, until the caller has recorded the end: a crash
//! before that tells the end once more, and never lets it pass untold.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{KeyEpoch, Kid, RecipientCertificate, RecipientKey, RecipientKeyRing};

use super::{KeyError, KeySlot, KeyStore, NewRoot, RootError};
use crate::database::{at, count, damaged, number, us};

/// An envelope key of the server.
#[derive(Clone, Debug)]
pub struct RecipientRow {
    /// Epoch.
    pub epoch: KeyEpoch,
    /// Key id.
    pub kid: Kid,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Whether the private part still exists.
    pub held: bool,
    /// Its certificate.
    pub certificate: RecipientCertificate,
}

impl KeyStore {
    /// The number for the next envelope key: one that neither the registry nor the provider has used. A restored registry
    /// may know fewer than the provider.
    ///
    /// # Errors
    /// When the registry or the provider cannot be read.
    pub async fn next_recipient_epoch(&self) -> Result<KeyEpoch, KeyError> {
        let known: Option<i64> = sqlx::query_scalar("SELECT MAX(epoch) FROM recipients")
            .fetch_one(self.inner.db.pool())
            .await?;
        let known = known.map(count).transpose()?;
        let held = self.inner.with_roots(|roots| roots.slots()).await?;
        let held = held.into_iter().filter_map(|slot| match slot {
            KeySlot::Recipient(epoch) => Some(epoch.0),
            KeySlot::Root(_) => None,
        });
        Ok(KeyEpoch(
            known
                .into_iter()
                .chain(held)
                .max()
                .map_or(0, |last| last + 1),
        ))
    }

    /// Stores an envelope key, wrapped under a new key of the root provider.
    ///
    /// # Errors
    /// When it is not durable, or the epoch was used before.
    pub async fn put_recipient(
        &self,
        key: &RecipientKey,
        epoch: KeyEpoch,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<(), KeyError> {
        let backend = self.inner.backend;
        let cover = self
            .inner
            .with_roots(move |roots| roots.create(KeySlot::Recipient(epoch), backend))
            .await?;
        let stored = self.store_recipient(key, cover, not_before, not_after);
        if let Err(error) = stored.await {
            // No row leads to this cover. If that fails too, it goes when a later epoch ends.
            let _ = self.inner.destroy(KeySlot::Recipient(epoch)).await;
            return Err(error);
        }
        *self.inner.ring.lock().await = None;
        Ok(())
    }

    async fn store_recipient(
        &self,
        key: &RecipientKey,
        cover: NewRoot,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<(), KeyError> {
        let mut tx = self.inner.db.begin().await?;
        sqlx::query(
            "INSERT INTO recipients (epoch, kid, certificate, not_before_us, not_after_us, wrapped, blob) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(number(cover.key.epoch().0)?)
        .bind(key.kid().as_bytes())
        .bind(key.certificate().der())
        .bind(us(not_before))
        .bind(us(not_after))
        .bind(cover.key.wrap_recipient(key)?.as_slice())
        .bind(cover.blob)
        .execute(tx.connection())
        .await?;
        Ok(tx.commit().await?)
    }

    /// Every envelope key whose private part still exists. The same ring until that set changes.
    ///
    /// # Errors
    /// When one cannot be read or does not open.
    pub async fn recipient_ring(&self) -> Result<Arc<RecipientKeyRing>, KeyError> {
        let mut ring = self.inner.ring.lock().await;
        if let Some(ring) = ring.as_ref() {
            return Ok(Arc::clone(ring));
        }
        let fresh = Arc::new(Box::pin(self.read_ring()).await?);
        *ring = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn read_ring(&self) -> Result<RecipientKeyRing, KeyError> {
        let rows = sqlx::query(
            "SELECT epoch, certificate, wrapped, blob FROM recipients WHERE wrapped IS NOT NULL ORDER BY epoch",
        )
        .fetch_all(self.inner.db.pool())
        .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let epoch = KeyEpoch(count(row.try_get("epoch")?)?);
            let der: &[u8] = row.try_get("certificate")?;
            let certificate = RecipientCertificate::from_der(der).map_err(damaged)?;
            let blob: Vec<u8> = row.try_get("blob")?;
            let cover = self
                .inner
                .with_roots(move |roots| roots.load(KeySlot::Recipient(epoch), &blob))
                .await;
            match cover {
                Ok(cover) => {
                    keys.push(cover.unwrap_recipient(row.try_get("wrapped")?, certificate)?)
                }
                // Destroyed, and the row not yet told: an interrupted end of an epoch, or an older copy of the registry.
                Err(KeyError::Root(RootError::Missing { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(RecipientKeyRing::new(keys))
    }

    /// The certificate that devices are to seal for at `now`: of those valid, the newest.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn current_recipient(
        &self,
        now: Timestamp,
    ) -> Result<Option<RecipientCertificate>, KeyError> {
        let valid = |r: &RecipientRow| r.held && r.not_before <= now && now < r.not_after;
        Ok(self
            .recipients()
            .await?
            .into_iter()
            .rev()
            .find(valid)
            .map(|r| r.certificate))
    }

    /// Every envelope key there ever was, in order of epochs.
    ///
    /// # Errors
    /// When the registry or the provider cannot be read.
    pub async fn recipients(&self) -> Result<Vec<RecipientRow>, KeyError> {
        let covers: BTreeSet<KeySlot> = self
            .inner
            .with_roots(|roots| roots.slots())
            .await?
            .into_iter()
            .collect();
        let rows = sqlx::query(
            "SELECT epoch, kid, certificate, not_before_us, not_after_us, wrapped \
             FROM recipients ORDER BY epoch",
        )
        .fetch_all(self.inner.db.pool())
        .await?;
        let mut recipients = Vec::with_capacity(rows.len());
        for row in rows {
            let der: &[u8] = row.try_get("certificate")?;
            let epoch = KeyEpoch(count(row.try_get("epoch")?)?);
            let wrapped: Option<&[u8]> = row.try_get("wrapped")?;
            recipients.push(RecipientRow {
                epoch,
                kid: Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?,
                not_before: at(row.try_get("not_before_us")?)?,
                not_after: at(row.try_get("not_after_us")?)?,
                held: wrapped.is_some() && covers.contains(&KeySlot::Recipient(epoch)),
                certificate: RecipientCertificate::from_der(der).map_err(damaged)?,
            });
        }
        Ok(recipients)
    }

    /// Destroys the private part of every envelope key that ended before `now`, in every copy of the data directory too.
    /// Gives those whose end was not recorded yet: record it, then call [`KeyStore::recipient_recorded`]. Until then
    /// they are given again. Covers that the registry does not know, such as those from after the backup that it came
    /// from, go without a word.
    ///
    /// # Errors
    /// [`KeyError::RootSurvived`], or when the registry or the provider fails.
    pub async fn destroy_recipients_ended_before(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(KeyEpoch, Kid)>, KeyError> {
        let rows = sqlx::query(
            "SELECT epoch, kid FROM recipients WHERE wrapped IS NOT NULL AND not_after_us < $1 ORDER BY epoch",
        )
        .bind(us(now))
        .fetch_all(self.inner.db.pool())
        .await?;
        self.destroy_unknown_covers(now).await?;
        let mut ended = Vec::with_capacity(rows.len());
        if rows.is_empty() {
            return Ok(ended);
        }
        // Held to the end, however it comes: nobody opens a message with a key that is gone for everybody else.
        let mut ring = self.inner.ring.lock().await;
        *ring = None;
        for row in rows {
            let epoch = KeyEpoch(count(row.try_get("epoch")?)?);
            self.inner.destroy(KeySlot::Recipient(epoch)).await?;
            let kid = Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?;
            ended.push((epoch, kid));
        }
        Ok(ended)
    }

    /// Covers without a row, of epochs before one that ended: whatever was sealed for them is as old.
    async fn destroy_unknown_covers(&self, now: Timestamp) -> Result<(), KeyError> {
        let ended: Option<i64> =
            sqlx::query_scalar("SELECT MAX(epoch) FROM recipients WHERE not_after_us < $1")
                .bind(us(now))
                .fetch_one(self.inner.db.pool())
                .await?;
        let Some(ended) = ended.map(count).transpose()? else {
            return Ok(());
        };
        let known: Vec<i64> = sqlx::query_scalar("SELECT epoch FROM recipients")
            .fetch_all(self.inner.db.pool())
            .await?;
        for slot in self.inner.with_roots(|roots| roots.slots()).await? {
            let epoch = slot.epoch().0;
            let unknown = epoch < ended && !known.contains(&number(epoch)?);
            if unknown && matches!(slot, KeySlot::Recipient(_)) {
                self.inner.destroy(slot).await?;
            }
        }
        Ok(())
    }

    /// Clears what is left of an envelope key whose end was recorded.
    ///
    /// # Errors
    /// When it is not durable; then the end is given once more.
    pub async fn recipient_recorded(&self, epoch: KeyEpoch) -> Result<(), KeyError> {
        let db = &self.inner.db;
        let mut tx = db.begin().await?;
        sqlx::query("UPDATE recipients SET wrapped = NULL, blob = NULL WHERE epoch = $1")
            .bind(number(epoch.0)?)
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        Ok(db.checkpoint().await?)
    }
}
