//! What an operator must hear of now: from wherever it is found out to everybody who listens.
//!
//! ```text
//! pipeline, inbox, bridge, edge ─▶ Alerts::raise ─▶ log
//!                                              ├──▶ counters, for /metrics
//!                                              └──▶ subscribers: the edge publishes on v1/alerts/system
//! ```
//!
//! An alert is told once when it begins; what has an end is told then too. Alerts are of the installation: a patient's
//! state is another matter.
//!
//! Never here: a patient, a reading, a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;
use vitalseal_crypto::DeviceId;

/// Alerts that a subscriber may be behind. They are rare; who misses some is told how many.
const BEHIND: usize = 256;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "alert", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Alert {
    /// A device's key is in two hands.
    CloneSuspected {
        /// Which device.
        device: DeviceId,
        /// What shows it.
        signal: &'static str,
    },
    /// No room: messages are not taken, devices keep them.
    DiskFull,
    /// There is room again.
    DiskFree,
    /// No consumer of the external cluster is connected.
    ClusterUnreachable,
    /// One is again.
    ClusterReachable,
    /// The kept bodies of refused messages have reached their limit.
    QuarantineFull,
    /// There is room for them again.
    QuarantineFree,
    /// The revocation list could not be renewed for days: whoever fetches it will stop to believe it.
    RevocationListStale,
    /// It was.
    RevocationListRenewed,
    /// Stored files could not be merged, dropped or removed, several times in a row.
    HousekeepingFails,
    /// They could again.
    HousekeepingResumed,
    /// An operator tries whether alerts arrive.
    Test,
}

impl Alert {
    /// Stable name for logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CloneSuspected { .. } => "clone_suspected",
            Self::DiskFull => "disk_full",
            Self::DiskFree => "disk_free",
            Self::ClusterUnreachable => "cluster_unreachable",
            Self::ClusterReachable => "cluster_reachable",
            Self::QuarantineFull => "quarantine_full",
            Self::QuarantineFree => "quarantine_free",
            Self::RevocationListStale => "revocation_list_stale",
            Self::RevocationListRenewed => "revocation_list_renewed",
            Self::HousekeepingFails => "housekeeping_fails",
            Self::HousekeepingResumed => "housekeeping_resumed",
            Self::Test => "test",
        }
    }
}

/// An alert and when it was raised. As JSON: `{"at":"2026-11-22T03:00:00Z","alert":"clone_suspected","device":"mon-7",…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Raised {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub alert: Alert,
}

/// Where alerts are raised and heard; clones share it.
#[derive(Debug, Clone)]
pub struct Alerts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    raised: AtomicU64,
    subscribers: broadcast::Sender<Raised>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                raised: AtomicU64::new(0),
                subscribers: broadcast::Sender::new(BEHIND),
            }),
        }
    }
}

impl Alerts {
    /// Tells everybody.
    pub fn raise(&self, alert: Alert, at: Timestamp) {
        self.shared.raised.fetch_add(1, Relaxed);
        let device = match &alert {
            Alert::CloneSuspected { device, .. } => Some(tracing::field::display(device)),
            _ => None,
        };
        tracing::error!(alert = alert.as_str(), device, "ALERT");
        // Nobody subscribed is no reason to fail: the log has it.
        let _ = self.shared.subscribers.send(Raised { at, alert });
    }

    /// Alerts from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Raised> {
        self.shared.subscribers.subscribe()
    }

    /// How many were raised.
    #[must_use]
    pub fn raised(&self) -> u64 {
        self.shared.raised.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alert_reaches_every_subscriber_and_names_no_more_than_it_must() {
        let alerts = Alerts::default();
        let mut listeners = [alerts.subscribe(), alerts.clone().subscribe()];
        let device = "mon-7".parse().unwrap();
        let signal = "fork";
        alerts.raise(
            Alert::CloneSuspected { device, signal },
            Timestamp::UNIX_EPOCH,
        );
        for listener in &mut listeners {
            let raised = listener.recv().await.unwrap();
            assert_eq!(
                serde_json::to_string(&raised).unwrap(),
                r#"{"at":"1970-01-01T00:00:00Z","alert":"clone_suspected","device":"mon-7","signal":"fork"}"#
            );
        }
        assert_eq!(alerts.raised(), 1);
    }
}
