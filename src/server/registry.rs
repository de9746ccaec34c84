//! A registry that goes back under a running server ends the server: a PostgreSQL server that failed over to a replica
//! which lags may have lost keys, patients and revocations that are still in memory here. No message is acknowledged any
//! more, and whoever starts the server again opens a store that is whole in itself.
//!
//! It is looked for each second. What a patient's devices sent within that second under a key that only the lost registry
//! had is acknowledged and opens for nobody; a key that is in a key snapshot opens it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vitalseal_compliance::audit::AuditLog;
use vitalseal_storage::ports::{Actor, AuditEvent, AuditRecord, AuditSink as _};
use vitalseal_storage::{Mended, Store};

use super::System;

/// How long a registry may have gone back before the server stops.
const CHECK: Duration = Duration::from_secs(1);

/// Ends when the registry went back, or at the stop; the former cancels `gone_back`.
pub(super) async fn watch(
    system: Arc<System>,
    gone_back: CancellationToken,
    stop: CancellationToken,
) {
    let mut tick = interval(CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_told = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match went_back(&system.store).await {
            Ok(None) => is_told = false,
            Ok(Some(mended)) => {
                // First of all: what is acknowledged must not be under a key that no registry has.
                system.store.refuse_messages().await;
                tracing::error!(
                    found = mended.found.0,
                    noted = mended.noted.0,
                    "the registry went back under this server, which takes no message any more and stops: start it again"
                );
                if let Err(error) = record(mended, &system.audit, system.clock.now()).await {
                    tracing::error!("{error:#}");
                }
                gone_back.cancel();
                return;
            }
            Err(error) => {
                if !is_told {
                    tracing::error!("looking whether the registry went back: {error:#}");
                }
                is_told = true;
            }
        }
    }
}

async fn went_back(store: &Store) -> anyhow::Result<Option<Mended>> {
    if store.keys.went_back().await? {
        // It may lack changes of data files, too.
        let last = store.catalog.current().await.map(|now| now.id);
        let last = last.unwrap_or_default();
        let of_keys = Mended {
            found: last,
            noted: last,
        };
        return Ok(Some(store.catalog.mended().unwrap_or(of_keys)));
    }
    Ok(store.catalog.mended())
}

/// Tells the audit log of a registry that was found to have gone back when the store was opened.
///
/// # Errors
/// The audit log cannot be written.
pub(crate) async fn tell_of_mending(
    store: &Store,
    audit: &AuditLog,
    now: jiff::Timestamp,
) -> anyhow::Result<()> {
    if let Some(mended) = store.catalog.mended() {
        record(mended, audit, now).await?;
        store.catalog.mending_recorded();
    }
    Ok(())
}

async fn record(mended: Mended, audit: &AuditLog, at: jiff::Timestamp) -> anyhow::Result<()> {
    let event = AuditEvent::RegistryWentBack {
        found: mended.found.0,
        noted: mended.noted.0,
    };
    let record = AuditRecord {
        at,
        actor: Actor::System,
        event,
    };
    let recorded = audit.record(record).await;
    recorded.context("recording that the registry went back")
}
