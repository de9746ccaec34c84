//! The whole system from outside: the real binary, real clients, real files.

#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test argues with panics, in real time"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/interposer.rs"]
mod interposer;
#[path = "../common/mosquitto.rs"]
mod mosquitto;
#[path = "../../storage/tests/objects/bucket.rs"]
mod moto;
#[path = "../common/postgres.rs"]
mod postgres;
#[path = "../interop/python.rs"]
mod python;
#[path = "../common/token.rs"]
mod token;

mod backup;
mod bucket;
mod clients;
mod clones;
mod closed;
mod command_line;
mod crash;
mod data_model;
mod demo;
mod disk;
mod documents;
mod envelope;
mod external;
mod faults;
mod gone_back;
mod interop;
mod keys;
mod load;
mod negotiation;
mod outbox;
mod pkcs11;
mod provenance;
mod quarantine;
mod registry;
mod reload;
mod revocation;
mod secrecy;
mod store;
