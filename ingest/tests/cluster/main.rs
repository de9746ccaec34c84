//! Consumers of an MQTT cluster against Debian's Mosquitto on this machine. What counts as failure: a message that leaves
//! the cluster before it is durable, a second row for one message, a message that is dropped, one that holds up the others
//! for ever.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so"
)]

#[path = "../../../tests/common/mosquitto.rs"]
mod mosquitto;
#[path = "../edge/rig.rs"]
#[allow(dead_code, reason = "the fixture of the edge's tests")]
mod rig;

mod consuming;
mod refused;
mod site;
