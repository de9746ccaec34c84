//! The names that every envelope binds.
//!
//! Each kind of name is its own type with a checked constructor, so that a pseudonym can never stand where a
//! device id belongs. Names are not secrets, but a pseudonym is still personal data (GDPR 4(5)): its `Display`
//! and `Debug` are shortened, and only [`SubjectPseudonym::as_str`] gives the whole.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendError};

/// The largest boot or sequence counter: 2^53 - 1, so that a counter survives JSON and an SQL `BIGINT` unchanged.
pub const MAX_COUNTER: u64 = (1 << 53) - 1;

/// Why a name was refused. The text names the kind and the rule, never the refused value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not a device id.
    #[error("a device id is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit")]
    DeviceId,
    /// Not a pseudonym.
    #[error("a subject pseudonym is 'p' and 32 lower-case hexadecimal digits")]
    SubjectPseudonym,
    /// Not a key identifier.
    #[error("a key identifier is 1 to 32 bytes, written in hexadecimal")]
    Kid,
    /// Not a certificate thumbprint.
    #[error("a certificate thumbprint is 32 bytes, written in hexadecimal")]
    Thumbprint,
    /// Not a sender key's thumbprint.
    #[error("a sender key's identifier is 32 bytes, written in hexadecimal")]
    SenderKeyId,
}

/// A device: 1 to 64 of `[A-Za-z0-9._-]`, the first alphanumeric.
///
/// The same text is the certificate's common name, the MQTT client id, a topic level and a path component; the
/// alphabet is what is safe in all four.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(Box<str>);

impl DeviceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id's bytes, as the envelope's `iss` claim carries them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let first_is_plain = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let all_are_safe = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first_is_plain && all_are_safe && text.len() <= 64 {
            Ok(Self(text.into()))
        } else {
            Err(IdError::DeviceId)
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

/// A person measured, under the random pseudonym that stands for them: `p` and 32 lower-case hexadecimal digits.
///
/// It is drawn at random and derived from nothing, so only the identity map can resolve it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectPseudonym(Box<str>);

impl SubjectPseudonym {
    /// Draws a new pseudonym of 128 random bits.
    ///
    /// # Errors
    /// When the backend's random source fails.
    pub fn random(backend: &dyn Backend) -> Result<Self, BackendError> {
        let mut bytes = [0; 16];
        backend.fill_random(&mut bytes)?;
        Ok(Self(format!("p{}", hex::encode(bytes)).into()))
    }

    /// The whole pseudonym. It is personal data: not for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pseudonym's bytes, as the envelope's `sub` claim carries them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for SubjectPseudonym {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.strip_prefix('p').ok_or(IdError::SubjectPseudonym)?;
        let all_hex = digits
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() == 32 && all_hex {
            Ok(Self(text.into()))
        } else {
            Err(IdError::SubjectPseudonym)
        }
    }
}

/// Shortened (`pd4e9ab3…`), because logs are read by more people than the identity map.
impl fmt::Display for SubjectPseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.0.get(..8).unwrap_or_default();
        f.pad(&format!("{short}…"))
    }
}

impl fmt::Debug for SubjectPseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectPseudonym({self})")
    }
}

/// A key identifier of 1 to 32 bytes: a hint for finding a key, never evidence (RFC 9052 §3.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kid(Box<[u8]>);

impl Kid {
    /// Draws a new identifier of 16 random bytes.
    ///
    /// # Errors
    /// When the backend's random source fails.
    pub fn random(backend: &dyn Backend) -> Result<Self, BackendError> {
        let mut bytes = [0; 16];
        backend.fill_random(&mut bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Takes an identifier as it stands in a header.
    ///
    /// # Errors
    /// [`IdError::Kid`] unless it has 1 to 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        if (1..=32).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(IdError::Kid)
        }
    }

    /// The identifier's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Kid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::from_bytes(&hex::decode(text).map_err(|_| IdError::Kid)?)
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kid({self})")
    }
}

/// SHA-256 of a certificate's DER: what `x5t` in the countersignature names (RFC 9360 §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbprint([u8; 32]);

/// The SHA-256 thumbprint of a device's session key as a `COSE_Key` (RFC 9679 §3): what `-3` names.
///
/// It certifies itself: whoever looks a key up by it can check that the right one was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SenderKeyId([u8; 32]);

