//! Whether a device may connect: suspended until an operator thinks better of it, or revoked for ever. And the authority's
//! revocation list, which tells the same to those who cannot ask here.
//!
//! A suspension keeps the assignment: what the device sends meanwhile is kept aside, and may be released.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use vitalseal_crypto::{DeviceCertificate, DeviceId, RevocationReason, RevokedCertificate};

use super::{Registry, RegistryError, assignments};
use crate::database::{Connection, at, damaged, us};

/// A certificate that ran out stands in the list this long beyond: RFC 5280 §3.3 asks for one list after its end, and
/// they are made every day.
const LISTED_AFTER_END: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Whether a device may connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It may.
    Active,
    /// It may not until it is reinstated.
    Suspended,
    /// It may not, for ever.
    Revoked,
}

impl DeviceState {
    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }

    pub(super) fn read(text: &str) -> Self {
        // Anything but the one word that lets in keeps out, and anything but two keeps out for ever.
        match text {
            "active" => Self::Active,
            "suspended" => Self::Suspended,
            _ => Self::Revoked,
        }
    }
}

impl Registry {
    /// Shuts a device out until it is reinstated. Says whether it was active: suspended twice, the first instant and
    /// reason stay.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::DeviceRevoked`]; others when it is not durable.
    pub async fn suspend_device(
        &self,
        device: &DeviceId,
        reason: &str,
        now: Timestamp,
    ) -> Result<bool, RegistryError> {
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        match known(device, conn).await? {
            DeviceState::Active => set(device, DeviceState::Suspended, reason, now, conn).await?,
            DeviceState::Suspended => return Ok(false),
            DeviceState::Revoked => return Err(RegistryError::DeviceRevoked(device.clone())),
        }
        let committed = tx.commit().await;
        self.changed(device);
        committed?;
        Ok(true)
    }

    /// Lets a suspended device connect again.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], [`RegistryError::DeviceRevoked`]; [`RegistryError::DeviceActive`] when it was not
    /// suspended; others when it is not durable.
    pub async fn reinstate_device(
        &self,
        device: &DeviceId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        match known(device, conn).await? {
            DeviceState::Active => return Err(RegistryError::DeviceActive(device.clone())),
            DeviceState::Suspended => set(device, DeviceState::Active, reason, now, conn).await?,
            DeviceState::Revoked => return Err(RegistryError::DeviceRevoked(device.clone())),
        }
        let committed = tx.commit().await;
        self.changed(device);
        committed?;
        Ok(())
    }

    /// Shuts a device out, for ever, and ends its assignment. Its certificates stay known, so that what it signed before
    /// stays verifiable. Revoked twice, the first instant and reason stay.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`]; others when it is not durable.
    pub async fn revoke_device(
        &self,
        device: &DeviceId,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        if known(device, conn).await? != DeviceState::Revoked {
            set(device, DeviceState::Revoked, reason, now, conn).await?;
            assignments::end(device, now, conn).await?;
        }
        let committed = tx.commit().await;
        self.changed(device);
        committed?;
        Ok(())
    }

    /// What the revocation list has to name at `now`: every certificate of every device and subscriber that is not
    /// active, in a fixed order, unless it ran out some time ago.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn revoked_certificates(
        &self,
        now: Timestamp,
    ) -> Result<Vec<RevokedCertificate>, RegistryError> {
        let rows = sqlx::query(
            "SELECT c.der, d.state, d.state_since_us FROM devices d \
             JOIN device_certificates c ON c.device = d.device WHERE d.state <> 'active' \
             ORDER BY d.state_since_us, c.thumbprint",
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut revoked = Vec::with_capacity(rows.len());
        for row in rows {
            let certificate = DeviceCertificate::from_der(row.try_get("der")?).map_err(damaged)?;
            if now.duration_since(certificate.not_after()) > LISTED_AFTER_END {
                continue;
            }
            revoked.push(RevokedCertificate {
                serial: certificate.serial().into(),
                at: at(row.try_get("state_since_us")?)?,
                reason: match DeviceState::read(row.try_get("state")?) {
                    DeviceState::Suspended => RevocationReason::OnHold,
                    _ => RevocationReason::Revoked,
                },
            });
        }
        revoked.extend(self.revoked_subscribers(now, LISTED_AFTER_END).await?);
        Ok(revoked)
    }

    /// The newest revocation list (DER), if there was ever one.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn revocation_list(&self) -> Result<Option<Vec<u8>>, RegistryError> {
        let list =
            sqlx::query_scalar("SELECT der FROM revocation_list").fetch_optional(self.db.pool());
        Ok(list.await?)
    }

    /// Keeps a revocation list in place of the one before.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn put_revocation_list(&self, der: &[u8]) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        sqlx::query(
            "INSERT INTO revocation_list (id, der) VALUES (1, $1) \
             ON CONFLICT (id) DO UPDATE SET der = excluded.der",
        )
        .bind(der)
        .execute(tx.connection())
        .await?;
        Ok(tx.commit().await?)
    }
}

async fn known(device: &DeviceId, conn: &mut Connection) -> Result<DeviceState, RegistryError> {
    let state = state_of(device, conn).await?;
    state.ok_or_else(|| RegistryError::UnknownDevice(device.clone()))
}

/// What a device is now; `None` if it was never enrolled.
pub(super) async fn state_of(
    device: &DeviceId,
    conn: &mut Connection,
) -> Result<Option<DeviceState>, RegistryError> {
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM devices WHERE device = $1")
        .bind(device.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(state.as_deref().map(DeviceState::read))
}

async fn set(
    device: &DeviceId,
    state: DeviceState,
    reason: &str,
    now: Timestamp,
    conn: &mut Connection,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE devices SET state = $1, state_since_us = $2, state_reason = $3 WHERE device = $4",
    )
    .bind(state.as_str())
    .bind(us(now))
    .bind(reason)
    .bind(device.as_str())
    .execute(conn)
    .await
    .map(drop)
}
