//! The store's own keys, over its files: the one in use, and those that earlier files were written under.
//!
//! Each is the secret `store-key/<kid>`; the secret `store-key/current` is the kid of the one in use. So they go wherever
//! secrets go: under a new service page at every erasure, into every key snapshot, and never into a backup. None is ever
//! removed, and none opens a reading: to destroy one would erase nobody and lose every file.

use std::sync::Arc;

use sqlx::Row as _;
use vitalseal_crypto::{Kid, StoreKey, danger};

use super::secrets::{self, secret_context};
use super::tree::Tree;
use super::{KeyError, KeyStore};
use crate::database::{Database, damaged, parsed};

const PREFIX: &str = "store-key/";
const CURRENT: &str = "store-key/current";

/// The store's keys over its files.
#[derive(Debug)]
pub struct StoreKeys {
    current: StoreKey,
    earlier: Vec<StoreKey>,
}

impl StoreKeys {
    /// The key that new files are written under.
    #[must_use]
    pub fn current(&self) -> &StoreKey {
        &self.current
    }

    /// The key of this identifier, as a file names it.
    #[must_use]
    pub fn find(&self, kid: &Kid) -> Option<&StoreKey> {
        std::iter::once(&self.current)
            .chain(&self.earlier)
            .find(|key| key.kid() == kid)
    }
}

impl KeyStore {
    /// The store's keys over its files. The same ones for as long as the store is open.
    ///
    /// # Errors
    /// When they cannot be read or do not open.
    pub async fn store_keys(&self) -> Result<Arc<StoreKeys>, KeyError> {
        let keys = self.inner.store_keys.get_or_try_init(|| self.read());
        Ok(Arc::clone(keys.await?))
    }

    async fn read(&self) -> Result<Arc<StoreKeys>, KeyError> {
        // Held over the read: rows and key must be of one root epoch.
        let tree = self.inner.tree.read().await;
        let rows = sqlx::query("SELECT name, sealed FROM secrets WHERE name LIKE 'store-key/%'")
            .fetch_all(self.inner.db.pool())
            .await?;
        let (mut named, mut keys) = (None, Vec::with_capacity(rows.len()));
        for row in rows {
            let name: &str = row.try_get("name")?;
            let secret = tree
                .service
                .open(&secret_context(name), row.try_get("sealed")?)?;
            if name == CURRENT {
                named = Some(Kid::from_bytes(&secret).map_err(damaged)?);
            } else {
                let kid = parsed(name.trim_start_matches(PREFIX))?;
                keys.push(danger::store_key_from_bytes(kid, &secret)?);
            }
        }
        let current = keys
            .iter()
            .position(|key| Some(key.kid()) == named.as_ref())
            .ok_or(KeyError::NoStoreKey)?;
        let current = keys.swap_remove(current);
        let earlier = keys;
        Ok(Arc::new(StoreKeys { current, earlier }))
    }
}

/// Draws the first key of a store that has none: a new one, or one of a version that had no such keys.
///
/// # Errors
/// [`KeyError::NoStoreKey`] where files were sealed under a key that is not there: a new one would open none of them.
pub(crate) async fn ensure(tree: &Tree, db: &Database) -> Result<(), KeyError> {
    let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM secrets WHERE name = $1")
        .bind(CURRENT)
        .fetch_one(db.pool())
        .await?;
    if there != 0 {
        return Ok(());
    }
    let sealed: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM data_files WHERE encrypted = 1")
        .fetch_one(db.pool())
        .await?;
    if sealed != 0 {
        return Err(KeyError::NoStoreKey);
    }
    let key = StoreKey::generate(vitalseal_crypto::default_backend())?;
    let name = format!("{PREFIX}{}", key.kid());
    let bytes = danger::store_key_to_bytes(&key);
    let mut tx = db.begin().await?;
    secrets::write(&name, bytes.as_slice(), &tree.service, tx.connection()).await?;
    let kid = key.kid().as_bytes();
    secrets::write(CURRENT, kid, &tree.service, tx.connection()).await?;
    Ok(tx.commit().await?)
}