/// The forms of an id that is a SHA-256 hash: 32 bytes, and hexadecimal text.
macro_rules! hash_forms {
    ($($id:ident)*) => {$(
        impl $id {
            /// Takes the 32 bytes of a hash.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The hash.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $id {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::$id)
            }
        }

        impl FromStr for $id {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::$id)?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($id))
            }
        }
    )*};
}

hash_forms! { Thumbprint SenderKeyId }

/// The serde form of every text id: its whole text, checked again on the way in.
macro_rules! text_form {
    ($($id:ident => $text:expr;)*) => {$(
        impl TryFrom<String> for $id {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                let text: fn(&$id) -> String = $text;
                text(&id)
            }
        }
    )*};
}

text_form! {
    DeviceId => |id| id.as_str().to_owned();
    SubjectPseudonym => |id| id.as_str().to_owned();
    Kid => |id| hex::encode(&id.0);
    Thumbprint => |id| hex::encode(id.0);
    SenderKeyId => |id| hex::encode(id.0);
}

/// Names one message for ever: a device, its boot, and the sequence within that boot.
///
/// The same triple over other signed bytes is proof that two devices hold one key (a fork).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MessageId {
    /// The device that signed.
    pub device: DeviceId,
    /// Counts the device's starts; at most [`MAX_COUNTER`].
    pub boot: u64,
    /// Counts messages within a boot; at most [`MAX_COUNTER`].
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.device, self.boot, self.sequence)
    }
}

/// One generation of a key, between two rotations.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct KeyEpoch(pub u64);

impl KeyEpoch {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for KeyEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for KeyEpoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_is_safe_in_a_topic_a_name_and_a_path() {
        for good in ["a", "monitor-001", "A.b_c-9", &"x".repeat(64)] {
            let id: DeviceId = good.parse().unwrap();
            assert_eq!((id.as_str(), id.as_bytes()), (good, good.as_bytes()));
        }
        for bad in [
            "",
            "-a",
            ".",
            "..",
            "a/b",
            "a+b",
            "a#",
            "ä",
            "a b",
            "a\0",
            &"x".repeat(65),
        ] {
            assert_eq!(bad.parse::<DeviceId>(), Err(IdError::DeviceId));
        }
    }

    #[test]
    fn names_of_keys_and_messages_print_as_they_are_written_in_logs() {
        let kid = Kid::from_bytes(&[0x06, 0xa6]).unwrap();
        assert_eq!(
            (kid.to_string(), format!("{kid:?}")),
            ("06a6".into(), "Kid(06a6)".into())
        );
        let id = MessageId {
            device: "monitor-001".parse().unwrap(),
            boot: 7,
            sequence: 100,
        };
        assert_eq!(id.to_string(), "monitor-001/7/100");
        let epoch: KeyEpoch = "41".parse().unwrap();
        assert_eq!(
            (epoch, epoch.next().to_string()),
            (KeyEpoch(41), "42".into())
        );
        assert_eq!(KeyEpoch(u64::MAX).next(), KeyEpoch(u64::MAX));
    }

    #[test]
    fn a_pseudonym_prints_shortened_and_serializes_whole() {
        let text = "pd4e9ab304d4896f9e17fd8f0816496da";
        let subject: SubjectPseudonym = text.parse().unwrap();
        assert_eq!(subject.as_bytes(), text.as_bytes());
        assert_eq!(subject.to_string(), "pd4e9ab3…");
        assert_eq!(format!("{subject:?}"), "SubjectPseudonym(pd4e9ab3…)");
        assert_eq!(
            serde_json::to_string(&subject).unwrap(),
            format!("\"{text}\"")
        );
        for bad in [
            "",
            "p",
            "pD4e9ab304d4896f9e17fd8f0816496da",
            &text[1..],
            &format!("{text}0"),
        ] {
            assert_eq!(
                bad.parse::<SubjectPseudonym>(),
                Err(IdError::SubjectPseudonym)
            );
        }
    }

    #[test]
    fn serde_checks_again_on_the_way_in() {
        assert!(serde_json::from_str::<DeviceId>("\"a/b\"").is_err());
        assert!(serde_json::from_str::<Kid>("\"\"").is_err());
        assert!(serde_json::from_str::<Thumbprint>("\"00\"").is_err());
        assert!(serde_json::from_str::<SenderKeyId>("\"00\"").is_err());
        let kid: Kid = serde_json::from_str("\"06a68a02f0e161af\"").unwrap();
        assert_eq!(serde_json::to_string(&kid).unwrap(), "\"06a68a02f0e161af\"");
    }
}
