//! What can go wrong with the log itself; a log that was tampered with is a finding, see [`super::AuditFault`].

use std::error::Error;
use std::sync::Arc;

use super::identity::{KeyMalformed, NoteRefused};

/// The audit log could not be created, opened, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditLogError {
    /// `create` was called where a log exists.
    #[error("an audit log exists at {0} already; a second one would hide the first")]
    Exists(String),
    /// `open` was called where no log exists.
    #[error("there is no audit log at {0}")]
    Absent(String),
    /// A database statement failed.
    #[error("{doing} the audit log")]
    Database {
        /// What was attempted, e.g. "reading".
        doing: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// A batch of records could not be made durable; none of them is in the log.
    #[error("writing to the audit log; the record is not in it")]
    Write(#[source] Arc<sqlx::Error>),
    /// The random number generator of the system failed.
    #[error("drawing the audit log's signing key")]
    Random(#[source] getrandom::Error),
    /// The origin can not name a key: it is empty or holds white space or `+`.
    #[error("{0:?} can not name an audit log: no white space, no '+', not empty")]
    Origin(String),
    /// A signer or verifier key could not be read.
    #[error("reading the audit log's key")]
    Key(#[from] KeyMalformed),
    /// The signature over the stored head does not hold for this key.
    #[error("the audit log's head is not signed by the key that was given; refusing to add to it")]
    HeadSignature(#[source] NoteRefused),
    /// The stored head does not describe the stored records.
    #[error(
        "the audit log does not match its signed head ({0}); refusing to add to it: run `audit verify`"
    )]
    HeadMismatch(String),
    /// The log does not verify, so nothing in it is evidence.
    #[error(
        "the audit log does not verify ({0}), so nothing can be counted from it: run `audit verify`"
    )]
    Unsound(String),
    /// A record could not be turned into its canonical form.
    #[error("encoding an audit record")]
    Encode(#[source] Arc<serde_json::Error>),
    /// A stored record is not one that this version understands.
    #[error("reading audit record {seq}")]
    Decode {
        /// The record's number.
        seq: u64,
        /// Why it could not be read.
        source: serde_json::Error,
    },
    /// Hash arithmetic failed; a stored hash is missing.
    #[error("computing the audit log's tree")]
    Tree(#[source] Arc<tlog_tiles::tlog::Error>),
    /// Signing failed.
    #[error("signing with the audit log's key")]
    Sign(#[source] Arc<signed_note::NoteError>),
    /// The signing key is somewhere else, and did not sign, or not rightly.
    #[error("signing with the audit log's key, which is not on this machine")]
    RemoteKey(#[source] Arc<dyn Error + Send + Sync>),
    /// There is no such record.
    #[error("there is no audit record {seq}; the log holds {size}")]
    NoSuchRecord {
        /// The number asked for.
        seq: u64,
        /// How many records there are.
        size: u64,
    },
    /// The writer has stopped: the log was closed.
    #[error("the audit log is closed")]
    Closed,
    /// The writer's task ended, which none of its errors makes it do.
    #[error("the audit log's writer ended; restart the server so that the log is checked again")]
    Stopped,
}

impl AuditLogError {
    /// For `map_err`: a statement failed while `doing` something.
    pub(super) fn database(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}
