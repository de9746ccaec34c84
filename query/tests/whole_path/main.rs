//! The whole path, against stock DataFusion on plaintext.
//!
//! Random readings and waveforms (late, doubled, flagged, from several devices, from clocks that step) are sealed,
//! admitted, flushed and merged level by level at random points, while keys are rotated and a patient is erased; random
//! SQL over them must answer as the same SQL over plaintext tables does that hold what was measured of the patients whom
//! the asker may see, and of nobody else.
//!
//! `WHOLE_PATH_SEED` and `WHOLE_PATH_CASES` choose others than the usual few.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fixture that fails is a failed test"
)]

#[allow(dead_code, reason = "made for the tests of SQL, which use more of it")]
#[path = "../sql/ward.rs"]
mod ward;

mod answer;
mod known;
mod question;
mod random;
mod world;

use std::collections::BTreeSet;

use vitalseal_storage::catalog::{FileKind, MAX_LEVEL};

use answer::Answer;
use question::Question;
use random::Random;
use world::World;

/// Of these all cases come, unless the environment says otherwise.
const SEED: u64 = 0x0005_EA1E_D000;
const CASES: u64 = 4;
const STEPS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_readings_answer_as_plaintext_does() {
    let number = |name, usual| {
        let set = std::env::var(name).ok();
        set.map_or(usual, |set| set.parse().expect(name))
    };
    let (seed, cases) = (
        number("WHOLE_PATH_SEED", SEED),
        number("WHOLE_PATH_CASES", CASES),
    );
    let mut levels = BTreeSet::new();
    for case in 0..cases {
        // Shown when the test fails.
        println!("seed {}", seed + case);
        run(seed + case, &mut levels).await;
    }
    if (seed, cases) == (SEED, CASES) {
        let all = (1..=MAX_LEVEL).map(|level| (FileKind::Chunks, level));
        let all: BTreeSet<_> = all.chain([(FileKind::Rows, 0)]).collect();
        assert_eq!(levels, all, "what was asked over");
    }
}

/// Adds to `levels` what kinds of files were there when something was asked.
async fn run(seed: u64, levels: &mut BTreeSet<(FileKind, u8)>) {
    let random = &mut Random::new(seed);
    let mut world = World::open(random).await;
    let mut asked = 0;
    for step in 0..STEPS {
        if step == STEPS / 2 {
            world.erase(random).await;
        }
        match random.below(12) {
            0..6 => world.measure(random).await,
            6..8 => world.ward.flush().await,
            8..10 => world.compact(random).await,
            10 => world.rotate(random).await,
            _ => world.vacuum().await,
        }
        if step % 8 == 7 {
            levels.extend(world.levels().await);
            asked += ask(&world, random, seed, 12).await;
        }
    }
    world.ward.flush().await;
    world.ward.compact().await;
    levels.extend(world.levels().await);
    asked += ask(&world, random, seed, 40).await;
    assert!(
        asked > 35,
        "too few questions have an answer with rows: {asked}"
    );
}

/// Asks both sides; says how many answers had rows.
async fn ask(world: &World, random: &mut Random, seed: u64, questions: usize) -> usize {
    let plaintext = world.plaintext();
    let mut with_rows = 0;
    for _ in 0..questions {
        let question = Question::draw(random, world);
        let expected = Answer::of_plaintext(&plaintext, &question.reference).await;
        let found = Answer::of_sealed(&world.ward, &question.sql).await;
        with_rows += usize::from(!expected.is_empty());
        if let Err(difference) = question.compare(&found, &expected) {
            panic!("seed {seed}: {}\n{difference}", question.sql);
        }
    }
    with_rows
}
