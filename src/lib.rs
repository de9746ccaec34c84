//! The binary's parts as a library, so that a test can start a whole system in its own process.
//!
//! Wiring only: what vitalseal *does* stands in the crates below. Nothing here opens an envelope,
//! decides who may see a patient, or writes a reading anywhere.

pub mod admin;
pub mod cli;
mod commands;
pub mod config;
pub mod credentials;
mod custody;
pub mod demo;
mod files;
mod housekeeping;
pub mod init;
pub mod logging;
mod memory;
pub mod mqtt_client;
mod opened;
mod output;
mod progress;
mod recipient;
mod restore;
mod secrets;
pub mod server;
pub mod simulate;
pub mod sql_client;
pub mod tls;

use std::process::ExitCode;

use cli::{Cli, Command};

/// Runs one command.
///
/// # Errors
/// Whatever kept it from being done, outermost attempt first.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    tls::install_provider();
    let json = cli.json;
    match cli.command {
        Command::Init(args) => commands::init(args, json).await?,
        Command::Serve(args) => commands::serve(args, json).await?,
        Command::Demo(args) => return demo::run(args, json).await,
        Command::Envelope(command) => return Ok(commands::envelope::run(command, json)),
        Command::Provenance(command) => return commands::provenance::run(command, json).await,
        Command::Simulate(args) => commands::simulate(args, json).await?,
        Command::Store(command) => return commands::store::run(command, json).await,
        Command::Backup(args) => commands::backup::backup(args, json).await?,
        Command::Restore(args) => commands::backup::restore(args, json).await?,
        Command::Erase(args) => commands::erase(args, json).await?,
        other => commands::administer(other, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}
