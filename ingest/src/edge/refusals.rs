//! Refused connections in the audit log: whoever could name themselves, and not every time.
//!
//! A peer without a certificate of our authority is counted and logged, not audited: an open port would otherwise let
//! anybody fill the audit log. A device that keeps trying is recorded once in [`QUIET`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vitalseal_crypto::DeviceId;
use vitalseal_storage::{Actor, AuditEvent, AuditRecord, AuditSink, Clock};

use super::closing::Closing;

/// Silence after a record about the same device and reason. A client library that reconnects every second would write
/// 86,400 records a day otherwise.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// Pairs remembered; all are forgotten together when there are more.
const REMEMBERED: usize = 10_000;

/// Records refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    audit: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    recent: Mutex<HashMap<(DeviceId, Closing), Instant>>,
}

impl Refusals {
    pub(crate) fn new(audit: Arc<dyn AuditSink>, clock: Arc<dyn Clock>) -> Self {
        Self {
            audit,
            clock,
            recent: Mutex::default(),
        }
    }

    /// Records that `device` was refused, unless it was just recorded. A failure is logged: the refusal stands anyway.
    pub(crate) async fn record(&self, device: &DeviceId, peer: SocketAddr, reason: Closing) {
        if !self.is_news(device, reason) {
            return;
        }
        let event = AuditEvent::ConnectionRefused {
            door: "mqtt".to_owned(),
            peer: Some(peer.to_string()),
            reason: reason.as_str().to_owned(),
        };
        let record = AuditRecord {
            at: self.clock.now(),
            actor: Actor::Device(device.clone()),
            event,
        };
        if let Err(error) = self.audit.record(record).await {
            tracing::error!(%device, %error, "a refused connection could not be recorded");
        }
    }

    fn is_news(&self, device: &DeviceId, reason: Closing) -> bool {
        let now = Instant::now();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= REMEMBERED {
            recent.clear();
        }
        let until = recent.entry((device.clone(), reason)).or_insert(now);
        let news = *until <= now;
        if news {
            *until = now + QUIET;
        }
        news
    }
}
