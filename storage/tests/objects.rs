//! Data files as they lie on a disk or in a bucket: what they tell a thief, what damage costs, who else can read them.
//!
//! `damage` and `secrecy` work on files that are written here, `pyarrow` has another reader open them, `s3` drives a whole
//! store against an S3 server, with a proxy between them that fails in every way that a network does, `upkeep` the work on
//! its files, `forgetting` asks what a bucket keeps of the erased, `owner` whose a place is.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test argues with panics"
)]

#[path = "objects/bucket.rs"]
mod bucket;
#[path = "objects/damage.rs"]
mod damage;
#[path = "../../tests/common/errors.rs"]
mod errors;
#[path = "../../tests/common/files.rs"]
mod files;
#[path = "objects/forgetting.rs"]
mod forgetting;
#[path = "faults/messages.rs"]
mod messages;
#[path = "objects/owner.rs"]
mod owner;
#[path = "objects/pages.rs"]
mod pages;
#[path = "../../tests/common/postgres.rs"]
mod postgres;
#[path = "objects/proxy.rs"]
mod proxy;
#[path = "objects/pyarrow.rs"]
mod pyarrow;
#[path = "../../tests/interop/python.rs"]
mod python;
#[path = "common/registry.rs"]
mod registry;
#[path = "objects/s3.rs"]
mod s3;
#[path = "objects/secrecy.rs"]
mod secrecy;
#[path = "objects/site.rs"]
mod site;
#[path = "objects/upkeep.rs"]
mod upkeep;
