//! `vitalseal quarantine …`

use super::relay;
use crate::admin::protocol::Request;
use crate::cli::QuarantineCommand;

pub(super) async fn run(command: QuarantineCommand, json: bool) -> anyhow::Result<()> {
    let (at, request) = match command {
        QuarantineCommand::List {
            at,
            limit,
            device,
            reason,
            state,
        } => {
            let (reason, state) = (
                reason.map(|reason| reason.as_str().to_owned()),
                state.map(|state| state.as_str().to_owned()),
            );
            let request = Request::QuarantineList {
                limit,
                device,
                reason,
                state,
            };
            (at, request)
        }
        QuarantineCommand::Show { at, id } => (at, Request::QuarantineShow { id }),
        QuarantineCommand::Release(args) => {
            let (id, reason) = (args.id, args.reason);
            (args.at, Request::QuarantineRelease { id, reason })
        }
        QuarantineCommand::Drop(args) => {
            let (id, reason) = (args.id, args.reason);
            (args.at, Request::QuarantineDrop { id, reason })
        }
    };
    relay(&at, request, json).await
}
