//! The seeds of the fuzz target of MQTT connections, replayed as they are and damaged.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests argue with unwrap; the shared files are public in the fuzz crate"
)]

#[path = "../../../fuzz/src/mqtt.rs"]
mod mqtt;
#[path = "../../../fuzz/src/seeds.rs"]
mod seeds;

use proptest::prelude::*;

const TARGET: &str = "mqtt_connection";

#[test]
fn every_seed_is_taken_or_refused_as_its_name_says() {
    seeds::replay(TARGET, mqtt::connection);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn damaged_connections_break_nothing(bytes in seeds::damaged(TARGET)) {
        mqtt::connection(&bytes);
    }
}

/// `cargo test -p vitalseal-ingest --lib corpus -- --ignored`
#[test]
#[ignore = "writes fuzz/corpus anew"]
fn write_seeds() {
    let v4 = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x1e\x00\x05mon-1".to_vec();
    let v5 = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x05mon-1".to_vec();
    let write = |name: &str, begin: &[u8], rest: &[u8]| {
        seeds::write(TARGET, name, &[begin, rest].concat());
    };
    write("ok-v4-connect", &v4, b"");
    write("ok-v5-connect", &v5, b"");
    write(
        "ok-v4-will-and-login",
        b"\x10\x28\x00\x04MQTT\x04\xec\x00\x1e\x00\x05mon-1\x00\x03a/b\x00\x02\x01\x02\x00\x04nora\x00\x06secret",
        b"",
    );
    write(
        "ok-v5-every-property",
        b"\x10\x4b\x00\x04MQTT\x05\x06\x00\x1e\x1b\x11\x00\x00\x00\x3c\x21\x00\x10\x27\x00\x00\x10\x00\x22\x00\x00\x17\
          \x01\x19\x00\x26\x00\x01k\x00\x01v\x00\x05mon-1\x14\x18\x00\x00\x00\x05\x01\x01\x02\x00\x00\x00\x09\x03\x00\
          \x01t\x08\x00\x01r\x00\x03a/b\x00\x02\x01\x02",
        b"",
    );
    let session: &[u8] = b"\x82\x06\x00\x01\x00\x01x\x00\x30\x05\x00\x03a/b\x32\x08\x00\x03a/b\x00\x02\x01\
        \x34\x07\x00\x03a/b\x00\x03\x62\x02\x00\x03\x40\x02\x00\x01\xc0\x00\xa2\x05\x00\x04\x00\x01x\xe0\x00";
    write("ok-v4-session", &v4, session);
    let session5: &[u8] = b"\x82\x07\x00\x01\x00\x00\x01x\x01\x30\x06\x00\x03a/b\x00\x32\x0c\x00\x03a/b\x00\x02\x03\x23\
        \x00\x01\x01\x34\x08\x00\x03a/b\x00\x03\x00\x62\x03\x00\x03\x92\x40\x04\x00\x01\x10\x00\xc0\x00\
        \xa2\x06\x00\x04\x00\x00\x01x\xe0\x07\x00\x05\x11\x00\x00\x00\x00";
    write("ok-v5-session", &v5, session5);
    for (name, rest) in [
        ("five-byte-length", &b"\x32\x80\x80\x80\x80\x01"[..]),
        ("padded-length", b"\xc0\x80\x00"),
        ("whole-256-mib", b"\x32\xff\xff\xff\x7f"),
        ("half-a-packet", b"\x32\x80\x02\x00\x03a/b"),
        ("qos-3", b"\x36\x07\x00\x03a/b\x00\x01"),
        ("dup-at-qos-0", b"\x38\x05\x00\x03a/b"),
        ("identifier-zero", b"\x32\x07\x00\x03a/b\x00\x00"),
        ("topic-empty", b"\x30\x02\x00\x00"),
        ("topic-with-wildcard", b"\x30\x05\x00\x03a/#"),
        ("topic-with-nul", b"\x30\x05\x00\x03a\x00b"),
        ("topic-not-utf8", b"\x30\x05\x00\x03a\xffb"),
        ("topic-surrogate", b"\x30\x05\x00\x03\xed\xa0\x80"),
        ("topic-beyond-the-end", b"\x30\x05\x00\x30a/b"),
        ("subscribe-flags", b"\x80\x06\x00\x01\x00\x01x\x00"),
        ("subscribe-to-nothing", b"\x82\x02\x00\x01"),
        ("unsubscribe-from-nothing", b"\xa2\x02\x00\x01"),
        ("connack", b"\x20\x02\x00\x00"),
        ("auth", b"\xf0\x00"),
        ("ping-with-a-body", b"\xc0\x01\x00"),
    ] {
        write(&format!("no-{name}"), &v4, rest);
    }
    for (name, rest) in [
        (
            "property-twice",
            &b"\xe0\x0c\x00\x0a\x11\x00\x00\x00\x00\x11\x00\x00\x00\x00"[..],
        ),
        ("property-foreign", b"\xe0\x05\x00\x03\x23\x00\x01"),
        ("property-length", b"\x30\x07\x00\x03a/b\x7f\x01"),
        ("subscribe-options", b"\x82\x07\x00\x01\x00\x00\x01x\xff"),
    ] {
        write(&format!("no-v5-{name}"), &v5, rest);
    }
    write("no-publish-first", b"\x30\x05\x00\x03a/b", &v4);
    write(
        "no-level-6",
        b"\x10\x11\x00\x04MQTT\x06\x02\x00\x1e\x00\x05mon-1",
        b"",
    );
    write(
        "no-reserved-flag",
        b"\x10\x11\x00\x04MQTT\x04\x03\x00\x1e\x00\x05mon-1",
        b"",
    );
}
