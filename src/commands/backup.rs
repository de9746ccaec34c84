//! `vitalseal backup` and `vitalseal restore`.

use std::io;

use anyhow::Context as _;
use vitalseal_storage::ports::{Clock as _, SystemClock};

use super::send;
use crate::admin::protocol::Request;
use crate::cli::{BackupArgs, RestoreArgs};
use crate::{logging, memory, output, restore};

pub(crate) async fn backup(args: BackupArgs, as_json: bool) -> anyhow::Result<()> {
    // The server's working directory is not ours.
    let out = std::path::absolute(&args.out).context("resolving --out")?;
    let taken = send(&args.at, Request::Backup { out }).await;
    let taken = taken.map_err(|error| match error.downcast_ref::<io::Error>() {
        Some(_) => error.context(
            "a backup is taken by the running server: start it, or copy the data directory of the stopped one",
        ),
        None => error,
    })?;
    output::print(&taken, as_json)
}

pub(crate) async fn restore(args: RestoreArgs, as_json: bool) -> anyhow::Result<()> {
    logging::start("warn");
    memory::forbid_core_dumps()?;
    let restore = restore::Restore {
        from: args.from,
        data: args.data,
        root_keys: args.root_keys,
        snapshots: args.snapshots,
        config: args.config,
    };
    let report = restore::restore(restore, SystemClock.now()).await?;
    output::print(&serde_json::to_value(&report)?, as_json)
}
