//! A fault at every single write: whatever a process was doing, the next one finds what was promised.
//!
//! Each run works on a fresh copy of a prepared store, in a child process whose file calls go through
//! `faults/interpose.c`. The n-th of them kills it, cuts the power (what was not synced is lost), or fails; then this
//! process opens the store as the next start would. n counts up until an operation ends unharmed, so no call is left
//! out. `VITALSEAL_FAULTS=all` tries every call in every way; without it, most ways are tried at some of them.
//!
//! With a registry on a server (`VITALSEAL_TEST_POSTGRES`) the calls that are struck are those of inbox, data files, root keys
//! and key snapshots; the server has its schema copied for each run, and goes on when the process dies.
//!
//! `keys` strikes the key tree, `intake` the path of a message from the inbox to a file, `upkeep` what becomes of files.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test argues with panics"
)]

#[path = "../../tests/common/errors.rs"]
mod errors;
#[path = "../../tests/common/files.rs"]
mod files;
#[path = "faults/intake.rs"]
mod intake;
#[path = "../../tests/common/interposer.rs"]
mod interposer;
#[path = "faults/keys.rs"]
mod keys;
#[path = "faults/messages.rs"]
mod messages;
#[path = "../../tests/common/postgres.rs"]
mod postgres;
#[path = "common/registry.rs"]
mod registry;
#[path = "faults/site.rs"]
mod site;
#[path = "faults/trial.rs"]
mod trial;
#[path = "faults/upkeep.rs"]
mod upkeep;
