//! `vitalseal device send`, `vitalseal device outbox`.

use anyhow::Context as _;

use super::relay;
use crate::admin::protocol::{Content, Request};
use crate::cli::DeviceSendArgs;

pub(super) async fn send(args: DeviceSendArgs, json: bool) -> anyhow::Result<()> {
    let DeviceSendArgs {
        at,
        device,
        file,
        expires,
    } = args;
    let content = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let request = Request::DeviceSend {
        device,
        content: Content::new(content),
        expires_s: expires.as_secs(),
    };
    relay(&at, request, json).await
}
