//! Room on the disk: looked for as long as the server runs, told when it ends and when it is back.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use vitalseal_ingest::Alert;

use super::System;
use super::http::Metric;

/// Looks for room once a second, and raises an alert whenever the answer changes.
pub(super) async fn watch(system: Arc<System>, stop: CancellationToken) {
    let space = &system.store.space;
    let reserve = u64::from(system.config.storage.reserve_mib) << 20;
    let mut changes = space.changes();
    let looking = space.clone().watch(reserve);
    let telling = async {
        while changes.changed().await.is_ok() {
            let full = *changes.borrow_and_update();
            let alert = if full {
                Alert::DiskFull
            } else {
                Alert::DiskFree
            };
            system.alerts.raise(alert, system.clock.now());
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = looking => {}
        () = telling => {}
    }
}

/// Whether messages are refused for want of room, and how much there is.
pub(super) fn metrics(system: &System) -> [Metric; 2] {
    let space = &system.store.space;
    [
        (
            "disk_full",
            "gauge",
            "1 while messages are refused because the disk has no room for them",
            u64::from(space.is_full()),
        ),
        (
            "disk_free_bytes",
            "gauge",
            "Free space of the data directory's file system",
            space.free_bytes().unwrap_or(0),
        ),
    ]
}
