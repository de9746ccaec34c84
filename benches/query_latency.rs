//! The same questions to the same readings: sealed, in plaintext Parquet on DataFusion as it comes, in plaintext Parquet
//! under Modular Encryption, and in PostgreSQL with pgcrypto. In one run, in turns, answers compared.
//!
//! Sealed is the whole product: devices seal, the pipeline verifies and re-wraps, the store flushes and compacts, and the
//! query service asks the policy, writes the audit log and decrypts. Plaintext stands in four layouts, each with and
//! without filters pushed into the scan; **the fastest of the eight counts, for each question**.
//!
//! | Figure | Meaning |
//! |---|---|
//! | `full_scan_…` | count, mean, least and most of each signal, over everything |
//! | `filter_…` | how many values of one signal are above a limit, over everything |
//! | `minutes_…` | one patient's means by signal and minute |
//! | `point_…` | one patient's readings of one signal in one hour |
//! | `latest_…` | the latest value of each patient and signal |
//! | `…_sealed_over_plaintext` | median time over that of the best plaintext; the aim is 1 at most |
//! | `…_sealed_ms`, `…_LAYOUT_ms`, `…_pme_ms` | median times, from the text of the query to its last row |
//! | `…_sealed_over_LAYOUT` | … over one layout, with or without pushdown |
//! | `…_rows_ms` | the same before compaction: sealed rows, one message each |
//! | `…_pgcrypto_ms`, `…_pgcrypto_over_sealed` | of PostgreSQL, which holds `pgcrypto_readings` |
//! | `cancel_…_median_ms`, `cancel_…_most_ms` | from the client's departure until nothing works for its query any more |
//! | `cancel_…_whole_ms` | … what that query takes when it is waited for |
//! | `sealing`, `ingest`, `flush`, `compaction` | readings a second; compaction of each level, and of all together |
//!
//! `cargo bench --bench query_latency [-- --quick] [--readings 20000000] [--patients 400] [--runs 7] [--curves 1]
//! [--pg-part 1]`
//!
//! `--curves 1` measures a tenth of the readings and patients, and a tenth of the patients only, before the whole: their
//! figures end in `_READINGS_PATIENTS`. With `--pg-part N` PostgreSQL holds one patient of `N`, and no ratio is told where
//! a question is about all.

#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a bench has nobody to answer to; it stops where something is wrong"
)]

#[path = "query_latency/answers.rs"]
mod answers;
#[path = "query_latency/cancel.rs"]
mod cancel;
mod common;
#[path = "query_latency/compare.rs"]
mod compare;
#[path = "common/pgcrypto.rs"]
mod pgcrypto;
#[path = "common/plaintext.rs"]
mod plaintext;
#[path = "common/pme.rs"]
mod pme;
#[path = "query_latency/queries.rs"]
mod queries;
#[path = "common/sealed.rs"]
mod sealed;
#[path = "common/workload.rs"]
mod workload;

use std::time::Duration;

use answers::Answer;
use common::{Figures, argument, quick};
use compare::{ask_postgres, compare, median, ms};
use jiff::SignedDuration;
use pgcrypto::Pgcrypto;
use plaintext::{Plaintext, Variant};
use queries::Query;
use sealed::{Compacted, Filled, Sealed};
use workload::Workload;

/// A monitor's minute: five signals a second.
const PER_MESSAGE: usize = 300;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut figures = Figures::of("query_latency");
    runtime.block_on(run(&mut figures));
    figures.print_json();
}

async fn run(figures: &mut Figures) {
    let (readings, patients) = if quick() {
        (600_000, 40)
    } else {
        (20_000_000, 400)
    };
    let readings = argument("--readings").unwrap_or(readings);
    let patients = argument("--patients").unwrap_or(patients);
    if argument("--curves").is_some() {
        for (readings, patients) in [(readings / 10, patients / 10), (readings, patients / 10)] {
            let label = format!("_{}k_{patients}", readings / 1_000);
            measure(
                &Workload::new(readings, patients, PER_MESSAGE),
                &label,
                figures,
            )
            .await;
        }
    }
    measure(&Workload::new(readings, patients, PER_MESSAGE), "", figures).await;
}

