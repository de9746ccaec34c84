//! The edge as devices meet it: real TLS, real clients, real store. What counts as failure: an acknowledgement for what
//! is not durable, a second row for one message, a session for who should have none, a peer that holds up others.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod assignment;
mod chain;
mod clock;
mod clones;
mod delivery;
mod disk;
mod doors;
mod epochs;
#[path = "../../../tests/common/files.rs"]
mod files;
mod freshness;
mod hostile;
#[path = "../../../tests/common/interposer.rs"]
mod interposer;
mod library;
mod listeners;
mod past;
mod raw;
mod restarts;
mod review;
mod rig;
mod roles;
mod sessions;
mod storm;
mod websocket;
