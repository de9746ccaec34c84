//! Traits that crates above implement and crates below call.
//!
//! Time, the audit log, the access policy and the check of a user's token are decisions or services
//! from above. Whoever needs one takes it as an `Arc<dyn …>`; the binary passes the implementation
//! in.

mod access;
mod audit;
mod quarantine;

use std::fmt;

use jiff::Timestamp;

pub use self::access::{
    AccessPolicy, Authenticated, AuthenticationError, Authenticator, Authorized, Identity,
    PolicyError, Purpose, Role, UserName, Ward, Wards,
};
pub use self::audit::{
    Actor, AuditError, AuditEvent, AuditRecord, AuditSink, QueryOutcome, SCOPE_HOLDS,
};
pub use self::quarantine::QuarantineReason;

/// A value of the outside world that is not spelled as it should be.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{what} is not valid: expected {expected}")]
pub struct ParseError {
    /// What was being read.
    pub what: &'static str,
    /// The spelling that would have been accepted.
    pub expected: &'static str,
}

/// Where the present instant comes from. Only tasks at the edge hold one; everything below takes
/// `now`.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
