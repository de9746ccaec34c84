//! What stands in for the audit log, the logins of people and the clock: as they are, or broken as a test wants them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use vitalseal_storage::{
    AuditError, AuditEvent, AuditRecord, AuditSink, Authenticated, AuthenticationError,
    Authenticator, Clock, Identity, QuarantineReason, Role, SystemClock,
};

/// Audit records in memory. `gate` holds `record` back, `broken` makes it fail.
#[derive(Debug)]
pub(crate) struct TestAudit {
    records: Mutex<Vec<AuditRecord>>,
    pub(crate) gate: watch::Sender<Gate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    Held,
    Broken,
}

#[async_trait]
impl AuditSink for TestAudit {
    async fn record(&self, record: AuditRecord) -> Result<(), AuditError> {
        let state = *self
            .gate
            .subscribe()
            .wait_for(|gate| *gate != Gate::Held)
            .await
            .unwrap();
        if state == Gate::Broken {
            return Err(AuditError::new("disk full"));
        }
        self.records.lock().unwrap().push(record);
        Ok(())
    }
}

impl Default for TestAudit {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            gate: watch::Sender::new(Gate::Open),
        }
    }
}

impl TestAudit {
    pub(crate) fn quarantined(&self) -> Vec<QuarantineReason> {
        let records = self.records.lock().unwrap();
        let reason = |record: &AuditRecord| match record.event {
            AuditEvent::MessageQuarantined { reason, .. } => Some(reason),
            _ => None,
        };
        records.iter().filter_map(reason).collect()
    }

    /// What was recorded of clones and what came of it.
    pub(crate) fn of_clones(&self) -> Vec<String> {
        let records = self.records.lock().unwrap();
        let event = |record: &AuditRecord| match &record.event {
            AuditEvent::CloneSuspected { device, signal } => Some(format!("{device} {signal}")),
            AuditEvent::DeviceSuspended { device, .. } => Some(format!("{device} suspended")),
            _ => None,
        };
        records.iter().filter_map(event).collect()
    }

    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        let records = self.records.lock().unwrap();
        records.iter().map(|record| record.event.clone()).collect()
    }

    pub(crate) fn refused(&self) -> Vec<String> {
        let records = self.records.lock().unwrap();
        let reason = |record: &AuditRecord| match &record.event {
            AuditEvent::ConnectionRefused { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        records.iter().filter_map(reason).collect()
    }
}

/// Takes `token-of-NAME` from whoever has a role here, until the instant that is set.
#[derive(Debug)]
pub(crate) struct Tokens {
    roles: Mutex<BTreeMap<String, Role>>,
    pub(crate) until: Mutex<Timestamp>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            roles: Mutex::default(),
            until: Mutex::new(Timestamp::MAX),
        }
    }
}

impl Tokens {
    pub(crate) fn give(&self, name: &str, role: Role) {
        self.roles.lock().unwrap().insert(name.to_owned(), role);
    }
}

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(
        &self,
        user: &str,
        token: &str,
        _now: Timestamp,
    ) -> Result<Authenticated, AuthenticationError> {
        let role = self.roles.lock().unwrap().get(user).copied();
        let role = role.filter(|_| token == format!("token-of-{user}"));
        let who = Identity {
            role: role.ok_or(AuthenticationError::Refused)?,
            user: user.parse().unwrap(),
        };
        let until = *self.until.lock().unwrap();
        Ok(Authenticated { who, until })
    }
}

/// The time, and by how much this server is wrong about it.
#[derive(Debug, Default)]
pub(crate) struct TestClock {
    ahead: Mutex<SignedDuration>,
}

impl TestClock {
    pub(crate) fn set_ahead_by(&self, ahead: SignedDuration) {
        *self.ahead.lock().unwrap() = ahead;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + *self.ahead.lock().unwrap()
    }
}
