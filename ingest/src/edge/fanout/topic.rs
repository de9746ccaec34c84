//! The topics that the server speaks on. There are no others, so that no client's bytes reach the router.

use vitalseal_storage::Ward;

use super::super::acl::{ALERTS_PREFIX, NOTICES_TOPIC, RECIPIENT_TOPIC};

/// A topic that the server publishes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Topic {
    /// `v1/recipient`, retained: the current envelope certificate.
    Recipient,
    /// `v1/notices`: to every device.
    Notices,
    /// `v1/alerts/{ward}`
    Alerts(Ward),
}

impl Topic {
    /// As it stands in a packet: ASCII, and so nothing that the router would choke on.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Recipient => RECIPIENT_TOPIC.to_owned(),
            Self::Notices => NOTICES_TOPIC.to_owned(),
            Self::Alerts(ward) => format!("{ALERTS_PREFIX}{ward}"),
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            RECIPIENT_TOPIC => Some(Self::Recipient),
            NOTICES_TOPIC => Some(Self::Notices),
            _ => {
                let ward = name.strip_prefix(ALERTS_PREFIX)?;
                ward.parse().ok().map(Self::Alerts)
            }
        }
    }

    /// Whether a new subscriber gets the newest message (v3.1.1 3.3.1.3).
    pub(crate) fn is_retained(&self) -> bool {
        matches!(self, Self::Recipient)
    }

    /// Messages that are kept for those who are behind. Of a retained topic only the newest counts.
    pub(crate) fn kept(&self) -> usize {
        match self {
            Self::Recipient => 1,
            Self::Notices => 64,
            Self::Alerts(_) => 1_024,
        }
    }
}
