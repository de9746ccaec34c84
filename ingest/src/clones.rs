//! What is done when a device's key seems to be in two hands: an alert, a record, and by policy a suspension.
//!
//! Pipeline and edge find out, each in its own way; here they report it. One alarm a device is enough until an operator
//! has looked at it: a suspension lasts until the device is reinstated, and that arms the alarm again. Nobody can tell
//! here which of the two is the device, so both are held: its sessions end, and what comes is kept aside.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::sleep;
use vitalseal_crypto::DeviceId;
use vitalseal_storage::{
    Actor, AuditError, AuditEvent, AuditRecord, AuditSink, Clock, DeviceState, QuarantineReason,
    Registry, RegistryError,
};

use crate::alerts::{Alert, Alerts};

/// Pause before a record that failed is tried again. An audit log that fails stops the intake, so it is repaired soon.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// What to do with a device that may have a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnClone {
    /// Shut it out until an operator reinstates it.
    #[default]
    Suspend,
    /// Tell, and let it go on.
    Alert,
}

/// What shows that a key is in two hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneSignal {
    /// Two messages that one device cannot both have signed.
    Fork,
    /// Two boots of one device ran at the same time.
    BootsOverlap,
    /// Two live connections take the session from each other.
    Takeovers,
}

impl CloneSignal {
    /// Stable name for alerts and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::BootsOverlap => "boots_overlap",
            Self::Takeovers => "takeovers",
        }
    }

    /// What a message that is refused for this reason shows, if it shows a clone.
    pub(crate) fn of_refusal(reason: QuarantineReason) -> Option<Self> {
        match reason {
            QuarantineReason::Fork => Some(Self::Fork),
            QuarantineReason::BootsOverlap => Some(Self::BootsOverlap),
            _ => None,
        }
    }
}

/// The alarm could not be given; it is given at the next sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloneError {
    /// The device's state could not be read or changed.
    #[error("suspending a device that may have a clone")]
    Registry(#[from] RegistryError),
    /// It could not be recorded.
    #[error("recording that a device may have a clone")]
    Audit(#[from] AuditError),
}

/// Where signs of clones are reported; clones share it.
#[derive(Debug, Clone)]
pub struct Clones {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    audit: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    alerts: Alerts,
    policy: RwLock<OnClone>,
    /// Alarms given, each with the instant since which its device was in the state that it was given in. Locked while one
    /// is given: two signs at once are one alarm.
    given: Mutex<HashMap<DeviceId, Timestamp>>,
}

impl Clones {
    /// `registry` and `audit` are those of the store whose devices are watched.
    #[must_use]
    pub fn new(
        registry: Registry,
        audit: Arc<dyn AuditSink>,
        clock: Arc<dyn Clock>,
        alerts: Alerts,
        policy: OnClone,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                audit,
                clock,
                alerts,
                policy: RwLock::new(policy),
                given: Mutex::default(),
            }),
        }
    }

    /// What is done from now on; what was done stays.
    pub fn set_policy(&self, policy: OnClone) {
        let kept = self.shared.policy.write();
        *kept.unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn policy(&self) -> OnClone {
        let policy = self.shared.policy.read();
        *policy.unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the alarm, unless the device is shut out already or it was given since its state last changed.
    ///
    /// # Errors
    /// [`CloneError`]: no alarm was given. A suspension is told and recorded after it was made; when its record fails, it
    /// is told all the same, and recorded as soon as that can be done.
    pub async fn suspect(&self, device: &DeviceId, signal: CloneSignal) -> Result<(), CloneError> {
        let Shared {
            registry,
            alerts,
            given,
            ..
        } = &*self.shared;
        let mut given = given.lock().await;
        let Some(record) = registry.device(device).await? else {
            return Ok(());
        };
        if record.state != DeviceState::Active || given.get(device) == Some(&record.state_since) {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let name = signal.as_str();
        self.record(
            AuditEvent::CloneSuspected {
                device: device.clone(),
                signal: name.to_owned(),
            },
            now,
        )
        .await?;
        let reason = format!("its key seems to be in two hands: {name}");
        let is_suspended = self.policy() == OnClone::Suspend
            && registry.suspend_device(device, &reason, now).await?;
        given.insert(device.clone(), record.state_since);
        let alert = Alert::CloneSuspected {
            device: device.clone(),
            signal: name,
        };
        alerts.raise(alert, now);
        if is_suspended {
            let device = device.clone();
            let event = AuditEvent::DeviceSuspended { device, reason };
            if let Err(error) = self.record(event.clone(), now).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "recording a suspension; it is tried again");
                tokio::spawn(self.clone().record_later(event, now));
            }
        }
        Ok(())
    }

    /// No further sign comes of a device that is shut out, so nobody else would think of it.
    async fn record_later(self, event: AuditEvent, at: Timestamp) {
        loop {
            sleep(RECORD_AGAIN).await;
            if self.record(event.clone(), at).await.is_ok() {
                return;
            }
        }
    }

    async fn record(&self, event: AuditEvent, at: Timestamp) -> Result<(), AuditError> {
        let actor = Actor::System;
        let record = AuditRecord { at, actor, event };
        self.shared.audit.record(record).await
    }
}
