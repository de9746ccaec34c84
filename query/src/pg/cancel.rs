//! Cancel requests: they come on a connection of their own and name another by number and secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pgwire::api::cancel::CancelHandler;
use pgwire::messages::cancel::CancelRequest;
use tokio_util::sync::CancellationToken;

/// The query that a connection is running now, if any.
#[derive(Debug, Default)]
pub(super) struct Current(Mutex<Option<CancellationToken>>);

impl Current {
    /// Replaces the token and cancels the one before: its query has ended, or is a suspended portal that no cancel request
    /// could reach any more.
    pub(super) fn begin(&self, token: CancellationToken) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = current.replace(token) {
            before.cancel();
        }
    }

    fn cancel(&self) {
        if let Some(token) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            token.cancel();
        }
    }
}

/// Connections that can be cancelled.
#[derive(Debug, Default)]
pub(super) struct Cancels(Mutex<HashMap<i32, Entry>>);

#[derive(Debug)]
struct Entry {
    secret: Vec<u8>,
    current: Arc<Current>,
}

impl Cancels {
    /// Enters a connection; it leaves when the guard is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        pid: i32,
        secret: Vec<u8>,
        current: Arc<Current>,
    ) -> Registered {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(pid, Entry { secret, current });
        Registered {
            pid,
            cancels: Arc::clone(self),
        }
    }

    /// Cancels the query of that connection. Says nothing about whether there was one.
    pub(super) fn cancel(&self, pid: i32, secret: &[u8]) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.get(&pid).filter(|entry| entry.secret == secret) {
            entry.current.cancel();
        }
    }
}

/// Takes its connection out of [`Cancels`] when dropped.
#[derive(Debug)]
pub(super) struct Registered {
    pid: i32,
    cancels: Arc<Cancels>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancels
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.pid);
    }
}

/// [`Cancels`] as pgwire wants it, for requests that come inside TLS.
#[derive(Debug)]
pub(super) struct OnCancel(pub(super) Arc<Cancels>);

#[async_trait]
impl CancelHandler for OnCancel {
    async fn on_cancel_request(&self, request: CancelRequest) {
        self.0.cancel(request.pid, &request.secret_key.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_runs_on_out_of_reach_of_a_cancel_request() {
        let current = Current::default();
        let (portal, next) = (CancellationToken::new(), CancellationToken::new());
        current.begin(portal.clone());
        current.begin(next.clone());
        assert!(portal.is_cancelled() && !next.is_cancelled());
        current.cancel();
        assert!(next.is_cancelled());
    }
}
