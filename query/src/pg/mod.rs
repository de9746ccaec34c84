//! The PostgreSQL door: `psql`, drivers and BI tools, over TLS only.
//!
//! ```text
//!  accept ─▶ slot free? ─▶ SSLRequest ─▶ TLS ─▶ startup, token ─▶ session ─▶ queries
//!               │             │           └───── one deadline ─────┘
//!             close       no TLS: error
//! ```
//!
//! The token travels as a cleartext password message inside TLS, and is checked again before every
//! statement is prepared or begins to run, so a session ends with its token and not with its connection.
//! A suspended portal has begun: fetching on continues until its own deadline or until the connection's
//! next query, whichever comes first.
//!
//! Absent on purpose: a plaintext mode, trust or empty-password authentication, `COPY`, replication.

mod cancel;
mod connection;
mod float_text;
mod handlers;
mod login;
mod negotiate;
mod server;

pub use server::{BindError, SqlServer};

/// What clients are told: the PostgreSQL version whose catalogue queries are understood.
pub(crate) const SERVER_VERSION: &str = "16.6 (vitalseal)";

/// Something that the client is told beside an answer. Its SQLSTATE is that of a warning.
pub(crate) fn notice(text: impl Into<String>) -> pgwire::error::ErrorInfo {
    pgwire::error::ErrorInfo::new("NOTICE".to_owned(), "01000".to_owned(), text.into())
}

/// An error for the client that leaves the connection open.
pub(crate) fn error(code: &str, text: impl Into<String>) -> pgwire::error::PgWireError {
    let info = pgwire::error::ErrorInfo::new("ERROR".to_owned(), code.to_owned(), text.into());
    pgwire::error::PgWireError::UserError(Box::new(info))
}

/// An error for the client after which the connection is closed.
pub(crate) fn fatal(code: &str, text: impl Into<String>) -> pgwire::error::PgWireError {
    let info = pgwire::error::ErrorInfo::new("FATAL".to_owned(), code.to_owned(), text.into());
    pgwire::error::PgWireError::UserError(Box::new(info))
}
