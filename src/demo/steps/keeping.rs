//! What becomes of stored messages: sealed chunks that answer as before, signatures that hold as before, and ciphertext of
//! the erased that goes.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::admin::protocol::Request;
use crate::demo::site::Site;

/// Questions whose answers must not change by how readings are kept.
const QUESTIONS: [&str; 3] = [
    "SELECT code, device, count(*)::text, min(value)::text, max(value)::text, min(ts)::text, max(ts)::text FROM vitals \
     GROUP BY code, device ORDER BY code, device",
    "SELECT device, count(*)::text, min(start)::text FROM waveforms GROUP BY device ORDER BY device",
    "SELECT device, kind, count(*)::text, min(signed_hash), max(signed_hash) FROM provenance GROUP BY device, kind \
     ORDER BY device, kind",
];

pub(super) async fn compact(site: &mut Site) -> anyhow::Result<String> {
    site.ask(Request::Flush).await?;
    let before = answers(site).await?;
    let done = site.ask(Request::StoreCompact { force: true }).await?;
    let (messages, chunks) = (count(&done, "messages")?, count(&done, "chunks")?);
    ensure!(
        chunks > 0 && count(&done, "sealed")? == 0,
        "{chunks} chunks of {messages} messages, some do not open: {done}"
    );
    let status = site.ask(Request::StoreStatus).await?;
    let kinds: Vec<&Value> = status["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|files| &files["kind"])
        .collect();
    ensure!(
        !kinds.is_empty() && kinds.iter().all(|kind| **kind == "chunks"),
        "sealed rows are left: {kinds:?}"
    );
    let after = answers(site).await?;
    ensure!(
        before == after,
        "SQL answers otherwise from chunks than from rows: {before:?}, {after:?}"
    );
    Ok(format!(
        "{messages} messages in {chunks} sealed chunks, {} bytes in {} files where {} were in {}; every answer is the same",
        count(&done, "bytes_out")?,
        count(&done, "files_out")?,
        count(&done, "bytes_in")?,
        count(&done, "files_in")?,
    ))
}

pub(super) async fn check(site: &mut Site) -> anyhow::Result<String> {
    let checked = sound(site).await?;
    let (messages, signatures) = (count(&checked, "messages")?, count(&checked, "signatures")?);
    ensure!(
        messages == signatures && messages > 0,
        "{messages} messages, {signatures} signatures that hold"
    );
    Ok(format!(
        "{} files verified: {messages} messages, each there once, each signed by its device",
        count(&checked, "files")?
    ))
}

pub(super) async fn vacuum(site: &mut Site) -> anyhow::Result<String> {
    let kept = answers(site).await?;
    let done = site.ask(Request::StoreVacuum).await?;
    ensure!(
        count(&done, "erasures")? == 1,
        "the erased patient's ciphertext is still in files that count: {done}"
    );
    let checked = sound(site).await?;
    ensure!(
        count(&checked, "unopened")? == 0,
        "something is left that opens for nobody"
    );
    ensure!(answers(site).await? == kept, "answers of others changed");
    Ok(format!(
        "{} files rewritten without the erased patient's {} messages; the old ones go when no query can read them any more",
        count(&done, "files_in")?,
        count(&done, "messages")?
    ))
}

async fn sound(site: &Site) -> anyhow::Result<Value> {
    let check = Request::StoreCheck {
        keys: true,
        repair: None,
    };
    let checked = site.ask(check).await?;
    ensure!(
        checked["sound"] == true,
        "the store is damaged: {}",
        checked["damage"]
    );
    Ok(checked)
}

/// Every cell of every answer.
async fn answers(site: &Site) -> anyhow::Result<Vec<Vec<String>>> {
    let client = site.sql().await?;
    let mut answers = Vec::new();
    for question in QUESTIONS {
        for row in client.query(question, &[]).await.context("asking SQL")? {
            let cells = (0..row.len()).map(|cell| row.try_get(cell));
            answers.push(cells.collect::<Result<_, _>>()?);
        }
    }
    Ok(answers)
}

fn count(answer: &Value, field: &str) -> anyhow::Result<u64> {
    answer[field]
        .as_u64()
        .with_context(|| format!("the answer has no {field}"))
}
