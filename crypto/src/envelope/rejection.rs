//! Why an envelope was refused: for our own log and the quarantine, never for the peer.

use std::fmt;

/// The rule that an envelope broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Not the profile's CBOR: structure, determinism, label, length or size.
    Shape,
    /// An algorithm outside the allow-list.
    Algorithm,
    /// The signer's certificate is another one, or is not the issuer's.
    Identity,
    /// The countersignature does not verify.
    Signature,
    /// No key is held for the recipient, or the sender's key is only named and was never sent.
    UnknownKey,
    /// The content key could not be unwrapped.
    Unwrap,
    /// The unwrapped key is not the one that the device signed for.
    Commitment,
    /// The ciphertext does not open.
    Open,
}

impl Rule {
    /// The rule in lower-case snake form.
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
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A refused envelope: the rule it broke, and a fixed sentence for whoever reads the quarantine.
///
/// The sentence holds nothing from the envelope. A peer gets neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("envelope refused ({rule}): {detail}")]
#[non_exhaustive]
pub struct Rejection {
    /// The rule that was broken.
    pub rule: Rule,
    detail: &'static str,
}

impl Rejection {
    pub(crate) fn new(rule: Rule, detail: &'static str) -> Self {
        Self { rule, detail }
    }

    pub(crate) fn shape(detail: &'static str) -> Self {
        Self::new(Rule::Shape, detail)
    }

    /// The fixed sentence: which part of the rule.
    pub fn detail(&self) -> &'static str {
        self.detail
    }
}
