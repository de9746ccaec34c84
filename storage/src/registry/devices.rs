//! Devices: their certificates, and what the hot path needs to know of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sqlx::Row as _;
use tokio::sync::broadcast;
use vitalseal_crypto::{DeviceCertificate, DeviceId, SubjectPseudonym, Thumbprint};

use super::assignments::{self, Assignment};
use super::standing::{DeviceState, state_of};
use super::{Registry, RegistryError};
use crate::database::{at, at_opt, damaged, parsed, us};

/// What the hot path needs to know of a device.
#[derive(Clone, Debug)]
pub struct DeviceRecord {
    /// Id.
    pub id: DeviceId,
    /// State.
    pub state: DeviceState,
    /// Since when it is in that state.
    pub state_since: Timestamp,
    /// Present certificate.
    pub certificate: Arc<DeviceCertificate>,
    /// Whom it measures and measured, oldest first: what it kept while it was offline is judged by
    /// these.
    pub assignments: Arc<[Assignment]>,
}

impl DeviceRecord {
    /// Its assignment now. An erased patient stays named here until the device is assigned anew.
    #[must_use]
    pub fn assigned(&self) -> Option<&Assignment> {
        self.assignments
            .iter()
            .find(|assigned| assigned.until.is_none())
    }

    /// Patient that it measures now.
    #[must_use]
    pub fn patient(&self) -> Option<&SubjectPseudonym> {
        self.assigned().map(|assigned| &assigned.subject)
    }
}

/// A device, for listings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRow {
    /// Id.
    pub id: DeviceId,
    /// State.
    pub state: DeviceState,
    /// Thumbprint of the present certificate.
    pub certificate: Thumbprint,
    /// Patient that it measures now.
    pub patient: Option<SubjectPseudonym>,
    /// Since when.
    pub assigned_since: Option<Timestamp>,
    /// First enrolment.
    pub enrolled_at: Timestamp,
    /// Since when it is in its state.
    pub state_since: Timestamp,
    /// Why, as an operator or an alarm said; `None` when it was only ever enrolled.
    pub state_reason: Option<String>,
}

const SELECT_RECORD: &str = "SELECT d.state, d.state_since_us, c.der FROM devices d \
     JOIN device_certificates c ON c.thumbprint = d.certificate WHERE d.device = $1";

/// Records and certificates that were asked for. Only what is enrolled is kept, so a stranger
/// cannot fill it.
#[derive(Debug, Default)]
pub(super) struct DeviceCache {
    state: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    records: HashMap<DeviceId, DeviceRecord>,
    certificates: HashMap<Thumbprint, Arc<DeviceCertificate>>,
    /// Counts changes: a load that began before one must not be kept after it.
    changes: u64,
}

impl DeviceCache {
    fn lock(&self) -> MutexGuard<'_, Cached> {
        // Every change is one map operation: a panic elsewhere cannot leave half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Notes a device's certificate, which becomes its present one. A renewed certificate keeps the
    /// assignment and the state.
    ///
    /// # Errors
    /// [`RegistryError::DeviceRevoked`]: a revoked id never comes back. Others when it is not
    /// durable.
    pub async fn enroll_device(
        &self,
        certificate: &DeviceCertificate,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let device = certificate.device();
        let thumbprint = certificate.thumbprint().as_bytes().as_slice();
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        if state_of(device, &mut *conn).await? == Some(DeviceState::Revoked) {
            return Err(RegistryError::DeviceRevoked(device.clone()));
        }
        sqlx::query(
            "INSERT INTO device_certificates (thumbprint, device, der, enrolled_at_us) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (thumbprint) DO NOTHING",
        )
        .bind(thumbprint)
        .bind(device.as_str())
        .bind(certificate.der())
        .bind(us(now))
        .execute(&mut *conn)
        .await?;
        sqlx::query(
            "INSERT INTO devices (device, state, certificate, enrolled_at_us, state_since_us) \
             VALUES ($1, 'active', $2, $3, $3) \
             ON CONFLICT (device) DO UPDATE SET certificate = excluded.certificate",
        )
        .bind(device.as_str())
        .bind(thumbprint)
        .bind(us(now))
        .execute(conn)
        .await?;
        let committed = tx.commit().await;
        self.changed(device);
        committed?;
        Ok(())
    }