/// Everything about one workload; `label` ends the names of its figures.
async fn measure(workload: &Workload, label: &str, figures: &mut Figures) {
    let mut figure = |name: String, value: f64, unit| figures.add(name + label, value, unit);
    let mut sealed = Sealed::new(workload).await;
    let filled = sealed.fill(workload).await;
    println!(
        "  {} readings in {} messages, {} patients, {:.1} hours",
        filled.readings,
        filled.messages,
        workload.patients,
        workload.hours()
    );
    let plaintext = Plaintext::write(workload, &sealed.subjects);
    assert_eq!(
        plaintext.readings, filled.readings,
        "both sides hold the same"
    );
    let mut variants = plaintext.variants().await;
    variants.extend(plaintext.encrypted());

    // The first patient has two devices. The hour is in the first half, so that it is not among the latest.
    let from = SignedDuration::from_hours((workload.hours() / 2.0) as i64);
    let queries = queries::all(sealed.subjects[0].as_str(), workload.start() + from);
    let runs = argument("--runs").unwrap_or(if quick() { 3 } else { 7 });
    for query in &queries {
        let before = before_compaction(query, &sealed, &variants[0]).await;
        figure(format!("{}_rows_ms", query.name), ms(before), "ms");
    }
    cancel::measure(&cancel::of_rows(), &sealed, &mut figure);
    let compacted = sealed.compact(workload).await;
    rates(&filled, &compacted, &mut figure);

    let part = argument("--pg-part").unwrap_or(if quick() { 20 } else { 1 });
    let held = &sealed.subjects[..workload.patients.div_ceil(part)];
    let postgres = match label {
        "" => Pgcrypto::load(workload, &sealed.subjects, held.len()).await,
        _ => None,
    };
    if let Some(postgres) = &postgres {
        let (readings, load) = (postgres.readings as f64, postgres.load.as_secs_f64());
        figure("pgcrypto_readings".to_owned(), readings, "readings");
        figure("pgcrypto_load".to_owned(), readings / load, "readings/s");
    }
    for query in &queries {
        let compared = compare(query, &sealed, &variants, runs).await;
        compared.report(query.name, &mut figure);
        if let Some(postgres) = &postgres {
            let time = ask_postgres(query, postgres, &variants[0], held).await;
            figure(format!("{}_pgcrypto_ms", query.name), ms(time), "ms");
            if part == 1 || !query.whole {
                let over = ms(time) / ms(compared.sealed);
                figure(
                    format!("{}_pgcrypto_over_sealed", query.name),
                    over,
                    "ratio",
                );
            }
        }
    }
    for question in cancel::of_chunks() {
        cancel::measure(&question, &sealed, &mut figure);
    }
    if postgres.is_none() && label.is_empty() {
        println!("  (PostgreSQL is not installed: its rows are missing)");
    }
    sealed.close().await;
}

/// What the question takes over sealed rows.
async fn before_compaction(query: &Query, sealed: &Sealed, plaintext: &Variant) -> Duration {
    let sql = query.of_all();
    let expected = Answer::of_batches(&plaintext.query(&sql).await.0);
    let answer = Answer::of_batches(&sealed.query(&sql).await.0);
    answer.must_equal(&expected, "sealed rows");
    let mut times = Vec::new();
    for _ in 0..3 {
        times.push(sealed.query(&sql).await.1);
    }
    median(&mut times)
}

/// How fast readings come in and go on, and how many each chunk has in the end.
fn rates(
    filled: &Filled,
    compacted: &[Compacted],
    figure: &mut impl FnMut(String, f64, &'static str),
) {
    let mut rate = |step: String, readings: u64, time: Duration| {
        figure(step, readings as f64 / time.as_secs_f64(), "readings/s");
    };
    rate("sealing".to_owned(), filled.readings, filled.sealing);
    rate("ingest".to_owned(), filled.readings, filled.ingest);
    rate("flush".to_owned(), filled.readings, filled.flush);
    for done in compacted {
        rate(
            format!("compaction_to_level_{}", done.level),
            done.readings,
            done.time,
        );
    }
    let time = compacted.iter().map(|done| done.time).sum();
    rate("compaction".to_owned(), filled.readings, time);
    if let Some(last) = compacted.last() {
        let each = last.readings as f64 / last.chunks as f64;
        figure("readings_a_chunk".to_owned(), each, "readings");
    }
}
