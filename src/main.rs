//! The command: parse, run, and on failure print the whole chain of reasons.

use std::process::ExitCode;

use clap::Parser;
use vitalseal::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("vitalseal: starting the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(vitalseal::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vitalseal: {error:#}");
            ExitCode::FAILURE
        }
    }
}
