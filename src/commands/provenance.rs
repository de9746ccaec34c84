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
    let (failed, unproven) = (checked["damage"].take(), checked["unproven"].take());
    let holds = checked["sound"] == true
        && checked["signatures"] == checked["messages"]
        && unproven == json!([]);
    let count = |list: &Value| Value::from(list.as_array().map_or(0, Vec::len));
    let verdict = json!({
        "holds": holds,
        "messages": checked["messages"],
        "verified": checked["signatures"],
        "files": checked["files"],
        "failed": if as_json { failed.clone() } else { count(&failed) },
        "failed_not_listed": checked["damage_not_listed"],
        "unproven": if as_json { unproven.clone() } else { count(&unproven) },
    });
    output::print(&verdict, as_json)?;
    for (name, list) in [("failed", failed), ("unproven", unproven)] {
        if !as_json && list != json!([]) {
            output::line(&format!("\n{name}"))?;
            output::print(&list, false)?;
        }
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
