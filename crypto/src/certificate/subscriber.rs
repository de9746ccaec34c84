//! The certificate of whoever only listens: a ward display, or a service that carries alerts on.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::parsed::{self, Leaf};
use super::{CertificateError, certificate_accessors};
use crate::backend::{Backend, P256Point, default_backend};
use crate::ids::{DeviceId, Thumbprint};
use crate::pem;

/// What stands between the role and the name in a common name. No [`DeviceId`] has one, so that neither certificate can
/// ever be read as the other.
const SEPARATOR: char = ':';

/// A subscriber's certificate. Its common name says what it is for: `display:icu-door` or `service:pager`.
///
/// Key usage, where it stands, must include `digitalSignature`, and extended key usage `clientAuth`.
#[derive(Clone, PartialEq, Eq)]
pub struct SubscriberCertificate {
    leaf: Leaf,
    subscriber: Subscriber,
    thumbprint: Thumbprint,
}

impl SubscriberCertificate {
    /// Reads a certificate. This proves nothing about who issued it.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let leaf = Leaf::read(der, |may| {
            may.digital_signature.unwrap_or(true) && may.client_auth.unwrap_or(true)
        })?;
        let subscriber = leaf
            .common_name
            .parse()
            .map_err(|_| CertificateError::Malformed("its common name is no subscriber"))?;
        let thumbprint = Thumbprint::from_bytes(default_backend().sha256(&[der]));
        Ok(Self {
            leaf,
            subscriber,
            thumbprint,
        })
    }

    /// The subscriber: the certificate's common name.
    pub fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// SHA-256 of the DER, as it was enrolled.
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }
}

certificate_accessors! { SubscriberCertificate }

impl fmt::Debug for SubscriberCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriberCertificate")
            .field("subscriber", &self.subscriber)
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

/// What a subscriber is there for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriberRole {
    /// Shows the alerts of its wards.
    Display,
    /// Carries alerts on; may be given every ward.
    Service,
}

impl SubscriberRole {
    /// The spelling in certificates and in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Display => "display",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for SubscriberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A display or a service by its name. As text, and in its certificate: `display:icu-door`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subscriber {
    role: SubscriberRole,
    name: Box<str>,
}

/// Not a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a subscriber is `display:` or `service:` and a name of 1 to 64 of A-Z a-z 0-9 . _ - that begins with a letter or digit"
)]
pub struct NoSubscriber;

impl Subscriber {
    /// A name has the alphabet of a [`DeviceId`].
    ///
    /// # Errors
    /// [`NoSubscriber`].
    pub fn new(role: SubscriberRole, name: &str) -> Result<Self, NoSubscriber> {
        let plain: DeviceId = name.parse().map_err(|_| NoSubscriber)?;
        let name = plain.as_str().into();
        Ok(Self { role, name })
    }

    /// What it is there for.
    pub fn role(&self) -> SubscriberRole {
        self.role
    }
}

impl FromStr for Subscriber {
    type Err = NoSubscriber;

    fn from_str(text: &str) -> Result<Self, NoSubscriber> {
        let (role, name) = text.split_once(SEPARATOR).ok_or(NoSubscriber)?;
        let role = [SubscriberRole::Display, SubscriberRole::Service]
            .into_iter()
            .find(|known| known.as_str() == role);
        Self::new(role.ok_or(NoSubscriber)?, name)
    }
}

impl TryFrom<String> for Subscriber {
    type Error = NoSubscriber;

    fn try_from(text: String) -> Result<Self, NoSubscriber> {
        text.parse()
    }
}

impl From<Subscriber> for String {
    fn from(subscriber: Subscriber) -> Self {
        subscriber.to_string()
    }
}

impl fmt::Display for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{SEPARATOR}{}", self.role, self.name)
    }
}
