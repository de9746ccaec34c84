//! The review of refused messages: what waits, what is known of it, and what a person decides.
//!
//! A release is on record before anything happens, then the message is stored, then that is on record, then its row is
//! settled: cut short anywhere, the same command finishes it, and the inbox knows the message by then. A drop is on
//! record before the body goes. One decision at a time: what is dropped while it is released would be stored.

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_ingest::Released;
use vitalseal_storage::ports::{Actor, AuditEvent};
use vitalseal_storage::{
    QuarantineFilter, QuarantineReason, QuarantineRow, QuarantineState, Settled,
};

use super::{Act, json, reason_text};
use crate::admin::views::quarantine::{QuarantineDetailView, QuarantineView, SettledView};

pub(super) async fn list(
    act: &Act<'_>,
    filter: &QuarantineFilter,
    limit: u32,
) -> anyhow::Result<Value> {
    let rows = act
        .system
        .store
        .inbox
        .quarantine_list(filter, limit)
        .await?;
    json(&rows.iter().map(QuarantineView::of).collect::<Vec<_>>())
}

pub(super) async fn show(act: &Act<'_>, id: i64) -> anyhow::Result<Value> {
    let row = row(act, id).await?;
    let obstacle = obstacle(act, &row).await?;
    json(&QuarantineDetailView::of(&row, obstacle))
}

pub(super) async fn release(act: &Act<'_>, id: i64, reason: &str) -> anyhow::Result<Value> {
    let reason = reason_text(reason)?;
    let _deciding = act.system.reviewing.lock().await;
    let row = row(act, id).await?;
    if row.state == QuarantineState::Released {
        return json(&SettledView::of(&row, None));
    }
    if let Some(obstacle) = obstacle(act, &row).await? {
        anyhow::bail!("message {id} cannot be released: {obstacle}");
    }
    let store = &act.system.store;
    let body = store.quarantined_body(id).await?;
    let body = body.with_context(|| format!("the key of message {id} is gone"))?;
    let (boot, sequence) = row.message.unzip();
    act.audited(AuditEvent::QuarantineReleaseOrdered {
        quarantine: id,
        device: row.device.clone(),
        boot,
        sequence,
        overruled: row.reason,
        reason: reason.clone(),
    })
    .await?;
    let released = act
        .system
        .pipeline
        .release(&row, Bytes::copy_from_slice(&body))
        .await
        .with_context(|| format!("releasing message {id}; it stays held"))?;
    let readings = match released {
        Released::Stored { readings } => Some(readings),
        Released::Known => None,
        Released::Refused { reason, detail } => anyhow::bail!(
            "message {id} stays held: apart from {}, it is refused for {reason}: {detail}",
            row.reason
        ),
    };
    act.audited(AuditEvent::QuarantineReleased {
        quarantine: id,
        device: row.device.clone(),
        boot,
        sequence,
    })
    .await?;
    settle(act, &row, QuarantineState::Released, reason, readings).await
}

pub(super) async fn drop(act: &Act<'_>, id: i64, reason: &str) -> anyhow::Result<Value> {
    let reason = reason_text(reason)?;
    let _deciding = act.system.reviewing.lock().await;
    let row = row(act, id).await?;
    match row.state {
        QuarantineState::Held => {}
        QuarantineState::Dropped => return json(&SettledView::of(&row, None)),
        QuarantineState::Released => anyhow::bail!("message {id} was released, and is stored"),
    }
    let (boot, sequence) = row.message.unzip();
    act.audited(AuditEvent::QuarantineDropped {
        quarantine: id,
        device: row.device.clone(),
        boot,
        sequence,
        refused: row.reason,
        reason: reason.clone(),
    })
    .await?;
    settle(act, &row, QuarantineState::Dropped, reason, None).await
}

async fn settle(
    act: &Act<'_>,
    row: &QuarantineRow,
    state: QuarantineState,
    reason: String,
    readings: Option<u32>,
) -> anyhow::Result<Value> {
    let by = match &act.actor {
        Actor::Local { uid } => format!("uid {uid}"),
        other => serde_json::to_string(other).context("naming who decided")?,
    };
    let settled = Settled {
        at: act.now,
        by,
        reason,
    };
    let inbox = &act.system.store.inbox;
    inbox.settle(row.id, state, settled).await?;
    let row = self::row(act, row.id).await?;
    json(&SettledView::of(&row, readings))
}

async fn row(act: &Act<'_>, id: i64) -> anyhow::Result<QuarantineRow> {
    let row = act.system.store.inbox.quarantine_row(id).await?;
    row.with_context(|| format!("there is no message {id} here (`vitalseal quarantine list`)"))
}

/// Why a message cannot be released, as far as that can be told without trying.
async fn obstacle(act: &Act<'_>, row: &QuarantineRow) -> anyhow::Result<Option<&'static str>> {
    if row.state != QuarantineState::Held {
        return Ok(Some("it is settled already"));
    }
    if !row.reason.is_releasable() {
        return Ok(Some("what it was refused for cannot be overruled"));
    }
    if !row.has_body {
        return Ok(Some("its body is not kept, or was erased with its patient"));
    }
    let record = act.system.store.registry.device(&row.device).await?;
    let Some(record) = record else {
        return Ok(Some("its device was never enrolled"));
    };
    let measured =
        |subject: &SubjectPseudonym| record.assignments.iter().any(|of| of.subject == *subject);
    if row.reason == QuarantineReason::NotAssigned && !row.subject.as_ref().is_some_and(measured) {
        return Ok(Some(
            "its device was never assigned to the patient; `vitalseal device assign --since` enters an assignment that \
             was forgotten",
        ));
    }
    Ok(None)
}
