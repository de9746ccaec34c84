//! One test for each normative statement of MQTT 3.1.1 and 5 that this edge can keep or break, named by its id:
//! `mqtt5_3_8_4_6_…` is [MQTT-3.8.4-6] of MQTT 5. Bytes go in over TLS, bytes or the end of the connection come out; no
//! client library stands in between. `docs/MQTT.md` has a row for every statement of both standards, and `table` holds
//! it against the tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

mod acknowledge;
mod connect;
mod flow;
mod format;
mod peer;
mod publish;
#[expect(dead_code, reason = "shared with the tests of the edge")]
#[path = "../edge/raw.rs"]
mod raw;
#[expect(dead_code, reason = "shared with the tests of the edge")]
#[path = "../edge/rig.rs"]
mod rig;
mod sessions;
mod subscribe;
mod table;
mod wills;
