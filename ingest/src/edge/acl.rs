//! Who may say and hear what. Deny is the default; there is no list but this one.
//!
//! | Topic | Who | What |
//! |---|---|---|
//! | `v1/d/{device}/vitals` | that device publishes | one envelope a message |
//! | `v1/d/{device}/down` | that device subscribes | what is meant for it alone |
//! | `v1/recipient` (retained) | devices subscribe | the server's current envelope certificate |
//! | `v1/notices` | devices subscribe | what the operator tells every device |
//! | `v1/alerts/{ward}` | displays, services and people subscribe, to their wards | alerts |
//!
//! Filters are compared literally. The one wildcard is `v1/alerts/+`, for a service that may hear every ward: nobody else
//! needs one.

use vitalseal_crypto::DeviceId;
use vitalseal_storage::Wards;

use super::fanout::Topic;

/// Topic of the server's current envelope certificate.
pub const RECIPIENT_TOPIC: &str = "v1/recipient";

/// Topic of what is told to every device.
pub const NOTICES_TOPIC: &str = "v1/notices";

/// What the alert topics begin with; the ward follows.
pub(crate) const ALERTS_PREFIX: &str = "v1/alerts/";

/// What a session may subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Subscription {
    /// `v1/d/{device}/down`
    Down,
    /// `v1/recipient` or `v1/notices` or `v1/alerts/{ward}`
    Topic(Topic),
    /// `v1/alerts/+`
    AllAlerts,
}

impl Subscription {
    /// Does what is published there concern it?
    pub(crate) fn covers(&self, topic: &Topic) -> bool {
        match self {
            Self::Down => false,
            Self::Topic(own) => own == topic,
            Self::AllAlerts => matches!(topic, Topic::Alerts(_)),
        }
    }
}

/// What one principal may do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permissions {
    vitals: Option<String>,
    down: Option<String>,
    wards: Wards,
}

impl Permissions {
    /// A device: its own topics, and what is for all devices.
    pub(crate) fn of_device(device: &DeviceId) -> Self {
        Self {
            vitals: Some(format!("v1/d/{device}/vitals")),
            down: Some(format!("v1/d/{device}/down")),
            wards: Wards::default(),
        }
    }

    /// Whoever only listens, and to alerts alone.
    pub(crate) fn of_listener(wards: Wards) -> Self {
        Self {
            wards,
            ..Self::default()
        }
    }

    /// May it publish here?
    pub(crate) fn may_publish(&self, topic: &[u8]) -> bool {
        self.vitals
            .as_ref()
            .is_some_and(|own| own.as_bytes() == topic)
    }

    /// May it go on hearing what it subscribed to before?
    pub(crate) fn may_hear(&self, subscription: &Subscription) -> bool {
        match (subscription, &self.wards) {
            (Subscription::Down | Subscription::Topic(Topic::Recipient | Topic::Notices), _) => {
                self.down.is_some()
            }
            (Subscription::Topic(Topic::Alerts(_)) | Subscription::AllAlerts, Wards::All) => true,
            (Subscription::Topic(Topic::Alerts(ward)), Wards::These(these)) => these.contains(ward),
            (Subscription::AllAlerts, Wards::These(_)) => false,
        }
    }

    /// What this filter subscribes to, `None` when it is not for this principal to hear.
    pub(crate) fn subscription(&self, filter: &str) -> Option<Subscription> {
        let subscription = if self.down.as_deref() == Some(filter) {
            Subscription::Down
        } else if filter.strip_prefix(ALERTS_PREFIX) == Some("+") {
            Subscription::AllAlerts
        } else {
            Subscription::Topic(Topic::parse(filter)?)
        };
        self.may_hear(&subscription).then_some(subscription)
    }

    /// The name under which `down` messages go out.
    pub(crate) fn down(&self) -> Option<&str> {
        self.down.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILTERS: [&str; 16] = [
        "",
        "/",
        "#",
        "+",
        "$SYS/#",
        "v1/#",
        "v1/+",
        "v1/d/+/down",
        "v1/d/mon-8/down",
        "v1/d/mon-7/vitals",
        "v1/d/mon-7/down/",
        "v1/alerts/#",
        "v1/alerts/",
        "v1/alerts/Icu",
        "$share/a/v1/recipient",
        "v1/recipient/",
    ];

    fn heard(permissions: &Permissions) -> Vec<&'static str> {
        let known = [
            "v1/d/mon-7/down",
            "v1/recipient",
            "v1/notices",
            "v1/alerts/icu",
            "v1/alerts/er",
            "v1/alerts/+",
        ];
        let all = known.into_iter().chain(FILTERS);
        all.filter(|filter| permissions.subscription(filter).is_some())
            .collect()
    }

    /// Every kind of principal against every topic and every kind of filter: what is not in this table is refused.
    #[test]
    fn nobody_hears_more_than_the_table_says() {
        let device = Permissions::of_device(&"mon-7".parse().unwrap());
        let icu = BTreeSet::from(["icu".parse().unwrap()]);
        let display = Permissions::of_listener(Wards::These(icu));
        let service = Permissions::of_listener(Wards::All);
        assert_eq!(
            heard(&device),
            ["v1/d/mon-7/down", "v1/recipient", "v1/notices"]
        );
        assert_eq!(heard(&display), ["v1/alerts/icu"]);
        assert_eq!(
            heard(&service),
            ["v1/alerts/icu", "v1/alerts/er", "v1/alerts/+"]
        );
        assert!(heard(&Permissions::default()).is_empty());
    }

    #[test]
    fn only_a_device_speaks_and_only_on_its_own_topic() {
        let device = Permissions::of_device(&"mon-7".parse().unwrap());
        let service = Permissions::of_listener(Wards::All);
        assert!(device.may_publish(b"v1/d/mon-7/vitals"));
        let others = [
            "v1/d/mon-8/vitals",
            "v1/d/mon-7/down",
            "v1/d/mon-7/vitals/",
            "v1/recipient",
            "v1/alerts/icu",
        ];
        for topic in others.into_iter().chain(FILTERS) {
            assert!(
                !device.may_publish(topic.as_bytes()) || topic == "v1/d/mon-7/vitals",
                "{topic}"
            );
            assert!(!service.may_publish(topic.as_bytes()), "{topic}");
        }
        assert!(!service.may_publish(b"v1/d/mon-7/vitals"));
    }
}
