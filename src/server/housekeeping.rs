//! What the server does with stored files unasked: merges small ones, drops ciphertext of the erased, removes what was
//! replaced, deletes what outlived its retention. One thing at a time, in steps that a stop need not wait long for.
//!
//! Never here: anything that a message waits for. Flushes have a task of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vitalseal_ingest::Alert;
use vitalseal_storage::Unwatched;
use vitalseal_storage::ports::Actor;

use super::System;
use super::http::Metric;
use crate::housekeeping::Housekeeping;

/// Retention is counted in days.
const RETENTION_CHECK: Duration = Duration::from_secs(60 * 60);

/// Failures in a row after which somebody is told.
const FAILURES_TO_TELL: u32 = 3;

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Tended {
    compactions: AtomicU64,
    readings: AtomicU64,
    removed_bytes: AtomicU64,
    failures: AtomicU64,
}

/// Looks for what is due, again and again. After a failure it waits twice as long as before.
pub(super) async fn tend(system: Arc<System>, stop: CancellationToken) {
    let every = system.config.housekeeping.interval();
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failures, mut retained) = (0_u32, None);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            done = tend_once(&system, &mut retained) => done,
        };
        match done {
            Ok(()) => {
                if failures >= FAILURES_TO_TELL {
                    system
                        .alerts
                        .raise(Alert::HousekeepingResumed, system.clock.now());
                }
                failures = 0;
            }
            Err(error) => {
                tracing::error!(
                    "housekeeping: {error:#}; it is tried again, and nothing is lost until then"
                );
                system.tended.failures.fetch_add(1, Relaxed);
                failures = failures.saturating_add(1);
                if failures == FAILURES_TO_TELL {
                    system
                        .alerts
                        .raise(Alert::HousekeepingFails, system.clock.now());
                }
                let pause = every
                    .saturating_mul(1 << failures.min(12))
                    .min(LONGEST_PAUSE);
                tick.reset_after(pause);
            }
        }
    }
}

/// All that is due; what fails does not keep the rest from being done.
async fn tend_once(system: &System, retained: &mut Option<Instant>) -> anyhow::Result<()> {
    let settings = &system.config.housekeeping;
    let keeping = Housekeeping::of(system, Actor::System);
    let mut first = Ok(());
    let mut note = |done: anyhow::Result<()>| {
        if first.is_ok() {
            first = done;
        }
    };
    if retained.is_none_or(|at| at.elapsed() >= RETENTION_CHECK) {
        *retained = Some(Instant::now());
        note(keeping.enforce_retention().await.map(drop));
    }
    if settings.vacuum && keeping.is_vacuum_due().await? {
        note(keeping.vacuum(&Unwatched).await.map(|vacuumed| {
            tracing::info!(
                erasures = vacuumed.erasures,
                files = vacuumed.files_in,
                "left ciphertext of erased patients out of the files that held it"
            );
        }));
    }
    note(keeping.collect_garbage().await.map(|removed| {
        system
            .tended
            .removed_bytes
            .fetch_add(removed.bytes, Relaxed);
    }));
    if settings.compact {
        note(compact(system, &keeping).await);
    }
    first
}

async fn compact(system: &System, keeping: &Housekeeping<'_>) -> anyhow::Result<()> {
    let settings = system.config.housekeeping.compaction();
    while let Some(report) = keeping.compact_once(&settings, &Unwatched).await? {
        system.tended.compactions.fetch_add(1, Relaxed);
        system.tended.readings.fetch_add(report.readings, Relaxed);
        tracing::info!(
            files_in = report.files_in,
            files_out = report.files_out,
            messages = report.messages,
            readings = report.readings,
            left_sealed = report.sealed,
            "compacted"
        );
        if !report.more {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Files, what waits to be removed, and what was done since the start.
pub(super) async fn metrics(system: &System) -> Vec<Metric> {
    let catalog = &system.store.catalog;
    let (mut files, mut bytes) = (0, 0);
    if let Ok(live) = catalog.files().await {
        files = u64::try_from(live.len()).unwrap_or(u64::MAX);
        bytes = live.iter().map(|file| file.size).sum();
    }
    let waiting = catalog.ended().await.unwrap_or_default();
    let stones = catalog.tombstones().await.unwrap_or_default();
    let undropped = stones.iter().filter(|stone| stone.dropped_at.is_none());
    let losses = catalog.losses().await.unwrap_or_default();
    let tended = &system.tended;
    vec![
        ("data_files", "gauge", "Data files that count", files),
        ("data_bytes", "gauge", "Their bytes", bytes),
        (
            "replaced_bytes",
            "gauge",
            "Bytes of files that others replaced and that wait to be removed",
            waiting.iter().map(|file| file.size).sum(),
        ),
        (
            "erasures_not_dropped",
            "gauge",
            "Erased patients of whom ciphertext, which opens for nobody, is still in a file",
            u64::try_from(undropped.count()).unwrap_or(u64::MAX),
        ),
        (
            "losses",
            "gauge",
            "Rows and files that were lost to damage, as recorded by repairs",
            u64::try_from(losses.len()).unwrap_or(u64::MAX),
        ),
        (
            "compactions_total",
            "counter",
            "Merges of files",
            tended.compactions.load(Relaxed),
        ),
        (
            "compacted_readings_total",
            "counter",
            "Readings in them",
            tended.readings.load(Relaxed),
        ),
        (
            "removed_bytes_total",
            "counter",
            "Bytes of replaced files that were removed",
            tended.removed_bytes.load(Relaxed),
        ),
        (
            "housekeeping_failures_total",
            "counter",
            "Times that housekeeping failed and was put off",
            tended.failures.load(Relaxed),
        ),
    ]
}
