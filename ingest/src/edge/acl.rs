//! Who may say and hear what. A device has one topic to speak on and two to listen to; there is no third list.
//!
//! | Topic | Device may | Content |
//! |---|---|---|
//! | `v1/d/{device}/vitals` | publish | one envelope a message |
//! | `v1/d/{device}/down` | subscribe | receipts, commands |
//! | `v1/recipient` | subscribe, retained | the server's current envelope certificate |
//!
//! Filters are compared literally. A wildcard that would match only permitted topics is refused too: nobody needs it.

use vitalseal_crypto::DeviceId;

/// Topic of the server's current envelope certificate.
pub const RECIPIENT_TOPIC: &str = "v1/recipient";

/// What a device may subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Subscription {
    /// `v1/d/{device}/down`
    Down,
    /// `v1/recipient`
    Recipient,
}

/// The topics of one device.
#[derive(Debug, Clone)]
pub(crate) struct DeviceTopics {
    vitals: String,
    down: String,
}

impl DeviceTopics {
    pub(crate) fn new(device: &DeviceId) -> Self {
        Self {
            vitals: format!("v1/d/{device}/vitals"),
            down: format!("v1/d/{device}/down"),
        }
    }

    /// May the device publish here?
    pub(crate) fn may_publish(&self, topic: &[u8]) -> bool {
        topic == self.vitals.as_bytes()
    }

    /// What this filter subscribes to, `None` when it is not this device's to hear.
    pub(crate) fn subscription(&self, filter: &str) -> Option<Subscription> {
        match filter {
            RECIPIENT_TOPIC => Some(Subscription::Recipient),
            down if down == self.down => Some(Subscription::Down),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_topics_exist() {
        let topics = DeviceTopics::new(&"mon-7".parse().unwrap());
        assert!(topics.may_publish(b"v1/d/mon-7/vitals"));
        assert_eq!(
            topics.subscription("v1/d/mon-7/down"),
            Some(Subscription::Down)
        );
        assert_eq!(
            topics.subscription("v1/recipient"),
            Some(Subscription::Recipient)
        );

        for topic in [
            "",
            "/",
            "v1/d/mon-8/vitals",
            "v1/d/mon-7/down",
            "v1/d/mon-7/vitals/",
            "$SYS/x",
        ] {
            assert!(!topics.may_publish(topic.as_bytes()), "{topic}");
        }
        for filter in [
            "#",
            "+",
            "v1/#",
            "v1/d/+/down",
            "v1/d/mon-8/down",
            "v1/d/mon-7/vitals",
            "$share/a/v1/recipient",
        ] {
            assert_eq!(topics.subscription(filter), None, "{filter}");
        }
    }
}
