//! Why a message was kept aside instead of stored, and whether a person may overrule it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vitalseal_crypto::envelope::Rule;

use super::ParseError;

/// Why a message was kept aside instead of stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QuarantineReason {
    /// Not an envelope.
    Shape,
    /// An algorithm outside the allow-list.
    Algorithm,
    /// The identity in the envelope is not the certificate's.
    Identity,
    /// The signature does not hold.
    Signature,
    /// Sealed to a key that is not held (any more).
    UnknownKey,
    /// The content key does not unwrap.
    Unwrap,
    /// The content key is not the one that the header commits to.
    Commitment,
    /// The content does not open.
    Open,
    /// The content is not a known payload.
    Payload,
    /// A value outside the hard range.
    Implausible,
    /// The device is not enrolled, or revoked.
    DeviceNotActive,
    /// The device is not assigned to the patient that the envelope names, or was not when it measured.
    NotAssigned,
    /// The patient was erased.
    PatientErased,
    /// It contradicts a stored message of its device, in its counters or in the chain: proof of a clone.
    Fork,
    /// It was sealed while another boot of its device ran: proof of a clone, or of a clock that went back.
    BootsOverlap,
    /// Sealed later than it came, by more than clocks differ.
    NotYet,
    /// Too old, or old and without a chain that proves its order.
    Stale,
    /// Larger than an envelope may be.
    TooLarge,
}

impl QuarantineReason {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Shape,
        Self::Algorithm,
        Self::Identity,
        Self::Signature,
        Self::UnknownKey,
        Self::Unwrap,
        Self::Commitment,
        Self::Open,
        Self::Payload,
        Self::Implausible,
        Self::DeviceNotActive,
        Self::NotAssigned,
        Self::PatientErased,
        Self::Fork,
        Self::BootsOverlap,
        Self::NotYet,
        Self::Stale,
        Self::TooLarge,
    ];

    /// Whether a person may decide to store such a message all the same: what speaks against it is a time, an order or a
    /// state of which they may know better. Never what its bytes, keys or signature say, and never an implausible value:
    /// whoever reads stored values relies on the hard range.
    #[must_use]
    pub fn is_releasable(self) -> bool {
        matches!(
            self,
            Self::DeviceNotActive
                | Self::NotAssigned
                | Self::NotYet
                | Self::Stale
                | Self::BootsOverlap
        )
    }

    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Algorithm => "algorithm",
            Self::Identity => "identity",
            Self::Signature => "signature",
            Self::UnknownKey => "unknown_key",
            Self::Unwrap => "unwrap",
            Self::Commitment => "commitment",
            Self::Open => "open",
            Self::Payload => "payload",
            Self::Implausible => "implausible",
            Self::DeviceNotActive => "device_not_active",
            Self::NotAssigned => "not_assigned",
            Self::PatientErased => "patient_erased",
            Self::Fork => "fork",
            Self::BootsOverlap => "boots_overlap",
            Self::NotYet => "not_yet",
            Self::Stale => "stale",
            Self::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for QuarantineReason {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or(ParseError {
                what: "quarantine reason",
                expected: "one of the stored spellings",
            })
    }
}

impl From<Rule> for QuarantineReason {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Shape => Self::Shape,
            Rule::Algorithm => Self::Algorithm,
            Rule::Identity => Self::Identity,
            Rule::Signature => Self::Signature,
            Rule::UnknownKey => Self::UnknownKey,
            Rule::Unwrap => Self::Unwrap,
            Rule::Commitment => Self::Commitment,
            Rule::Open => Self::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_back() {
        for reason in QuarantineReason::ALL {
            assert_eq!(reason.as_str().parse::<QuarantineReason>().unwrap(), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
