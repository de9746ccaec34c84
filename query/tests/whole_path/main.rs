//! The whole path, against stock DataFusion on plaintext.
//!
//! Random readings (late, doubled, flagged, from several devices, from clocks that step) are sealed, admitted, flushed and
//! compacted at random points; random SQL over them must answer as the same SQL over a plaintext table does that holds the
//! readings of the patients whom the asker may see, and of nobody else.
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
mod question;
mod random;
mod world;

use vitalseal_storage::catalog::FileKind;

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
    let seed = number("WHOLE_PATH_SEED", SEED);
    for case in 0..number("WHOLE_PATH_CASES", CASES) {
        // Shown when the test fails.
        println!("seed {}", seed + case);
        run(seed + case).await;
    }
}

async fn run(seed: u64) {
    let random = &mut Random::new(seed);
    let mut world = World::open(random).await;
    let mut asked = 0;
    for step in 0..STEPS {
        match random.below(10) {
            0..6 => world.measure(random).await,
            6..8 => world.ward.flush().await,
            8 => world.ward.compact().await,
            _ => {}
        }
        if step % 8 == 7 {
            asked += ask(&world, random, seed, 12).await;
        }
    }
    world.ward.flush().await;
    world.ward.compact().await;
    asked += ask(&world, random, seed, 40).await;
    let files = world.ward.store.catalog.files().await.unwrap();
    assert!(files.iter().any(|file| file.kind == FileKind::Chunks));
    assert!(
        asked > 45,
        "most questions have an answer with rows: {asked}"
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
