//! Who a connection proved to be, before it may say or hear anything.
//!
//! Never here: what that one may do (`acl`), or whether it is still welcome (`connection` asks the registry).

use std::fmt;
use std::sync::Arc;

use vitalseal_crypto::{DeviceCertificate, DeviceId, Thumbprint};

use super::acl::Permissions;

/// The proven peer of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// A device, by the certificate that it was enrolled with.
    Device {
        id: DeviceId,
        certificate: Thumbprint,
    },
}

impl Principal {
    pub(crate) fn of_certificate(certificate: &DeviceCertificate) -> Self {
        Self::Device {
            id: certificate.device().clone(),
            certificate: *certificate.thumbprint(),
        }
    }

    /// The name that its sessions are kept under.
    pub(crate) fn client_id(&self) -> ClientId {
        match self {
            Self::Device { id, .. } => ClientId::of_device(id),
        }
    }

    /// What it may say and hear.
    pub(crate) fn permissions(&self) -> Permissions {
        match self {
            Self::Device { id, .. } => Permissions::of_device(id),
        }
    }

    /// The device, if it is one: only devices publish.
    pub(crate) fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Device { id, .. } => Some(id),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client_id())
    }
}

/// The name under which a session is kept: unique over all kinds of principals, whatever a client calls itself.
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
