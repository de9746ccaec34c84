//! `vitalseal server …`: the running server itself.

use super::relay;
use crate::admin::protocol::Request;
use crate::cli::ServerCommand;

pub(super) async fn run(command: ServerCommand, json: bool) -> anyhow::Result<()> {
    match command {
        ServerCommand::Status(at) => relay(&at, Request::ServerStatus, json).await,
        ServerCommand::Reload(at) => relay(&at, Request::ServerReload, json).await,
    }
}