    /// Every device, in order of ids.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn devices(&self) -> Result<Vec<DeviceRow>, RegistryError> {
        let rows = sqlx::query(
            "SELECT d.*, a.subject, a.from_us FROM devices d \
             LEFT JOIN assignments a ON a.device = d.device AND a.until_us IS NULL ORDER BY d.device",
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut devices = Vec::with_capacity(rows.len());
        for row in rows {
            let patient: Option<&str> = row.try_get("subject")?;
            let thumbprint: &[u8] = row.try_get("certificate")?;
            devices.push(DeviceRow {
                id: parsed(row.try_get("device")?)?,
                state: DeviceState::read(row.try_get("state")?),
                certificate: Thumbprint::try_from(thumbprint).map_err(damaged)?,
                patient: patient.map(parsed).transpose()?,
                assigned_since: at_opt(row.try_get("from_us")?)?,
                enrolled_at: at(row.try_get("enrolled_at_us")?)?,
                state_since: at(row.try_get("state_since_us")?)?,
                state_reason: row.try_get("state_reason")?,
            });
        }
        Ok(devices)
    }

    /// What the hot path needs to know of a device, from memory whenever it was asked before.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>, RegistryError> {
        let before = {
            let cached = self.devices.lock();
            if let Some(record) = cached.records.get(device) {
                return Ok(Some(record.clone()));
            }
            cached.changes
        };
        // Seldom, so in a box: whoever asks for a record that is in memory carries no query along.
        Box::pin(self.read_device(device, before)).await
    }

    async fn read_device(
        &self,
        device: &DeviceId,
        before: u64,
    ) -> Result<Option<DeviceRecord>, RegistryError> {
        // One snapshot: state and assignments are of the same moment.
        let mut tx = self.db.pool().begin().await?;
        let row = sqlx::query(SELECT_RECORD)
            .bind(device.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let assignments = assignments::of(device, &mut tx).await?;
        drop(tx);
        let certificate = DeviceCertificate::from_der(row.try_get("der")?)
            .map_err(damaged)
            .map(Arc::new)?;
        let record = DeviceRecord {
            id: device.clone(),
            state: DeviceState::read(row.try_get("state")?),
            state_since: at(row.try_get("state_since_us")?)?,
            certificate: Arc::clone(&certificate),
            assignments: assignments.into(),
        };
        let mut cached = self.devices.lock();
        if cached.changes == before {
            cached
                .certificates
                .insert(*certificate.thumbprint(), certificate);
            cached.records.insert(device.clone(), record.clone());
        }
        Ok(Some(record))
    }

    /// A certificate that was ever enrolled: what was signed under it stays verifiable.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn device_certificate(
        &self,
        thumbprint: &Thumbprint,
    ) -> Result<Option<Arc<DeviceCertificate>>, RegistryError> {
        if let Some(certificate) = self.devices.lock().certificates.get(thumbprint) {
            return Ok(Some(Arc::clone(certificate)));
        }
        Box::pin(self.read_certificate(thumbprint)).await
    }

    async fn read_certificate(
        &self,
        thumbprint: &Thumbprint,
    ) -> Result<Option<Arc<DeviceCertificate>>, RegistryError> {
        let der: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT der FROM device_certificates WHERE thumbprint = $1")
                .bind(thumbprint.as_bytes().as_slice())
                .fetch_optional(self.db.pool())
                .await?;
        let Some(der) = der else { return Ok(None) };
        let certificate = Arc::new(DeviceCertificate::from_der(&der).map_err(damaged)?);
        let kept = Arc::clone(&certificate);
        self.devices.lock().certificates.insert(*thumbprint, kept);
        Ok(Some(certificate))
    }

    /// Every certificate that was ever enrolled, by device and time; one that is damaged is left out.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn device_certificates(&self) -> Result<Vec<DeviceCertificate>, RegistryError> {
        let ders: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT der FROM device_certificates ORDER BY device, enrolled_at_us, thumbprint",
        )
        .fetch_all(self.db.pool())
        .await?;
        let sound = ders
            .iter()
            .filter_map(|der| DeviceCertificate::from_der(der).ok());
        Ok(sound.collect())
    }

    /// Tells of every device that was enrolled, assigned or changed its state from now on, after it was
    /// committed. Who is told that it lagged must look at all its devices again.
    #[must_use]
    pub fn subscribe_devices(&self) -> broadcast::Receiver<DeviceId> {
        self.changes.subscribe()
    }

    /// After the commit, and if it failed too, since it may have happened: whoever asks from here on reads what is stored.
    pub(super) fn changed(&self, device: &DeviceId) {
        let mut cached = self.devices.lock();
        cached.changes += 1;
        cached.records.remove(device);
        drop(cached);
        // Without subscribers there is nobody to tell.
        let _ = self.changes.send(device.clone());
    }
}
