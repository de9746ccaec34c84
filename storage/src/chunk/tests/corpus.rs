//! The seeds of the fuzz target of chunks, replayed as they are and damaged.

#![allow(
    unreachable_pub,
    reason = "the shared files are public in the fuzz crate"
)]

#[path = "../../../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../../../fuzz/src/stored.rs"]
mod stored;

use proptest::prelude::*;

use super::super::{Devices, ReadingsBuilder, WaveformsBuilder};
use super::{build, hostile, meta, vectors};

const TARGET: &str = "chunk_decode";

#[test]
fn every_seed_is_taken_or_refused_as_its_name_says() {
    seeds::replay(TARGET, stored::chunk_decode);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn damaged_chunks_break_nothing(bytes in seeds::damaged(TARGET)) {
        stored::chunk_decode(&bytes);
    }
}

/// `cargo test -p vitalseal-storage --lib corpus -- --ignored`
#[test]
#[ignore = "writes fuzz/corpus anew"]
fn write_seeds() {
    let write = |name: &str, kind: u8, plain: &[u8]| {
        seeds::write(TARGET, name, &[&[kind], plain].concat());
    };
    write("ok-readings", b'r', &build(&vectors::sent()));
    let unbound = build(&vectors::sent());
    write("ok-unbound", b'r', &[&[1], &unbound[33..]].concat());
    let many = build(&hostile::some_messages());
    write("ok-many-signals", b'r', &many);
    write("no-half", b'r', &many[..many.len() / 2]);
    write(
        "ok-nothing",
        b'r',
        &ReadingsBuilder::new().finish().unwrap(),
    );
    let mut steady = vectors::sent();
    let [first, ..] = steady[0].1.clone()[..] else {
        return;
    };
    let second = |n| jiff::SignedDuration::from_secs(n);
    steady[1].1 = (0..3000)
        .map(|n| vitalseal_vitals::Reading {
            at: first.at + second(n),
            ..first
        })
        .collect();
    write("ok-blocks", b'r', &build(&steady));
    write("ok-waveforms", b'w', &hostile::some_waveforms());
    write(
        "ok-no-waveform",
        b'w',
        &WaveformsBuilder::new().finish().unwrap(),
    );
    write("no-waveforms", b'w', &many);
    let mut devices = Devices::default();
    write("ok-no-device", b'd', &devices.to_bytes());
    devices.add(&meta(7), 60, -1, 1);
    write("ok-device", b'd', &devices.to_bytes());
    let version = [&[2], &devices.to_bytes()[1..]].concat();
    write("no-version", b'd', &version);
    write(
        "no-huge-count",
        b'r',
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    );
}
