//! A ward whose patients all have a pulse wave taken: whether the store keeps up with them, and what a sample takes.
//!
//! Devices seal two seconds a message, the pipeline verifies and re-wraps, the store flushes and compacts: one step after
//! the other, each alone on all cores. What connections cost is told by `ingest_throughput --waveforms HZ`.
//!
//! | Figure | Meaning |
//! |---|---|
//! | `ingest`, `flush`, `compaction` | samples a second |
//! | `…_of_the_time` | what the step takes, over what it took to measure the samples: below 1 it keeps up |
//! | `rows`, `chunks` | bytes a sample in all data files, evidence included, before and after compaction |
//!
//! `cargo bench --bench waveforms [-- --quick] [--waveforms 250] [--patients 100] [--seconds 600]`

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

mod common;
#[path = "common/sealed.rs"]
mod sealed;
#[path = "common/workload.rs"]
mod workload;

use std::num::NonZeroU32;
use std::time::Duration;

use common::{Figures, argument, quick};
use sealed::Sealed;
use workload::Workload;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut figures = Figures::of("waveforms");
    let rates = argument("--waveforms").map_or(vec![250, 500], |rate| vec![rate]);
    for rate in rates {
        runtime.block_on(measure(NonZeroU32::new(rate as u32).unwrap(), &mut figures));
    }
    figures.print_json();
}

async fn measure(rate_hz: NonZeroU32, figures: &mut Figures) {
    let patients = argument("--patients").unwrap_or(100);
    let seconds = argument("--seconds").unwrap_or(if quick() { 60 } else { 600 });
    let workload = Workload::waveforms(rate_hz, patients, seconds);
    let mut sealed = Sealed::new(&workload).await;
    let filled = sealed.fill(&workload).await;
    let samples = filled.readings;
    println!("  {samples} samples in {} messages", filled.messages);
    let rows = bytes(&sealed).await;
    let compacted = sealed.compact(&workload).await;
    let chunks = bytes(&sealed).await;
    let compaction = compacted.iter().map(|done| done.time).sum();

    let label = |what: &str| format!("{what}_{rate_hz}_hz_{patients}_patients");
    for (step, time) in [
        ("ingest", filled.ingest),
        ("flush", filled.flush),
        ("compaction", compaction),
    ] {
        let time: Duration = time;
        let rate = samples as f64 / time.as_secs_f64();
        figures.add(label(step), rate, "samples/s");
        let share = time.as_secs_f64() / seconds as f64;
        figures.add(label(&format!("{step}_of_the_time")), share, "ratio");
    }
    for (name, bytes) in [("rows", rows), ("chunks", chunks)] {
        let each = bytes as f64 / samples as f64;
        figures.add(label(name), each, "bytes/sample");
    }
    sealed.close().await;
}

/// Of all data files.
async fn bytes(sealed: &Sealed) -> u64 {
    let files = sealed.store.catalog.files().await.unwrap();
    files.iter().map(|file| file.size).sum()
}
