//! `vitalseal quarantine …`

use super::relay;
use crate::admin::protocol::Request;
use crate::cli::{QuarantineCommand, SettleArgs};

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
            let release = |id, reason| Request::QuarantineRelease { id, reason };
            return settle(args, release, json).await;
        }
        QuarantineCommand::Drop(args) => {
            let drop = |id, reason| Request::QuarantineDrop { id, reason };
            return settle(args, drop, json).await;
        }
    };
    relay(&at, request, json).await
}

/// One after the other, up to the first that cannot be settled.
async fn settle(
    args: SettleArgs,
    request: impl Fn(i64, String) -> Request,
    json: bool,
) -> anyhow::Result<()> {
    for id in args.ids {
        relay(&args.at, request(id, args.reason.clone()), json).await?;
    }
    Ok(())
}
