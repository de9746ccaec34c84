//! Who asks, for what purpose, and whose data they may see.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vitalseal_crypto::SubjectPseudonym;

use super::ParseError;

/// The login name of a person: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

impl UserName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError {
                what: "user name",
                expected: "1 to 64 of a-z, 0-9, '.', '_', '-'",
            })
        }
    }
}

impl TryFrom<String> for UserName {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of the house whose alerts are heard together: 1 to 32 of `a-z`, `0-9`, `-`. No patient is named by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ward(String);

impl Ward {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Alerts of the installation itself, not of a ward.
    #[must_use]
    pub fn system() -> Self {
        Self("system".to_owned())
    }
}

impl FromStr for Ward {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError {
                what: "ward",
                expected: "1 to 32 of a-z, 0-9, '-'",
            })
        }
    }
}

impl TryFrom<String> for Ward {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Ward> for String {
    fn from(ward: Ward) -> Self {
        ward.0
    }
}

impl fmt::Display for Ward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The wards whose alerts somebody may hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wards {
    /// These, and no other.
    These(BTreeSet<Ward>),
    /// Every ward, also those to come.
    All,
}

impl Default for Wards {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

/// What a person is here to do. A role alone opens no reading; see [`AccessPolicy`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Treats patients.
    Clinician,
    /// Data protection officer: erasure, evidence, reports.
    Dpo,
    /// Runs the installation.
    Admin,
}

impl Role {
    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clinician => "clinician",
            Self::Dpo => "dpo",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        [Self::Clinician, Self::Dpo, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(ParseError {
                what: "role",
                expected: "clinician, dpo or admin",
            })
    }
}

/// A person whose login was checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Login name.
    pub user: UserName,
    /// Role at the time of the check.
    pub role: Role,
}

/// A login that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authenticated {
    /// Who logged in.
    pub who: Identity,
    /// The first instant at which the token does not hold any more.
    pub until: Timestamp,
}

/// The declared reason of an access (GDPR 5(1)(b)): no access without one. Codes of HL7
/// `PurposeOfUse`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// Treatment of the patient.
    #[serde(rename = "TREAT")]
    Treatment,
    /// Emergency treatment.
    #[serde(rename = "ETREAT")]
    EmergencyTreatment,
    /// Payment for care.
    #[serde(rename = "HPAYMT")]
    Payment,
    /// Running the institution.
    #[serde(rename = "HOPERAT")]
    Operations,
    /// Research.
    #[serde(rename = "HRESCH")]
    Research,
    /// Public health.
    #[serde(rename = "PUBHLTH")]
    PublicHealth,
    /// The patient asked for it.
    #[serde(rename = "PATRQT")]
    PatientRequest,
}

impl Purpose {
    const ALL: [Self; 7] = [
        Self::Treatment,
        Self::EmergencyTreatment,
        Self::Payment,
        Self::Operations,
        Self::Research,
        Self::PublicHealth,
        Self::PatientRequest,
    ];

    /// The HL7 `PurposeOfUse` code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Treatment => "TREAT",
            Self::EmergencyTreatment => "ETREAT",
            Self::Payment => "HPAYMT",
            Self::Operations => "HOPERAT",
            Self::Research => "HRESCH",
            Self::PublicHealth => "PUBHLTH",
            Self::PatientRequest => "PATRQT",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(text))
            .ok_or(ParseError {
                what: "purpose",
                expected: "TREAT, ETREAT, HPAYMT, HOPERAT, HRESCH, PUBHLTH or PATRQT",
            })
    }
}

/// The patients that one access may see: the answer of an [`AccessPolicy`], carried to whatever
/// reads rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Authorized {
    patients: BTreeSet<SubjectPseudonym>,
}

impl Authorized {
    /// # Security
    /// Only an [`AccessPolicy`] makes one outside tests: what is in the set is released to the
    /// asker.
    #[must_use]
    pub fn new(patients: BTreeSet<SubjectPseudonym>) -> Self {
        Self { patients }
    }

    /// The patients, in order.
    #[must_use]
    pub fn patients(&self) -> &BTreeSet<SubjectPseudonym> {
        &self.patients
    }
}

/// Decides whose readings an identity may see for a purpose at an instant.
#[async_trait]
pub trait AccessPolicy: Send + Sync + fmt::Debug {
    /// The patients that `who` may see for `purpose`; an empty set is an answer, not an error.
    ///
    /// # Errors
    /// When the decision could not be made; the caller must then release nothing.
    async fn patients_readable_by(
        &self,
        who: &Identity,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Authorized, PolicyError>;
}

/// Turns a name and a short-lived token into an [`Identity`], until that token ends.
#[async_trait]
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// # Errors
    /// [`AuthenticationError::Refused`] whatever part was wrong; `Unavailable` when it could not be
    /// checked.
    async fn authenticate(
        &self,
        user: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<Authenticated, AuthenticationError>;
}

/// The policy could not decide.
#[derive(Debug, thiserror::Error)]
#[error("deciding whose readings may be seen")]
pub struct PolicyError(#[source] Box<dyn Error + Send + Sync>);

impl PolicyError {
    /// Wraps the cause.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// A login was not accepted. The text never says which part was wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// Name, token, validity or state of the user was not right.
    #[error("authentication failed")]
    Refused,
    /// It could not be checked.
    #[error("authentication is not available")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_spellings_read_back() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse::<Purpose>().unwrap(), purpose);
            assert_eq!(serde_json::to_value(purpose).unwrap(), purpose.as_str());
        }
        for role in [Role::Clinician, Role::Dpo, Role::Admin] {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }

    #[test]
    fn user_names_that_would_confuse_a_log_or_a_shell_are_refused() {
        for bad in ["", "A", "a b", "a\n", "é", "a/b", &"a".repeat(65)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<UserName>(bad.into()).is_err());
        }
        assert_eq!(
            "n.okafor-2".parse::<UserName>().unwrap().as_str(),
            "n.okafor-2"
        );
    }
}
