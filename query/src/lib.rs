//! SQL over sealed readings: tables, sessions and the PostgreSQL front door.
//!
//! ```text
//!  psql ── TLS ──▶ pg (accept, authenticate) ──▶ QuerySession ──▶ DataFusion
//!                                                  │                  │
//!                                    audit: started, finished         ▼
//!                                                     scan: policy ─▶ DecryptExec ─▶ rows
//!                                                                     ▲        ▲
//!                                              Parquet + hot rows (sealed)   patient KEKs
//! ```
//!
//! Row security stands in the leaf of every plan: `vitals`, `patients` and `devices` ask the
//! [`AccessPolicy`](vitalseal_storage::ports::AccessPolicy) inside `scan`, for the identity and
//! purpose of the query that is running, and a sealed row whose patient the answer does not name is
//! never opened. A view, a join or an aggregate sits above that leaf and cannot widen it.
//!
//! What is absent here, on purpose:
//!
//! - no statement writes: DDL, DML, `COPY`, `PREPARE` and `EXPLAIN` are refused on both protocol paths;
//! - nothing spills: the disk manager is disabled and no `SET` can bring it back;
//! - no statistics: an exact count of sealed rows would tell how many readings hidden patients have;
//! - no object store can be named by a plan: files are read by the store's own readers;
//! - no plaintext connection gets past the first message.

mod aggregate;
mod answer;
mod decrypt;
mod engine;
mod error;
mod missing;
pub mod pg;
mod redact;
mod run;
mod runtime;
mod service;
mod session;
mod start;
mod statement;
mod stream;
pub mod table;
mod wanted;

pub use answer::Answer;
pub use error::{QueryError, client_message};
pub use pg::SqlServer;
pub use redact::redact;
pub use service::{LONGEST_DEADLINE, QueryDeps, QueryLimits, QueryService};
pub use session::QuerySession;
