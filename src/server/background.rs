//! What the server does unasked: flush the inbox, renew the envelope key and the revocation list.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vitalseal_crypto::DeviceId;
use vitalseal_ingest::Alert;
use vitalseal_storage::{DeviceState, SnapshotError, SnapshotPlace};

use super::System;
use crate::recipient;

/// How often the inbox's size is looked at, and so how far it may overshoot `flush_mib`.
const SIZE_CHECK: Duration = Duration::from_secs(1);

/// How often epochs are looked at: often enough that an ended key is not kept a minute longer.
const EPOCH_CHECK: Duration = Duration::from_secs(60);

/// How often the age of the revocation list and of the server's certificate is looked at; both may wait for days.
const LIST_CHECK: Duration = Duration::from_secs(300);

/// How old the newest key snapshot of a place may be.
const SNAPSHOT_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Flushes every `flush_interval_s`, or as soon as the inbox holds `flush_mib`.
pub(super) async fn flush(system: Arc<System>, stop: CancellationToken) {
    let every = Duration::from_secs(system.config.storage.flush_interval_s.max(1));
    let at_bytes = system.config.storage.flush_mib.max(1) << 20;
    let mut last = Instant::now();
    let mut tick = interval(SIZE_CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stopped(&mut tick, &stop).await {
        let full = match system.store.inbox.pending().await {
            Ok((_, bytes)) => bytes >= at_bytes,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "measuring the inbox"
                );
                false
            }
        };
        if !full && last.elapsed() < every {
            continue;
        }
        last = Instant::now();
        match system.flush().await {
            Ok(report) if report.messages > 0 => {
                tracing::info!(
                    messages = report.messages,
                    readings = report.readings,
                    "flushed"
                );
            }
            Ok(_) => {}
            // The rows stay in the inbox, which is durable; the next tick tries again.
            Err(error) => tracing::error!("flushing the inbox: {error:#}"),
        }
    }
}

/// Starts and ends envelope key epochs in time and publishes the current certificate. Finishes what an erasure left
/// unfinished, and keeps the key snapshots young.
pub(super) async fn tend_recipient(system: Arc<System>, stop: CancellationToken) {
    let mut tick = interval(EPOCH_CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stopped(&mut tick, &stop).await {
        if let Err(error) = tend_once(&system).await {
            tracing::error!("tending the envelope key epochs: {error:#}");
        }
    }
}

async fn tend_once(system: &System) -> anyhow::Result<()> {
    let System {
        store,
        authority,
        audit,
        config,
        ..
    } = system;
    let now = system.clock.now();
    // An erasure that could not be finished, such as when a place for key snapshots was away, is not final yet.
    if let Err(error) = store.keys.resume(now).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "looking for an unfinished erasure or rotation; if there is one, its old root key still exists"
        );
    }
    if let Err(error) = renew_snapshots(system, now).await {
        tracing::error!("writing a snapshot of the key tree: {error:#}");
    }
    let tended = recipient::tend(store, authority, &**audit, &config.recipient, now).await;
    // Whatever failed, devices must know the key that is valid now: one that was made and could not be
    // recorded is still the one to seal to.
    let current = Bytes::from(recipient::current(store, now).await?.to_pem());
    system.recipient.send_if_modified(|published| {
        let changed = *published != current;
        *published = current;
        changed
    });
    tended
}

/// A place that is new or came back gets a snapshot at once, every place one a day that was read in full, and one
/// whenever a patient came, a key changed or somebody was shut out. So an erasure finds all but the pages that changed
/// since where they belong, and a lost data directory or registry costs a minute of new patients' keys at most.
/// A place that is away is told, and the others are not written for it.
async fn renew_snapshots(system: &System, now: Timestamp) -> anyhow::Result<()> {
    let keys = &system.store.keys;
    let mut due = false;
    for SnapshotPlace { place, newest } in keys.snapshots().await? {
        match newest {
            Ok(Some((_, taken_at))) if now.duration_since(taken_at) < SNAPSHOT_AGE => {}
            Err(error @ SnapshotError::Away(_)) => tracing::error!(
                place = %place.display(),
                error = &error as &dyn std::error::Error,
                "looking for key snapshots; no erasure is final without this place"
            ),
            Ok(_) | Err(_) => due = true,
        }
    }
    if due {
        keys.snapshot(now).await?;
    } else if keys.is_ahead_of_snapshots().await? {
        keys.snapshot_changes(now).await?;
    }
    Ok(())
}

/// Renews the revocation list when the state of a device or a subscriber changed and when it is old, and the server's
/// certificate in time.
pub(super) async fn tend_revocations(system: Arc<System>, stop: CancellationToken) {
    let mut changes = system.store.registry.subscribe_devices();
    let mut listeners = system.store.registry.listeners_changed();
    let mut tick = interval(LIST_CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stale = false;
    loop {
        let due = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => true,
            changed = changes.recv() => match changed {
                Ok(device) => concerns_list(&system, &device).await,
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            },
            // The registry lives as long as this does.
            Ok(()) = listeners.changed() => true,
        };
        if !due {
            continue;
        }
        if let Err(error) = system.renew_revocations().await {
            tracing::error!("renewing the revocation list: {error:#}; the one before is shown");
        }
        let now = system.clock.now();
        if stale != system.revocations.is_stale(now) {
            stale = !stale;
            let alert = match stale {
                true => Alert::RevocationListStale,
                false => Alert::RevocationListRenewed,
            };
            system.alerts.raise(alert, now);
        }
    }
}

/// Whether a device is kept out, or was when the newest list was made. When the registry cannot say, it may be.
async fn concerns_list(system: &System, device: &DeviceId) -> bool {
    match system.store.registry.device(device).await {
        Ok(Some(record)) => {
            record.state != DeviceState::Active
                || system.revocations.holds(record.certificate.serial())
        }
        Ok(None) => false,
        Err(_) => true,
    }
}

async fn stopped(tick: &mut tokio::time::Interval, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => true,
        _ = tick.tick() => false,
    }
}
