//! The server's envelope keys, one an epoch, and how the end of an epoch is made final.
//!
//! The private scalar is wrapped under a key that the root provider keeps for this epoch alone. When the epoch ends that
//! key is destroyed first, then the row's wrap: no copy of the data directory, its log or its backups gives the private
//! key back, whatever becomes of the root.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{KeyEpoch, Kid, RecipientCertificate, RecipientKey, RecipientKeyRing};

use super::{Inner, KeyError, KeySlot, RecipientRow, RootError};
use crate::sqlite::{at, damaged, number, us};

impl Inner {
    /// The next epoch that neither the registry nor the provider has used: a restored registry may know fewer.
    pub(super) async fn next_recipient_epoch(&self) -> Result<KeyEpoch, KeyError> {
        let known: Option<i64> = sqlx::query_scalar("SELECT MAX(epoch) FROM recipients")
            .fetch_one(self.db.pool())
            .await?;
        let known = known.map(u64::try_from).transpose().map_err(damaged)?;
        let held = self.with_roots(|roots| roots.slots()).await?;
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

    pub(super) async fn put_recipient(
        &self,
        key: &RecipientKey,
        epoch: KeyEpoch,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<(), KeyError> {
        let backend = self.backend;
        let cover = self
            .with_roots(move |roots| roots.create(KeySlot::Recipient(epoch), backend))
            .await?;
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "INSERT INTO recipients (epoch, kid, certificate, not_before_us, not_after_us, wrapped, blob) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(number(epoch.0)?)
        .bind(key.kid().as_bytes())
        .bind(key.certificate().der())
        .bind(us(not_before))
        .bind(us(not_after))
        .bind(cover.key.wrap_recipient(key)?.as_slice())
        .bind(cover.blob)
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        *self.ring.lock().await = None;
        Ok(())
    }

    /// Every envelope key whose private part still exists.
    pub(super) async fn recipient_ring(&self) -> Result<Arc<RecipientKeyRing>, KeyError> {
        let mut ring = self.ring.lock().await;
        if let Some(ring) = ring.as_ref() {
            return Ok(Arc::clone(ring));
        }
        let rows = sqlx::query(
            "SELECT epoch, certificate, wrapped, blob FROM recipients WHERE wrapped IS NOT NULL ORDER BY epoch",
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let epoch = KeyEpoch(u64::try_from(row.try_get::<i64, _>("epoch")?).map_err(damaged)?);
            let der: &[u8] = row.try_get("certificate")?;
            let certificate = RecipientCertificate::from_der(der).map_err(damaged)?;
            let blob: Vec<u8> = row.try_get("blob")?;
            let cover = self
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
        let fresh = Arc::new(RecipientKeyRing::new(keys));
        *ring = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    pub(super) async fn recipients(&self) -> Result<Vec<RecipientRow>, KeyError> {
        let covers: BTreeSet<KeySlot> = self
            .with_roots(|roots| roots.slots())
            .await?
            .into_iter()
            .collect();
        let rows = sqlx::query(
            "SELECT epoch, kid, certificate, not_before_us, not_after_us, wrapped IS NOT NULL AS wrapped \
             FROM recipients ORDER BY epoch",
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut recipients = Vec::with_capacity(rows.len());
        for row in rows {
            let der: &[u8] = row.try_get("certificate")?;
            let epoch = KeyEpoch(u64::try_from(row.try_get::<i64, _>("epoch")?).map_err(damaged)?);
            recipients.push(RecipientRow {
                epoch,
                kid: Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?,
                not_before: at(row.try_get("not_before_us")?)?,
                not_after: at(row.try_get("not_after_us")?)?,
                held: row.try_get("wrapped")? && covers.contains(&KeySlot::Recipient(epoch)),
                certificate: RecipientCertificate::from_der(der).map_err(damaged)?,
            });
        }
        Ok(recipients)
    }

    /// The cover first: a crash in between leaves a wrap that nothing opens.
    pub(super) async fn destroy_recipients_ended_before(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(KeyEpoch, Kid)>, KeyError> {
        let rows = sqlx::query(
            "SELECT epoch, kid FROM recipients WHERE wrapped IS NOT NULL AND not_after_us < $1 ORDER BY epoch",
        )
        .bind(us(now))
        .fetch_all(self.db.pool())
        .await?;
        let mut ended = Vec::with_capacity(rows.len());
        for row in rows {
            let epoch = KeyEpoch(u64::try_from(row.try_get::<i64, _>("epoch")?).map_err(damaged)?);
            ended.push((
                epoch,
                Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?,
            ));
            let slot = KeySlot::Recipient(epoch);
            self.with_roots(move |roots| roots.destroy(slot)).await?;
            match self.with_roots(move |roots| roots.load(slot, &[])).await {
                Err(KeyError::Root(RootError::Missing { .. })) => {}
                _ => return Err(KeyError::RootSurvived(slot)),
            }
        }
        if ended.is_empty() {
            return Ok(ended);
        }
        // Whoever opens messages must not go on with a key that is gone for everybody else.
        *self.ring.lock().await = None;
        let mut tx = self.db.begin().await?;
        for (epoch, _) in &ended {
            sqlx::query("UPDATE recipients SET wrapped = NULL, blob = NULL WHERE epoch = $1")
                .bind(number(epoch.0)?)
                .execute(tx.connection())
                .await?;
        }
        tx.commit().await?;
        self.db.checkpoint().await?;
        Ok(ended)
    }
}
