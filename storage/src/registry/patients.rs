//! Patients: a random pseudonym, a KEK, and an identity that only the KEK opens.
//!
//! ```text
//! identity = KEK-sealed JSON {"name":…,"mrn":…},  context = "vitalseal/identity/1" || 0x00 || pseudonym
//! ```

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use vitalseal_crypto::{Kek, PatientKeys, SubjectPseudonym};
use zeroize::Zeroizing;

use super::{Registry, RegistryError};
use crate::database::{self, Connection, at, at_opt, damaged, parsed, us};

/// Whether a patient's key still exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatientState {
    /// Readings can be opened.
    Active,
    /// Tombstone: the key is gone, for ever.
    Erased,
}

impl PatientState {
    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Erased => "erased",
        }
    }
}

/// The person behind a pseudonym.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatientIdentity {
    /// Name.
    pub name: Option<String>,
    /// Medical record number.
    pub mrn: Option<String>,
}

impl fmt::Debug for PatientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatientIdentity").finish_non_exhaustive()
    }
}

/// A patient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatientRow {
    /// Pseudonym.
    pub subject: SubjectPseudonym,
    /// State.
    pub state: PatientState,
    /// When added.
    pub created_at: Timestamp,
    /// When erased.
    pub erased_at: Option<Timestamp>,
    /// The person; `None` when none was given, and after an erasure.
    pub identity: Option<PatientIdentity>,
}

/// What is known of a patient without opening anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatientStateRow {
    /// Pseudonym.
    pub subject: SubjectPseudonym,
    /// State.
    pub state: PatientState,
    /// When erased.
    pub erased_at: Option<Timestamp>,
}

fn context(subject: &SubjectPseudonym) -> Vec<u8> {
    [b"vitalseal/identity/1\0", subject.as_bytes()].concat()
}

fn read_state(row: &database::Row) -> Result<PatientState, sqlx::Error> {
    Ok(match row.try_get("state")? {
        "active" => PatientState::Active,
        _ => PatientState::Erased,
    })
}

pub(super) fn seal_identity(
    subject: &SubjectPseudonym,
    kek: &Kek,
    identity: &PatientIdentity,
) -> Result<Vec<u8>, RegistryError> {
    let json =
        Zeroizing::new(serde_json::to_vec(identity).map_err(|e| sqlx::Error::Encode(Box::new(e)))?);
    Ok(kek.seal(&context(subject), &json)?)
}

/// Under whichever of the patient's keys: a rotation may have come between reading the row and the keys.
pub(super) fn open_identity(
    subject: &SubjectPseudonym,
    keys: &PatientKeys,
    sealed: &[u8],
) -> Result<PatientIdentity, RegistryError> {
    let context = context(subject);
    let mut opened = keys.current().open(&context, sealed);
    for kek in keys.all().skip(1) {
        opened = opened.or_else(|_| kek.open(&context, sealed));
    }
    Ok(serde_json::from_slice(&opened?).map_err(damaged)?)
}

