//! Forgetting one patient among 10³ to 10⁶: from the order until the old root is destroyed and found gone, with a key
//! snapshot written and read back in between.
//!
//! `cargo bench --bench erasure [-- --quick]` (quick stops at 10⁵)

#![allow(
    clippy::cast_lossless,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a bench has nobody to answer to; it stops where something is wrong"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Figures, now, quick};
use vitalseal_storage::{FileRootProvider, KeyCustody, Store, StorePaths};

/// Patients in one transaction while the registry is filled.
const IMPORT: usize = 10_000;

/// Erasures at each size.
const ERASURES: usize = 7;

#[tokio::main]
async fn main() {
    let mut figures = Figures::of("erasure");
    let largest = if quick() { 5 } else { 6 };
    for size in (3..=largest).map(|exponent| 10_usize.pow(exponent)) {
        measure(size, &mut figures).await;
    }
    figures.print_json();
}

async fn measure(size: usize, figures: &mut Figures) {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(&dir.path().join("data"), None);
    let custody = KeyCustody {
        roots: Arc::new(FileRootProvider::new(paths.root_keys())),
        snapshots: vec![paths.default_snapshots()],
    };
    let store = Store::create(&paths, custody, now()).await.unwrap();
    let mut patients = Vec::with_capacity(size);
    let filling = Instant::now();
    while patients.len() < size {
        let some = std::iter::repeat_n(None, IMPORT.min(size - patients.len()));
        patients.extend(store.registry.add_patients(some, now()).await.unwrap());
    }
    let filled = filling.elapsed();
    let snapshot = Instant::now();
    store.keys.snapshot(now()).await.unwrap();
    let snapshot = snapshot.elapsed();

    let mut times = Vec::with_capacity(ERASURES);
    let mut rewrapped = 0;
    for n in 0..ERASURES {
        let subject = &patients[n * (size / ERASURES)];
        let started = Instant::now();
        let done = store
            .keys
            .erase(subject, &format!("erasure-{n}"), now())
            .await
            .unwrap();
        times.push(started.elapsed());
        rewrapped = done.keks_rewrapped + done.pages_rewrapped;
        assert!(store.keys.patient_keys(subject).await.unwrap().is_none());
    }
    store.close().await;

    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let label = |what: &str| format!("{what}_{size}");
    figures.add(label("add_one"), ms(filled) / size as f64 * 1e3, "µs");
    // Every page for once; a server writes it at its first start with a place, and then only what changed.
    figures.add(label("first_snapshot"), ms(snapshot), "ms");
    figures.add(label("keys_rewrapped"), rewrapped as f64, "keys");
    figures.add(label("erase_median"), ms(times[times.len() / 2]), "ms");
    figures.add(label("erase_slowest"), ms(times[times.len() - 1]), "ms");
}
