//! Assignments: which patient a device measures, from when, until when.
//!
//! A device measures one patient at a time. What ended stays: a device that was offline sends what it
//! measured for the patient whom it measured then.

use jiff::{SignedDuration, Timestamp};
use sqlx::Row as _;
use vitalseal_crypto::{DeviceId, SubjectPseudonym};

use super::standing::{DeviceState, state_of};
use super::{Registry, RegistryError};
use crate::database::{Connection, at, at_opt, parsed, us};

/// The shortest assignment: beginnings tell them apart.
const INSTANT: SignedDuration = SignedDuration::from_micros(1);

/// A time in which a device measures one patient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Patient.
    pub subject: SubjectPseudonym,
    /// First instant of it.
    pub from: Timestamp,
    /// The instant at which it ended; `None` while it lasts.
    pub until: Option<Timestamp>,
}

impl Registry {
    /// Lets a device measure this patient from `from` on, and nobody else. `from` may be in the past: the assignment that
    /// lasts is ended at that instant, and none that ended after it is touched. Assigned to the same patient again, the
    /// earlier beginning counts.
    ///
    /// # Errors
    /// When device or patient are not there, suspended, revoked or erased; [`RegistryError::AssignedOtherwise`] when the
    /// device measured another patient after `from`; others when it is not durable.
    pub async fn assign_device(
        &self,
        device: &DeviceId,
        subject: &SubjectPseudonym,
        from: Timestamp,
    ) -> Result<(), RegistryError> {
        let mut tx = self.db.begin().await?;
        let conn = tx.connection();
        match state_of(device, &mut *conn).await? {
            Some(DeviceState::Active) => {}
            Some(DeviceState::Suspended) => {
                return Err(RegistryError::DeviceSuspended(device.clone()));
            }
            Some(DeviceState::Revoked) => return Err(RegistryError::DeviceRevoked(device.clone())),
            None => return Err(RegistryError::UnknownDevice(device.clone())),
        }
        Self::require_active(subject, conn).await?;
        let assignments = of(device, &mut *conn).await?;
        let lasting = assignments.last().filter(|last| last.until.is_none());
        let same = lasting.filter(|last| last.subject == *subject);
        if same.is_some_and(|last| last.from <= from) {
            return Ok(());
        }
        // What an assignment that lasts ends at is this very instant, unless it is the one that is to begin earlier.
        let free_from = assignments
            .iter()
            .filter(|other| same != Some(*other))
            .filter_map(|other| other.until.or(other.from.checked_add(INSTANT).ok()))
            .max();
        if let Some(free_from) = free_from.filter(|free_from| from < *free_from) {
            let device = device.clone();
            return Err(RegistryError::AssignedOtherwise { device, free_from });
        }
        match same {
            Some(_) => {
                sqlx::query("DELETE FROM assignments WHERE device = $1 AND until_us IS NULL")
                    .bind(device.as_str())
                    .execute(&mut *conn)
                    .await?;
            }
            None => end(device, from, &mut *conn).await?,
        }
        sqlx::query("INSERT INTO assignments (device, from_us, subject) VALUES ($1, $2, $3)")
            .bind(device.as_str())
            .bind(us(from))
            .bind(subject.as_str())
            .execute(conn)
            .await?;
        let committed = tx.commit().await;
        self.changed(device);
        committed?;
        Ok(())
    }
}

/// Ends the assignment that lasts, if there is one.
pub(super) async fn end(
    device: &DeviceId,
    at: Timestamp,
    conn: &mut Connection,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE assignments SET until_us = $1 WHERE device = $2 AND until_us IS NULL")
        .bind(us(at))
        .bind(device.as_str())
        .execute(conn)
        .await
        .map(drop)
}

/// A device's assignments, oldest first.
pub(super) async fn of(
    device: &DeviceId,
    conn: &mut Connection,
) -> Result<Vec<Assignment>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT subject, from_us, until_us FROM assignments WHERE device = $1 ORDER BY from_us",
    )
    .bind(device.as_str())
    .fetch_all(conn)
    .await?;
    let mut assignments = Vec::with_capacity(rows.len());
    for row in rows {
        assignments.push(Assignment {
            subject: parsed(row.try_get("subject")?)?,
            from: at(row.try_get("from_us")?)?,
            until: at_opt(row.try_get("until_us")?)?,
        });
    }
    Ok(assignments)
}
