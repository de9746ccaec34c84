//! What a join brought, kept in the registry until the audit log has it: a crash after the join must not lose the record
//! that a store went on from an older copy.

use std::path::PathBuf;

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::KeyEpoch;

use super::place::SnapshotId;
use crate::database::{Connection, Database, at, count, number, us};
use crate::keys::{KeyError, KeyStore};

/// What a key snapshot brought into a registry that was older than it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Its manifest.
    pub snapshot: PathBuf,
    /// Which.
    pub id: SnapshotId,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Erasures that the registry did not know.
    pub erasures_replayed: u64,
    /// Patients that it did not know; their identity is not in a snapshot.
    pub patients_added: u64,
    /// Devices that were suspended or revoked since.
    pub devices_revoked: u64,
    /// Active patients now; each has a key that unwraps.
    pub patients: u64,
}

impl KeyStore {
    /// What the joins brought that are not recorded yet: the newest snapshot, and the counts of all of them. Record it,
    /// then call [`KeyStore::join_recorded`]. `None`: the registry was as new as any snapshot.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn joined(&self) -> Result<Option<Joined>, KeyError> {
        let row = sqlx::query("SELECT * FROM joins")
            .fetch_optional(self.inner.db.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Joined {
            snapshot: PathBuf::from(row.try_get::<String, _>("snapshot")?),
            id: SnapshotId {
                root_epoch: KeyEpoch(count(row.try_get("root_epoch")?)?),
                serial: count(row.try_get("serial")?)?,
            },
            taken_at: at(row.try_get("taken_at_us")?)?,
            erasures_replayed: count(row.try_get("erasures_replayed")?)?,
            patients_added: count(row.try_get("patients_added")?)?,
            devices_revoked: count(row.try_get("devices_revoked")?)?,
            patients: count(row.try_get("patients")?)?,
        }))
    }

    /// The audit log has what [`KeyStore::joined`] says.
    ///
    /// # Errors
    /// When it is not durable; then it is told once more.
    pub async fn join_recorded(&self) -> Result<(), KeyError> {
        let mut tx = self.inner.db.begin().await?;
        sqlx::query("DELETE FROM joins")
            .execute(tx.connection())
            .await?;
        Ok(tx.commit().await?)
    }
}

/// Whether the registry was joined, and the audit log does not have it yet.
pub(crate) async fn is_joined(db: &Database) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM joins").fetch_optional(db.pool());
    Ok(row.await?.is_some())
}

/// Keeps it, in the transaction of the join.
pub(super) async fn note(joined: &Joined, conn: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO joins (id, snapshot, root_epoch, serial, taken_at_us, erasures_replayed, patients_added, \
         devices_revoked, patients) VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET \
         snapshot = excluded.snapshot, root_epoch = excluded.root_epoch, serial = excluded.serial, \
         taken_at_us = excluded.taken_at_us, erasures_replayed = joins.erasures_replayed + excluded.erasures_replayed, \
         patients_added = joins.patients_added + excluded.patients_added, \
         devices_revoked = joins.devices_revoked + excluded.devices_revoked, patients = excluded.patients",
    )
    .bind(joined.snapshot.display().to_string())
    .bind(number(joined.id.root_epoch.0)?)
    .bind(number(joined.id.serial)?)
    .bind(us(joined.taken_at))
    .bind(number(joined.erasures_replayed)?)
    .bind(number(joined.patients_added)?)
    .bind(number(joined.devices_revoked)?)
    .bind(number(joined.patients)?)
    .execute(conn)
    .await
    .map(drop)
}
