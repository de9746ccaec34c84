//! Secrets of the service: the authority's and the audit log's keys, TOTP secrets.
//!
//! A secret is sealed under the service page key with its name as context, so that one cannot stand
//! in for another:
//!
//! ```text
//! context = "vitalseal/secret/1" || 0x00 || name
//! ```

use vitalseal_crypto::PageKey;
use zeroize::Zeroizing;

use super::{KeyError, KeyStore};
use crate::database::Connection;

impl KeyStore {
    /// Stores a secret under the service page key, in place of one with the same name.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn put_secret(&self, name: &str, secret: &[u8]) -> Result<(), KeyError> {
        let tree = self.inner.tree.read().await;
        let mut tx = self.inner.db.begin().await?;
        write(name, secret, &tree.service, tx.connection()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A secret of the service.
    ///
    /// # Errors
    /// When it cannot be read or does not open.
    pub async fn secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
        // Held over the read: row and key must be of one root epoch.
        let tree = self.inner.tree.read().await;
        let sealed: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT sealed FROM secrets WHERE name = $1")
                .bind(name)
                .fetch_optional(self.inner.db.pool())
                .await?;
        Ok(sealed
            .map(|s| tree.service.open(&secret_context(name), &s))
            .transpose()?)
    }
}

/// Binds a sealed secret to its name.
pub(crate) fn secret_context(name: &str) -> Vec<u8> {
    [b"vitalseal/secret/1\0", name.as_bytes()].concat()
}

/// Writes a secret in the caller's transaction, in place of one with the same name.
pub(crate) async fn write(
    name: &str,
    secret: &[u8],
    service: &PageKey,
    conn: &mut Connection,
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
