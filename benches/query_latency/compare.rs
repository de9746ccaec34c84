//! One question, all sides, in turns: so that whatever else the machine does hits all of them.

use std::time::Duration;

use vitalseal_crypto::SubjectPseudonym;

use crate::answers::Answer;
use crate::pgcrypto::Pgcrypto;
use crate::plaintext::{LAYOUTS, Variant};
use crate::queries::Query;
use crate::sealed::Sealed;

/// PostgreSQL is asked so often; only once what takes it longer.
const POSTGRES_RUNS: usize = 3;
const POSTGRES_LONG: Duration = Duration::from_secs(20);

/// Median times.
pub struct Compared {
    pub sealed: Duration,
    /// Each variant of the plaintext side, those under Modular Encryption among them.
    variants: Vec<(String, &'static str, Duration)>,
}

/// Asks everybody once, compares the answers, and then takes turns.
pub async fn compare(
    query: &Query,
    sealed: &Sealed,
    variants: &[Variant],
    runs: usize,
) -> Compared {
    let sql = query.of_all();
    let expected = Answer::of_batches(&variants[0].query(&sql).await.0);
    assert!(
        expected.rows() > 0,
        "{}: a question without an answer",
        query.name
    );
    let answer = Answer::of_batches(&sealed.query(&sql).await.0);
    answer.must_equal(&expected, "sealed");
    for variant in &variants[1..] {
        let answer = Answer::of_batches(&variant.query(&sql).await.0);
        answer.must_equal(&expected, &variant.name);
    }
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); variants.len()];
    for _ in 0..runs {
        ours.push(sealed.query(&sql).await.1);
        for (variant, times) in variants.iter().zip(&mut theirs) {
            times.push(variant.query(&sql).await.1);
        }
    }
    let theirs = variants.iter().zip(&mut theirs);
    Compared {
        sealed: median(&mut ours),
        variants: theirs
            .map(|(variant, times)| (variant.name.clone(), variant.layout, median(times)))
            .collect(),
    }
}

impl Compared {
    pub fn report(&self, query: &str, figure: &mut impl FnMut(String, f64, &'static str)) {
        figure(format!("{query}_sealed_ms"), ms(self.sealed), "ms");
        for layout in LAYOUTS.into_iter().chain(["pme"]) {
            let (name, time) = self.best(|of| of == layout);
            figure(format!("{query}_{layout}_ms"), ms(time), "ms");
            let over = ms(self.sealed) / ms(time);
            figure(format!("{query}_sealed_over_{layout}"), over, "ratio");
            println!("    ({name})");
        }
        let (name, time) = self.best(|of| of != "pme");
        println!("    (the best plaintext is {name})");
        let over = ms(self.sealed) / ms(time);
        figure(format!("{query}_sealed_over_plaintext"), over, "ratio");
    }

    fn best(&self, of: impl Fn(&str) -> bool) -> (&str, Duration) {
        let some = self.variants.iter().filter(|(_, layout, _)| of(layout));
        let best = some.min_by_key(|(.., time)| *time).unwrap();
        (&best.0, best.2)
    }
}

/// PostgreSQL's time; its answer is compared with the plaintext of the patients that it holds, the first ones.
pub async fn ask_postgres(
    query: &Query,
    postgres: &Pgcrypto,
    plaintext: &Variant,
    held: &[SubjectPseudonym],
) -> Duration {
    let held: Vec<_> = held.iter().map(SubjectPseudonym::as_str).collect();
    let expected = Answer::of_batches(&plaintext.query(&query.of(&held)).await.0);
    let (rows, first) = postgres.query(&query.postgres).await;
    Answer::of_postgres(&rows).must_equal(&expected, "pgcrypto");
    if first > POSTGRES_LONG {
        return first;
    }
    let mut times = Vec::new();
    for _ in 0..POSTGRES_RUNS {
        times.push(postgres.query(&query.postgres).await.1);
    }
    median(&mut times)
}

pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
