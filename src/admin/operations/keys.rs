//! The key tree: what there is, and new keys for old ones.

use serde_json::Value;
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::SnapshotPlace;
use vitalseal_storage::ports::AuditEvent;

use super::{Act, json};
use crate::admin::views::{
    KekRotatedView, KeysView, RecipientKeyView, RootRotatedView, SnapshotView,
};
use crate::memory;

pub(super) async fn status(act: &Act<'_>) -> anyhow::Result<Value> {
    let keys = &act.system.store.keys;
    let status = keys.status().await?;
    let recipients = keys.recipients().await?;
    let envelope_keys = recipients.iter().filter(|key| key.held);
    json(&KeysView {
        root_provider: &status.root_provider,
        root_epoch: status.root_epoch.0,
        root_since: status.root_since,
        roots_retiring: status.roots_retiring,
        pages: status.pages,
        keks: status.keks,
        keks_retired: status.keks_retired,
        erasures: status.erasures,
        erasures_unfinished: status.erasures_unfinished,
        envelope_keys: envelope_keys
            .map(|key| RecipientKeyView {
                epoch: key.epoch.0,
                kid: key.kid.to_string(),
                not_after: key.not_after,
            })
            .collect(),
        snapshots: keys
            .snapshots()
            .await?
            .into_iter()
            .map(snapshot_view)
            .collect(),
        memory_locked: memory::is_locked(),
        memory_dumpable: memory::is_dumpable()?,
    })
}

fn snapshot_view(found: SnapshotPlace) -> SnapshotView {
    let (newest, fault) = match found.newest {
        Ok(newest) => (newest, None),
        Err(error) => (None, Some(format!("{:#}", anyhow::Error::from(error)))),
    };
    SnapshotView {
        place: found.place,
        root_epoch: newest.as_ref().map(|(id, _)| id.root_epoch.0),
        taken_at: newest.map(|(_, taken_at)| taken_at),
        fault,
    }
}

pub(super) async fn rotate_root(act: &Act<'_>) -> anyhow::Result<Value> {
    let turned = act.system.store.keys.rotate_root(act.now).await?;
    act.audited(AuditEvent::RootRotated {
        root_epoch_destroyed: turned.root_epoch_destroyed,
        root_epoch: turned.root_epoch,
        pages: turned.pages_rewrapped,
    })
    .await?;
    json(&RootRotatedView {
        root_epoch_destroyed: turned.root_epoch_destroyed.0,
        root_epoch: turned.root_epoch.0,
        pages_rewrapped: turned.pages_rewrapped,
    })
}

pub(super) async fn rotate_kek(act: &Act<'_>, patient: &SubjectPseudonym) -> anyhow::Result<Value> {
    let registry = &act.system.store.registry;
    let rotation = registry.rotate_kek(patient, act.now).await?;
    act.audited(AuditEvent::KekRotated {
        patient: patient.clone(),
        retired: rotation.retired.clone(),
        kid: rotation.current.clone(),
    })
    .await?;
    json(&KekRotatedView {
        patient: patient.as_str(),
        retired: rotation.retired.to_string(),
        current: rotation.current.to_string(),
    })
}
