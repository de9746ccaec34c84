//! What one device is told on its own topic: queued, and shown without its content.

use anyhow::Context as _;
use jiff::SignedDuration;
use serde_json::{Value, json};
use vitalseal_crypto::DeviceId;
use vitalseal_storage::DeviceState;
use vitalseal_storage::ports::AuditEvent;

use super::Act;
use super::devices::no_device;

pub(super) async fn send(
    act: &Act<'_>,
    device: DeviceId,
    content: &[u8],
    expires_s: i64,
) -> anyhow::Result<Value> {
    let (system, now) = (act.system, act.now);
    anyhow::ensure!(
        system.announcer.is_some(),
        "nobody connects here: this server consumes from a cluster only (mqtt.cluster.only)"
    );
    let record = system.store.registry.device(&device).await?;
    let record = record.with_context(|| no_device(&device))?;
    anyhow::ensure!(
        record.state != DeviceState::Revoked,
        "device {device} is revoked and never comes for a message"
    );
    let expires_at = now + SignedDuration::from_secs(expires_s);
    let inbox = &system.store.inbox;
    let message = inbox.tell(&device, content, now, expires_at).await?;
    // A revocation in between would leave it for nobody.
    let record = system.store.registry.device(&device).await?;
    if record.is_none_or(|record| record.state == DeviceState::Revoked) {
        inbox.forget_downlink(&device).await?;
    }
    let bytes = u64::try_from(content.len())?;
    let answer = json!({
        "device": device, "message": message, "bytes": bytes, "expires_at": expires_at,
    });
    act.audited(AuditEvent::DownlinkQueued {
        device,
        message: u64::try_from(message)?,
        bytes,
        expires_at,
    })
    .await?;
    Ok(answer)
}

/// What waits for a device.
pub(super) async fn waiting(act: &Act<'_>, device: &DeviceId) -> anyhow::Result<Value> {
    let store = &act.system.store;
    let known = store.registry.device(device).await?;
    known.with_context(|| no_device(device))?;
    let waiting = store.inbox.downlink(device, act.now).await?;
    let waiting = waiting.iter().map(|row| {
        json!({
            "message": row.id,
            "bytes": row.bytes,
            "queued_at": row.queued_at,
            "expires_at": row.expires_at,
        })
    });
    Ok(waiting.collect())
}
