//! Secrets of the service, and the server's own envelope keys among them.
//!
//! A secret is sealed under the service page key with its name as context, so that one cannot stand
//! in for another:
//!
//! ```text
//! context = "vitalseal/secret/1" || 0x00 || name
//! ```

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection};
use vitalseal_crypto::{
    KeyEpoch, Kid, PageKey, RecipientCertificate, RecipientKey, RecipientKeyRing, danger,
};
use zeroize::Zeroizing;

use super::{Inner, KeyError, RecipientRow};
use crate::sqlite::{at, damaged, number, us};

/// Binds a sealed secret to its name.
pub(crate) fn secret_context(name: &str) -> Vec<u8> {
    [b"vitalseal/secret/1\0", name.as_bytes()].concat()
}

fn recipient_secret(epoch: KeyEpoch) -> String {
    format!("recipient/{epoch}")
}

/// Writes a secret in the caller's transaction, in place of one with the same name.
pub(crate) async fn write(
    name: &str,
    secret: &[u8],
    service: &PageKey,
    conn: &mut SqliteConnection,
) -> Result<(), KeyError> {
    sqlx::query(
        "INSERT INTO secrets (name, sealed) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
    )
    .bind(name)
    .bind(service.seal(&secret_context(name), secret)?)
    .execute(conn)
    .await?;
    Ok(())
}

impl Inner {
    pub(super) async fn put_secret(&self, name: &str, secret: &[u8]) -> Result<(), KeyError> {
        let tree = self.tree.read().await;
        let mut tx = self.db.begin().await?;
        write(name, secret, &tree.service, tx.connection()).await?;
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
        // Held over the read: row and key must be of one root epoch.
        let tree = self.tree.read().await;
        let sealed: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT sealed FROM secrets WHERE name = $1")
                .bind(name)
                .fetch_optional(self.db.pool())
                .await?;
        Ok(sealed
            .map(|s| tree.service.open(&secret_context(name), &s))
            .transpose()?)
    }

    pub(super) async fn delete_secret(&self, name: &str) -> Result<(), KeyError> {
        let mut tx = self.db.begin().await?;
        sqlx::query("DELETE FROM secrets WHERE name = $1")
            .bind(name)
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        Ok(self.db.checkpoint().await?)
    }

    pub(super) async fn put_recipient(
        &self,
        key: &RecipientKey,
        epoch: KeyEpoch,
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<(), KeyError> {
        let tree = self.tree.read().await;
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "INSERT INTO recipients (epoch, kid, certificate, not_before_us, not_after_us) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(number(epoch.0)?)
        .bind(key.kid().as_bytes())
        .bind(key.certificate().der())
        .bind(us(not_before))
        .bind(us(not_after))
        .execute(tx.connection())
        .await?;
        let scalar = danger::recipient_private_scalar(key);
        write(
            &recipient_secret(epoch),
            scalar.as_slice(),
            &tree.service,
            tx.connection(),
        )
        .await?;
        tx.commit().await?;
        drop(tree);
        *self.ring.lock().await = None;
        Ok(())
    }

    /// Every envelope key whose private part still exists.
    pub(super) async fn recipient_ring(&self) -> Result<Arc<RecipientKeyRing>, KeyError> {
        let mut ring = self.ring.lock().await;
        if let Some(ring) = ring.as_ref() {
            return Ok(Arc::clone(ring));
        }
        let mut keys = Vec::new();
        for row in self.recipients().await? {
            if let Some(scalar) = self.secret(&recipient_secret(row.epoch)).await? {
                keys.push(danger::recipient_key_from_parts(&scalar, row.certificate)?);
            }
        }
        let fresh = Arc::new(RecipientKeyRing::new(keys));
        *ring = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    pub(super) async fn recipients(&self) -> Result<Vec<RecipientRow>, KeyError> {
        let rows = sqlx::query(
            "SELECT r.epoch, r.kid, r.certificate, r.not_before_us, r.not_after_us, \
             EXISTS (SELECT 1 FROM secrets s WHERE s.name = 'recipient/' || r.epoch) AS held \
             FROM recipients r ORDER BY r.epoch",
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut recipients = Vec::with_capacity(rows.len());
        for row in rows {
            let der: &[u8] = row.try_get("certificate")?;
            recipients.push(RecipientRow {
                epoch: KeyEpoch(u64::try_from(row.try_get::<i64, _>("epoch")?).map_err(damaged)?),
                kid: Kid::from_bytes(row.try_get("kid")?).map_err(damaged)?,
                not_before: at(row.try_get("not_before_us")?)?,
                not_after: at(row.try_get("not_after_us")?)?,
                held: row.try_get("held")?,
                certificate: RecipientCertificate::from_der(der).map_err(damaged)?,
            });
        }
        Ok(recipients)
    }

    pub(super) async fn destroy_recipients_ended_before(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(KeyEpoch, Kid)>, KeyError> {
        let ended: Vec<_> = self
            .recipients()
            .await?
            .into_iter()
            .filter(|r| r.held && r.not_after < now)
            .collect();
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        for recipient in &ended {
            sqlx::query("DELETE FROM secrets WHERE name = $1")
                .bind(recipient_secret(recipient.epoch))
                .execute(tx.connection())
                .await?;
        }
        tx.commit().await?;
        *self.ring.lock().await = None;
        self.db.checkpoint().await?;
        Ok(ended.into_iter().map(|r| (r.epoch, r.kid)).collect())
    }
}
