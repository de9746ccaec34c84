//! Whose readings an identity may see.

use async_trait::async_trait;
use jiff::Timestamp;
use vitalseal_storage::Registry;
use vitalseal_storage::ports::{AccessPolicy, Authorized, Identity, PolicyError, Purpose, Role};

/// Clinicians see, for treatment, the patients of their care teams. Administrators and the data protection officer see
/// nobody: their work needs counts and evidence, not readings. Every other purpose opens nothing yet.
#[derive(Clone, Debug)]
pub struct CareTeamPolicy {
    registry: Registry,
}

impl CareTeamPolicy {
    /// Reads care teams from `registry`.
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }
}

#[async_trait]
impl AccessPolicy for CareTeamPolicy {
    async fn patients_readable_by(
        &self,
        who: &Identity,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Authorized, PolicyError> {
        match (who.role, purpose) {
            (Role::Clinician, Purpose::Treatment) => {
                let patients = self
                    .registry
                    .grants_of(&who.user, now)
                    .await
                    .map_err(PolicyError::new)?;
                Ok(Authorized::new(patients.into_iter().collect()))
            }
            (Role::Clinician | Role::Dpo | Role::Admin, _) => Ok(Authorized::default()),
        }
    }
}
