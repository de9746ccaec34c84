//! A backup, taken by the server that holds the store.

use std::path::Path;

use serde_json::Value;
use vitalseal_storage::ports::AuditEvent;

use super::{Act, json};
use crate::admin::views::BackupView;

pub(super) async fn take(act: &Act<'_>, out: &Path) -> anyhow::Result<Value> {
    let store = &act.system.store;
    let taken = store
        .backup(out, env!("CARGO_PKG_VERSION"), act.now)
        .await?;
    let (files, bytes) = (taken.manifest.files.len(), taken.bytes());
    act.audited(AuditEvent::BackupTaken {
        backup: taken.id.clone(),
        root_epoch: taken.manifest.root_epoch,
        files: files.try_into()?,
        bytes,
    })
    .await?;
    json(&BackupView {
        backup: out,
        id: &taken.id,
        taken_at: taken.manifest.taken_at,
        root_epoch: taken.manifest.root_epoch.0,
        files,
        bytes,
        keys: &act.system.config.keys.snapshots,
    })
}
