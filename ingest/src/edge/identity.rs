//! Who a connection proved to be, before it may say or hear anything.
//!
//! Never here: what that one may do (`acl`), or whether it is welcome (`welcome` asks the registry).

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_rustls::rustls::ServerConnection;
use vitalseal_crypto::{
    DeviceCertificate, DeviceId, Subscriber, SubscriberCertificate, Thumbprint,
};
use vitalseal_storage::{Actor, Identity};

use super::closing::Closing;

/// The proven peer of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// A device, by the certificate that it was enrolled with.
    Device {
        id: DeviceId,
        certificate: Thumbprint,
    },
    /// A display or a service, by the certificate that it was enrolled with.
    Subscriber {
        subscriber: Subscriber,
        certificate: Thumbprint,
    },
    /// A person, by a token.
    Person {
        who: Identity,
        /// The token holds until then.
        until: Timestamp,
        /// What the person's client calls itself.
        client: Box<str>,
    },
}

impl Principal {
    /// The name that its sessions are kept under.
    pub(crate) fn client_id(&self) -> ClientId {
        match self {
            Self::Device { id, .. } => ClientId::of_device(id),
            Self::Subscriber { subscriber, .. } => ClientId(subscriber.to_string().into()),
            Self::Person { who, client, .. } => {
                ClientId(format!("user:{}/{client}", who.user).into())
            }
        }
    }

    /// The device, if it is one: only devices publish.
    pub(crate) fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Device { id, .. } => Some(id),
            _ => None,
        }
    }

    /// As the audit log names it.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Self::Device { id, .. } => Actor::Device(id.clone()),
            Self::Subscriber { subscriber, .. } => Actor::Subscriber(subscriber.clone()),
            Self::Person { who, .. } => Actor::User(who.user.clone()),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client_id())
    }
}

/// The certificate that a peer showed in the handshake.
#[derive(Debug)]
pub(crate) enum Shown {
    Device(DeviceCertificate),
    Subscriber(SubscriberCertificate),
}

impl Shown {
    /// What was shown, `None` when nothing was.
    ///
    /// # Errors
    /// `Certificate` for one of another kind.
    pub(crate) fn of(tls: &ServerConnection) -> Result<Option<Self>, Closing> {
        let Some(leaf) = tls.peer_certificates().and_then(<[_]>::first) else {
            return Ok(None);
        };
        let device = DeviceCertificate::from_der(leaf).map(Self::Device);
        device
            .or_else(|_| SubscriberCertificate::from_der(leaf).map(Self::Subscriber))
            .map(Some)
            .map_err(|_| Closing::Certificate)
    }

    pub(crate) fn principal(&self) -> Principal {
        match self {
            Self::Device(certificate) => Principal::Device {
                id: certificate.device().clone(),
                certificate: *certificate.thumbprint(),
            },
            Self::Subscriber(certificate) => Principal::Subscriber {
                subscriber: certificate.subscriber().clone(),
                certificate: *certificate.thumbprint(),
            },
        }
    }

    /// TLS checked this too, but a resumed TLS session does not check it again.
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        let (from, until) = match self {
            Self::Device(certificate) => (certificate.not_before(), certificate.not_after()),
            Self::Subscriber(certificate) => (certificate.not_before(), certificate.not_after()),
        };
        from <= now && now <= until
    }
}

/// The name under which a session is kept: unique over all kinds of principals, whatever a client calls itself. A device's
/// is its id; those of the others have a colon, which no device id has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(Arc<str>);

impl ClientId {
    pub(crate) fn of_device(device: &DeviceId) -> Self {
        Self(device.as_str().into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
