//! The quarantine as an operator watches it: how much waits for a review, and whether there is room for more.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vitalseal_ingest::Alert;

use super::System;
use super::http::Metric;

/// How often its size is looked at.
const CHECK: Duration = Duration::from_secs(1);

/// Raises an alert when kept messages leave no room for another large one, and when they do again.
pub(super) async fn watch(system: Arc<System>, stop: CancellationToken) {
    let mut tick = interval(CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_full = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let full = system.store.inbox.is_quarantine_full();
        if full != was_full {
            was_full = full;
            let alert = if full {
                Alert::QuarantineFull
            } else {
                Alert::QuarantineFree
            };
            system.alerts.raise(alert, system.clock.now());
        }
    }
}

/// What waits, and what is kept of it.
pub(super) async fn metrics(system: &System) -> [Metric; 3] {
    let inbox = &system.store.inbox;
    [
        (
            "quarantine_held",
            "gauge",
            "Refused messages that wait for a review",
            inbox.quarantine_held().await.unwrap_or(0),
        ),
        (
            "quarantine_bytes",
            "gauge",
            "Bytes of refused messages that are kept",
            inbox.quarantine_bytes(),
        ),
        (
            "quarantine_full",
            "gauge",
            "1 while refused messages that a review may release are not acknowledged, for want of room",
            u64::from(inbox.is_quarantine_full()),
        ),
    ]
}

/// Refused messages by reason since the start, in Prometheus text format.
pub(super) fn write_reasons(system: &System, text: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "# HELP vitalseal_quarantined_total Messages refused and kept aside\n\
         # TYPE vitalseal_quarantined_total counter"
    );
    for (reason, count) in system.pipeline.quarantined() {
        let _ = writeln!(
            text,
            "vitalseal_quarantined_total{{reason=\"{reason}\"}} {count}"
        );
    }
}
