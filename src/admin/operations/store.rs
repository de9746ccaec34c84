//! The store as a whole: what is in it, whether it is sound, and what makes it smaller.

use serde_json::Value;
use vitalseal_storage::Progress;

use super::super::protocol::Repair;
use super::{Act, json};
use crate::housekeeping::Housekeeping;

pub(super) async fn status(act: &Act<'_>) -> anyhow::Result<Value> {
    json(&keeping(act).status().await?)
}

pub(super) async fn check(
    act: &Act<'_>,
    keys: bool,
    repair: Option<Repair>,
    progress: &dyn Progress,
) -> anyhow::Result<Value> {
    json(&keeping(act).check(keys, repair.as_ref(), progress).await?)
}

pub(super) async fn compact(
    act: &Act<'_>,
    force: bool,
    progress: &dyn Progress,
) -> anyhow::Result<Value> {
    json(&keeping(act).compact(force, progress).await?)
}

pub(super) async fn vacuum(act: &Act<'_>, progress: &dyn Progress) -> anyhow::Result<Value> {
    json(&keeping(act).vacuum(progress).await?)
}

fn keeping<'a>(act: &'a Act<'_>) -> Housekeeping<'a> {
    Housekeeping::of(act.system, act.actor.clone())
}
