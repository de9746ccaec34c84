//! `vitalseal demo`: the whole path once, on loopback, in a temporary directory.
//!
//! Nothing is staged: the server is the one that `serve` runs, the devices are the SDK's over mutual
//! TLS, the questions go through the PostgreSQL door. Each step has a check that can fail, and the
//! first that does ends the demo with a non-zero exit code.

mod progress;
mod site;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use self::progress::Progress;
use self::site::Site;
use crate::cli::DemoArgs;
use crate::{files, logging, output};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    acked: u64,
    rows: u64,
    elapsed_s: f64,
    steps: Vec<StepOutcome>,
}

/// One step and whether it held.
#[derive(Debug, Serialize)]
struct StepOutcome {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// Runs the demo; the exit code is 0 only if every step held.
///
/// # Errors
/// The directory cannot be made, or standard output is closed. A step that fails is an outcome.
pub async fn run(args: DemoArgs, json: bool) -> anyhow::Result<ExitCode> {
    logging::start("error");
    let started = Instant::now();
    let (directory, _temporary) = directory(&args)?;
    let mut site = Site::new(directory)?;
    let progress = Progress::new(steps::ALL.len(), json);
    let mut outcomes = Vec::with_capacity(steps::ALL.len());
    for step in steps::ALL {
        progress.begin(step.what);
        let outcome = (step.run)(&mut site).await;
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        progress.end(ok, step.name, &detail)?;
        outcomes.push(StepOutcome {
            name: step.name,
            ok,
            detail,
        });
        if !ok {
            break;
        }
    }
    drop(progress);
    let stopped = site.stop().await;
    let outcome = Outcome {
        ok: stopped.is_ok()
            && outcomes.len() == steps::ALL.len()
            && outcomes.iter().all(|step| step.ok),
        acked: site.acked,
        rows: site.rows,
        elapsed_s: output::seconds(started.elapsed()),
        steps: outcomes,
    };
    if json {
        output::line(&serde_json::to_string(&outcome).context("encoding the outcome")?)?;
    } else {
        output::line(&summary(&outcome, &args))?;
    }
    stopped.context("stopping the server")?;
    Ok(if outcome.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn summary(outcome: &Outcome, args: &DemoArgs) -> String {
    let held = outcome.steps.iter().filter(|step| step.ok).count();
    let kept = match &args.keep {
        Some(directory) => {
            let data = directory.join("data");
            format!(
                "Everything is kept in {}. Go on with: vitalseal serve --data {}",
                directory.display(),
                data.display()
            )
        }
        None => "The store was temporary; `--keep DIR` keeps it.".to_owned(),
    };
    format!(
        "\n{} of {} steps held in {:.1} s: {} messages acknowledged, {} readings answered.\n{kept}",
        held,
        steps::ALL.len(),
        outcome.elapsed_s,
        outcome.acked,
        outcome.rows,
    )
}

/// The directory of this run, and the guard that removes it unless it is to be kept.
fn directory(args: &DemoArgs) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(keep) = &args.keep {
        files::create_private_dir(keep)
            .context("--keep wants a directory that does not exist yet")?;
        return Ok((keep.clone(), None));
    }
    let temporary = tempfile::Builder::new()
        .prefix("vitalseal-demo-")
        .tempdir()
        .context("creating a temporary directory")?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}
