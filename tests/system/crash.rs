//! `kill -9` of the server at twenty random moments under load, and death and power cuts at the very writes: what was acknowledged is
//! there, once.
//!
//! Failure: a reading acknowledged and missing, a reading stored twice, a server that does not start
//! again, a store that does not verify. Not a failure: a message that was sent, not acknowledged, and
//! stored all the same (the device sends it again and the server knows it).

use std::time::{Duration, Instant};

use crate::common::{Random, Site, wait_until};
use crate::faults;
use crate::load::Load;

/// The moments of death follow from it.
const SEED: u64 = 0x7617_a15e_a1ed_0001;
const KILLS: u32 = 20;
const BOUNDARIES: u64 = 12;

#[test]
fn twenty_kills_lose_nothing_acknowledged_and_store_nothing_twice() {
    let mut site = Site::serving();
    let load = Load::begin(&site, "crash");
    let mut random = Random(SEED);
    let mut acked_before = 0;
    for kill in 0..KILLS {
        // 30 to 330 ms of load, so that deaths fall between and inside every write. Load, not merely time: some message
        // of this life must be acknowledged before its end.
        wait_until(
            || load.acked() > acked_before,
            "no message was acknowledged after a restart",
        );
        std::thread::sleep(Duration::from_millis(30 + random.below(300)));
        acked_before = load.acked();
        site.kill();
        if kill % 5 == 4 {
            std::thread::sleep(Duration::from_millis(100));
        }
        site.serve();
        // Flushes under load put deaths into the move to Parquet, too.
        if kill % 3 == 1 {
            site.run(&["flush"]);
        }
    }
    let total = load.end(&site);
    assert!(
        total > u64::from(KILLS) * 10,
        "{total} readings are no load"
    );
    println!("{total} readings, {KILLS} kills, seed {SEED:#x}");
}

#[test]
fn death_at_the_boundaries_of_the_servers_writes_loses_and_doubles_nothing() {
    let mut site = Site::serving();
    let load = Load::begin(&site, "boundary");
    let (mut random, mut in_start) = (Random(SEED), 0);
    for point in 0..BOUNDARIES {
        wait_until(|| load.acked() > 20 * point, "no load");
        site.kill();
        // A quarter of the deaths fall into the start, the others among admissions and flushes.
        let call = 1 + random.below(600);
        let mode = ["kill", "powercut", "torn"][usize::try_from(point % 3).unwrap()];
        faults::strike(&mut site, mode, call);
        if !site.start() {
            in_start += 1;
        } else {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !site.has_ended() {
                site.run(&["flush"]);
                assert!(Instant::now() < deadline, "call {call} never came");
            }
        }
        faults::spare(&mut site);
        if mode != "kill" {
            faults::forget_shared_memory(&site);
        }
        site.serve();
    }
    let total = load.end(&site);
    println!("{total} readings, {BOUNDARIES} deaths, {in_start} of them in the start");
}