impl Registry {
    /// Adds a patient: draws a pseudonym and a KEK, and seals the identity under it.
    ///
    /// # Errors
    /// When it is not durable.
    pub async fn add_patient(
        &self,
        name: Option<&str>,
        mrn: Option<&str>,
        now: Timestamp,
    ) -> Result<SubjectPseudonym, RegistryError> {
        let identity = (name.is_some() || mrn.is_some()).then(|| PatientIdentity {
            name: name.map(str::to_owned),
            mrn: mrn.map(str::to_owned),
        });
        let mut added = self.add_patients([identity], now).await?;
        added.pop().ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// Adds many patients, all or none, as an import does: one transaction for all of them.
    ///
    /// # Errors
    /// When it is not durable; then none was added.
    pub async fn add_patients(
        &self,
        identities: impl IntoIterator<Item = Option<PatientIdentity>, IntoIter: Send> + Send,
        now: Timestamp,
    ) -> Result<Vec<SubjectPseudonym>, RegistryError> {
        let backend = self.keys.backend();
        let tree = self.keys.tree().await;
        let mut tx = self.db.begin().await?;
        let mut added = Vec::new();
        for identity in identities {
            let subject = SubjectPseudonym::random(backend)?;
            let kek = Kek::generate(backend)?;
            let sealed = identity
                .map(|identity| seal_identity(&subject, &kek, &identity))
                .transpose()?;
            sqlx::query(
                "INSERT INTO patients (subject, state, identity, created_at_us) VALUES ($1, 'active', $2, $3)",
            )
            .bind(subject.as_str())
            .bind(sealed)
            .bind(us(now))
            .execute(tx.connection())
            .await?;
            tree.add_kek(&subject, &kek, backend, tx.connection(), now)
                .await?;
            added.push(subject);
        }
        tx.commit().await?;
        Ok(added)
    }

    /// Every patient, oldest first, tombstones among them.
    ///
    /// # Errors
    /// When the registry cannot be read or an identity does not open.
    pub async fn patients(&self) -> Result<Vec<PatientRow>, RegistryError> {
        let rows = sqlx::query("SELECT * FROM patients ORDER BY created_at_us, subject")
            .fetch_all(self.db.pool())
            .await?;
        let mut patients = Vec::with_capacity(rows.len());
        for row in &rows {
            patients.push(self.read_patient(row).await?);
        }
        Ok(patients)
    }

    /// A patient or the tombstone of one.
    ///
    /// # Errors
    /// As [`Registry::patients`].
    pub async fn patient(
        &self,
        subject: &SubjectPseudonym,
    ) -> Result<Option<PatientRow>, RegistryError> {
        let row = sqlx::query("SELECT * FROM patients WHERE subject = $1")
            .bind(subject.as_str())
            .fetch_optional(self.db.pool())
            .await?;
        match row {
            Some(row) => Ok(Some(self.read_patient(&row).await?)),
            None => Ok(None),
        }
    }

    /// Every patient and tombstone, oldest first, without the identity: no key is used, so that one damaged identity
    /// can not stand in the way of a report or an erasure.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn patient_states(&self) -> Result<Vec<PatientStateRow>, RegistryError> {
        let rows = sqlx::query(
            "SELECT subject, state, erased_at_us FROM patients ORDER BY created_at_us, subject",
        )
        .fetch_all(self.db.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(PatientStateRow {
                    subject: parsed(row.try_get("subject")?)?,
                    state: read_state(row)?,
                    erased_at: at_opt(row.try_get("erased_at_us")?)?,
                })
            })
            .collect()
    }

    async fn read_patient(&self, row: &database::Row) -> Result<PatientRow, RegistryError> {
        let subject: SubjectPseudonym = parsed(row.try_get("subject")?)?;
        let state = read_state(row)?;
        let identity = match row.try_get::<Option<&[u8]>, _>("identity")? {
            // Without a key it was erased since the row was read.
            Some(sealed) => match self.keys.patient_keys(&subject).await? {
                Some(keys) => Some(open_identity(&subject, &keys, sealed)?),
                None => None,
            },
            None => None,
        };
        Ok(PatientRow {
            subject,
            state,
            created_at: at(row.try_get("created_at_us")?)?,
            erased_at: at_opt(row.try_get("erased_at_us")?)?,
            identity,
        })
    }

    /// Refuses what must not happen to a patient who is not there or was erased.
    pub(super) async fn require_active(
        subject: &SubjectPseudonym,
        conn: &mut Connection,
    ) -> Result<(), RegistryError> {
        let state: Option<String> =
            sqlx::query_scalar("SELECT state FROM patients WHERE subject = $1")
                .bind(subject.as_str())
                .fetch_optional(conn)
                .await?;
        match state.as_deref() {
            Some("active") => Ok(()),
            Some(_) => Err(RegistryError::PatientErased(subject.clone())),
            None => Err(RegistryError::UnknownPatient(subject.clone())),
        }
    }
}
