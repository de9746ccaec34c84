//! Refused connections in the audit log: whoever could name themselves, and not every time.
//!
//! A peer without a certificate of our authority is counted and logged, not audited: an open port would otherwise let
//! anybody fill the audit log. Who keeps trying is recorded once in [`QUIET`]. A refused login is recorded every time, as
//! at the SQL door, and made to wait.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vitalseal_storage::{Actor, AuditEvent, AuditRecord, AuditSink, Clock, UserName};

use super::closing::Closing;
use super::identity::{ClientId, Principal};

/// Silence after a record about the same client and reason. A client library that reconnects every second would write
/// 86,400 records a day otherwise.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// Pairs remembered; all are forgotten together when there are more.
const REMEMBERED: usize = 10_000;

/// Records refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    audit: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    recent: Mutex<HashMap<(ClientId, Closing), Instant>>,
}

impl Refusals {
    pub(crate) fn new(audit: Arc<dyn AuditSink>, clock: Arc<dyn Clock>) -> Self {
        Self {
            audit,
            clock,
            recent: Mutex::default(),
        }
    }

    /// Records that a client was refused, unless it was just recorded.
    pub(crate) async fn record(&self, client: &Principal, peer: SocketAddr, reason: Closing) {
        if self.is_news(client.client_id(), reason) {
            let event = refused(peer, reason.as_str());
            self.write(client.actor(), event).await;
        }
    }

    /// Records that a login was refused; `user` is what the peer called itself.
    pub(crate) async fn record_login(&self, user: &str, peer: SocketAddr) {
        let event = match user.parse::<UserName>() {
            Ok(user) => AuditEvent::LoginFailed { user },
            Err(_) => refused(peer, "not a user name"),
        };
        self.write(Actor::System, event).await;
    }

    /// A failure is logged: the refusal stands anyway.
    async fn write(&self, actor: Actor, event: AuditEvent) {
        let at = self.clock.now();
        if let Err(error) = self.audit.record(AuditRecord { at, actor, event }).await {
            tracing::error!(%error, "a refused connection could not be recorded");
        }
    }

    fn is_news(&self, client: ClientId, reason: Closing) -> bool {
        let now = Instant::now();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= REMEMBERED {
            recent.clear();
        }
        let until = recent.entry((client, reason)).or_insert(now);
        let news = *until <= now;
        if news {
            *until = now + QUIET;
        }
        news
    }
}

fn refused(peer: SocketAddr, reason: &str) -> AuditEvent {
    AuditEvent::ConnectionRefused {
        door: "mqtt".to_owned(),
        peer: Some(peer.to_string()),
        reason: reason.to_owned(),
    }
}
