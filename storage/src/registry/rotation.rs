//! A new KEK for a patient who stays.

use jiff::Timestamp;
use sqlx::Row as _;
use vitalseal_crypto::{Kek, Kid, SubjectPseudonym};

use super::patients::{open_identity, seal_identity};
use super::{Registry, RegistryError};
use crate::keys::KeyError;

/// What a rotation of a patient's KEK did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KekRotation {
    /// The KEK that wraps nothing new from now on; what it wrapped still opens.
    pub retired: Kid,
    /// The KEK in its place.
    pub current: Kid,
}

impl Registry {
    /// Gives the patient a new KEK, for all that comes, and seals the identity under it. The old one is retired: stored
    /// envelopes are wrapped under it, so it stays on its page until nothing needs it, and an erasure destroys both.
    ///
    /// # Errors
    /// [`RegistryError::UnknownPatient`] and [`RegistryError::PatientErased`]; others when it is not durable, and then
    /// nothing has changed.
    pub async fn rotate_kek(
        &self,
        subject: &SubjectPseudonym,
        now: Timestamp,
    ) -> Result<KekRotation, RegistryError> {
        // No erasure or other rotation between reading the old key and writing the new one.
        let _alone = self.keys.alone().await;
        let backend = self.keys.backend();
        let fresh = Kek::generate(backend)?;
        let keys = self.keys.patient_keys(subject).await?;
        let tree = self.keys.tree().await;
        let mut tx = self.db.begin().await?;
        Self::require_active(subject, tx.connection()).await?;
        let keys = keys.ok_or_else(|| KeyError::UnknownPatient(subject.clone()))?;
        let row = sqlx::query("SELECT identity FROM patients WHERE subject = $1")
            .bind(subject.as_str())
            .fetch_one(tx.connection())
            .await?;
        let identity = match row.try_get::<Option<&[u8]>, _>("identity")? {
            Some(sealed) => {
                let identity = open_identity(subject, &keys, sealed)?;
                Some(seal_identity(subject, &fresh, &identity)?)
            }
            None => None,
        };
        tree.replace_kek(subject, &fresh, tx.connection(), now)
            .await?;
        sqlx::query("UPDATE patients SET identity = $1 WHERE subject = $2")
            .bind(identity)
            .bind(subject.as_str())
            .execute(tx.connection())
            .await?;
        let committed = tx.commit().await;
        self.keys.forget(subject);
        committed?;
        Ok(KekRotation {
            retired: keys.current().kid().clone(),
            current: fresh.kid().clone(),
        })
    }
}
