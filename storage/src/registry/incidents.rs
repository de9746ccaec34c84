//! Incidents, as the JSON documents that the compliance crate writes.

use jiff::Timestamp;

use super::{Registry, RegistryError};
use crate::database::us;

impl Registry {
    /// Stores an incident, in place of its earlier state.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn put_incident(
        &self,
        id: &str,
        json: &str,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "INSERT INTO incidents (id, json, created_at_us, updated_at_us) VALUES ($1, $2, $3, $3) \
             ON CONFLICT (id) DO UPDATE SET json = excluded.json, updated_at_us = excluded.updated_at_us",
        )
        .bind(id)
        .bind(json)
        .bind(us(now))
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// An incident.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn incident(&self, id: &str) -> Result<Option<String>, RegistryError> {
        let json = sqlx::query_scalar("SELECT json FROM incidents WHERE id = $1").bind(id);
        Ok(json.fetch_optional(self.db.pool()).await?)
    }

    /// Every incident, oldest first.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn incidents(&self) -> Result<Vec<String>, RegistryError> {
        let all = sqlx::query_scalar("SELECT json FROM incidents ORDER BY created_at_us, id");
        Ok(all.fetch_all(self.db.pool()).await?)
    }
}
