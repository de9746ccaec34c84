//! `vitalseal store …`: through the server that runs on the store, or, while none does, on the directory itself.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Map, Value};
use vitalseal_storage::ports::{Actor, SystemClock};

use crate::admin::client::{ask_watched, is_unserved};
use crate::admin::protocol::{Repair, Request};
use crate::cli::{CheckArgs, DataArgs, StoreCommand};
use crate::housekeeping::Housekeeping;
use crate::opened::Opened;
use crate::progress::Shown;
use crate::{files, logging, memory, output};

/// What of an answer is a table of its own.
const TABLES: [&str; 4] = ["files", "damage", "unproven", "losses"];

pub(crate) async fn run(command: StoreCommand, as_json: bool) -> anyhow::Result<ExitCode> {
    let (at, request) = match command {
        StoreCommand::Status(at) => (at, Request::StoreStatus),
        StoreCommand::Check(CheckArgs {
            at,
            no_keys,
            repair,
            give_up,
        }) => (
            at,
            Request::StoreCheck {
                keys: !no_keys,
                repair: repair.then(|| Repair {
                    give_up: give_up.into_iter().collect(),
                }),
            },
        ),
        StoreCommand::Compact { at, force } => (at, Request::StoreCompact { force }),
        StoreCommand::Vacuum(at) => (at, Request::StoreVacuum),
    };
    let mut answer = answer(&at, request, as_json).await?;
    let is_damaged = answer["sound"] == false && answer["repaired"]["complete"] != true;
    if as_json {
        output::print(&answer, true)?;
    } else {
        let tables = TABLES.map(|name| (name, take(&mut answer, name)));
        output::print(&flat(&answer), false)?;
        for (name, table) in tables {
            if let Some(rows) =
                table.filter(|rows| rows.as_array().is_some_and(|rows| !rows.is_empty()))
            {
                output::line(&format!("\n{name}"))?;
                output::print(&rows, false)?;
            }
        }
    }
    Ok(if is_damaged {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Asks the server, or does it here while none runs; a person sees how far it is.
pub(super) async fn answer(
    at: &DataArgs,
    request: Request,
    as_json: bool,
) -> anyhow::Result<Value> {
    let shown = Shown::new(as_json);
    match ask_watched(&super::socket(at), &request, &shown).await {
        Err(error) if is_unserved(&error) => alone(at, request, &shown).await,
        answer => answer,
    }
}

/// The fields of objects inside, beside the others: a line each.
fn flat(answer: &Value) -> Value {
    let mut fields = Map::new();
    for (name, field) in answer.as_object().into_iter().flatten() {
        match field.as_object() {
            Some(inside) => {
                let named = inside
                    .iter()
                    .map(|(of, it)| (format!("{name}.{of}"), it.clone()));
                fields.extend(named);
            }
            None => {
                fields.insert(name.clone(), field.clone());
            }
        }
    }
    Value::Object(fields)
}

fn take(answer: &mut Value, name: &str) -> Option<Value> {
    // `files` is a table in one answer and a count in another.
    let is_table = answer[name].is_array();
    let fields = answer.as_object_mut().filter(|_| is_table)?;
    fields.shift_remove(name)
}

/// The same without a server.
async fn alone(at: &DataArgs, request: Request, shown: &Shown) -> anyhow::Result<Value> {
    logging::start("warn");
    memory::forbid_core_dumps()?;
    let clock = SystemClock;
    let opened = Opened::open(&at.data, &clock).await?;
    let actor = Actor::Local {
        uid: files::own_uid(),
    };
    let keeping = Housekeeping::on(&opened, &clock, actor);
    let answered = match request {
        Request::StoreStatus => keeping.status().await.map(serde_json::to_value),
        Request::StoreCheck { keys, repair } => {
            let checked = keeping.check(keys, repair.as_ref(), shown).await;
            checked.map(serde_json::to_value)
        }
        Request::StoreCompact { force } => {
            let compacted = keeping.compact(force, shown).await;
            compacted.map(serde_json::to_value)
        }
        _ => keeping.vacuum(shown).await.map(serde_json::to_value),
    };
    opened.close().await;
    answered?.context("encoding the answer")
}
