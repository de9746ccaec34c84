//! What kind of breach an incident is.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vitalseal_storage::ParseError;

/// Which property of the data suffered; one incident may hurt several (EDPB Guidelines 9/2022 §I.B.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Disclosed to, or accessed by, somebody without right.
    Confidentiality,
    /// Altered.
    Integrity,
    /// Lost, destroyed or out of reach.
    Availability,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A password, second factor or token in the wrong hands.
    CredentialMisuse,
    /// A device or its key in the wrong hands.
    DeviceCompromise,
    /// A key was lost or destroyed by mistake: a permanent loss of availability, not an erasure.
    KeyLoss,
    /// Somebody with a login looked at what they had no reason to see.
    UnauthorizedAccess,
    /// Something else.
    Other,
}

/// A cause and its effects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentKind {
    /// What happened.
    pub cause: Cause,
    /// What suffered; never empty.
    pub effects: BTreeSet<Effect>,
}

/// What is known about the keys that protect the data concerned. Only a person can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyExposure {
    /// Nobody has looked into it yet.
    #[default]
    Unknown,
    /// Patient keys, the root and the identity map were found not to be exposed.
    Safe,
    /// At least one of them was exposed.
    Exposed,
}

impl Effect {
    const ALL: [Self; 3] = [Self::Confidentiality, Self::Integrity, Self::Availability];

    /// The spelling in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confidentiality => "confidentiality",
            Self::Integrity => "integrity",
            Self::Availability => "availability",
        }
    }
}

impl Cause {
    const ALL: [Self; 5] = [
        Self::CredentialMisuse,
        Self::DeviceCompromise,
        Self::KeyLoss,
        Self::UnauthorizedAccess,
        Self::Other,
    ];

    /// The spelling in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CredentialMisuse => "credential_misuse",
            Self::DeviceCompromise => "device_compromise",
            Self::KeyLoss => "key_loss",
            Self::UnauthorizedAccess => "unauthorized_access",
            Self::Other => "other",
        }
    }

    /// For a sentence.
    pub fn describe(self) -> &'static str {
        match self {
            Self::CredentialMisuse => "misuse of a credential",
            Self::DeviceCompromise => "compromise of a device",
            Self::KeyLoss => "loss of a key",
            Self::UnauthorizedAccess => "access without a reason by somebody who may log in",
            Self::Other => "another cause",
        }
    }

    /// The effects to assume until somebody has looked closer. A stolen device key can sign false readings and seal nothing
    /// else; for an unknown cause all three are assumed.
    fn usual_effects(self) -> BTreeSet<Effect> {
        match self {
            Self::CredentialMisuse | Self::UnauthorizedAccess => [Effect::Confidentiality].into(),
            Self::DeviceCompromise => [Effect::Confidentiality, Effect::Integrity].into(),
            Self::KeyLoss => [Effect::Availability].into(),
            Self::Other => Effect::ALL.into(),
        }
    }
}

impl From<Cause> for IncidentKind {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            effects: cause.usual_effects(),
        }
    }
}

/// `credential_misuse`, or with effects of one's own: `other:integrity+availability`.
impl FromStr for IncidentKind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (cause, effects) = match text.split_once(':') {
            Some((cause, effects)) => (cause, Some(effects)),
            None => (text, None),
        };
        let cause = Cause::ALL
            .into_iter()
            .find(|known| known.as_str() == cause.replace('-', "_"))
            .ok_or(ParseError {
                what: "incident kind",
                expected: "credential_misuse, device_compromise, key_loss, unauthorized_access or other",
            })?;
        let Some(effects) = effects else {
            return Ok(cause.into());
        };
        let effects = effects
            .split('+')
            .map(|effect| {
                Effect::ALL
                    .into_iter()
                    .find(|known| known.as_str() == effect)
            })
            .collect::<Option<_>>()
            .ok_or(ParseError {
                what: "effect of an incident",
                expected: "confidentiality, integrity or availability, joined with '+'",
            })?;
        Ok(Self { cause, effects })
    }
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effects: Vec<_> = self.effects.iter().map(|effect| effect.as_str()).collect();
        write!(f, "{}:{}", self.cause.as_str(), effects.join("+"))
    }
}

impl fmt::Display for KeyExposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Safe => "not exposed, as recorded when the incident was opened",
            Self::Exposed => "exposed, as recorded when the incident was opened",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back() {
        for cause in Cause::ALL {
            let kind = IncidentKind::from(cause);
            assert!(!kind.effects.is_empty());
            assert_eq!(kind.to_string().parse::<IncidentKind>().unwrap(), kind);
            assert_eq!(cause.as_str().parse::<IncidentKind>().unwrap(), kind);
        }
        let own: IncidentKind = "other:integrity+availability".parse().unwrap();
        assert_eq!(
            own.effects,
            [Effect::Integrity, Effect::Availability].into()
        );
        for bad in [
            "",
            "burglary",
            "other:",
            "other:secrecy",
            "other:integrity,availability",
        ] {
            assert!(bad.parse::<IncidentKind>().is_err(), "{bad:?}");
        }
    }
}
