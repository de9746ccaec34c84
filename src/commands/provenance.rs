//! `vitalseal provenance …`: the part of the store's check that needs no patient's key, with the message as the unit.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::store;
use crate::admin::protocol::Request;
use crate::cli::ProvenanceCommand;
use crate::output;

pub(crate) async fn run(command: ProvenanceCommand, as_json: bool) -> anyhow::Result<ExitCode> {
    let ProvenanceCommand::Verify(at) = command;
    let request = Request::StoreCheck {
        keys: false,
        repair: None,
    };
    let mut checked = store::answer(&at, request, as_json).await?;
    let failed = checked["damage"].take();
    let holds = checked["sound"] == true && checked["signatures"] == checked["messages"];
    let verdict = json!({
        "holds": holds,
        "messages": checked["messages"],
        "verified": checked["signatures"],
        "files": checked["files"],
        "failed": if as_json { failed.clone() } else { Value::from(failed.as_array().map_or(0, Vec::len)) },
        "failed_not_listed": checked["damage_not_listed"],
    });
    output::print(&verdict, as_json)?;
    if !as_json && failed != json!([]) {
        output::line("")?;
        output::print(&failed, false)?;
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
