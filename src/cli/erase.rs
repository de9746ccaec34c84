//! `vitalseal erase …`: the one subcommand that is a verb and has one below it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vitalseal_crypto::SubjectPseudonym;

/// `vitalseal erase …`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct EraseArgs {
    /// Verify instead of erasing.
    #[command(subcommand)]
    pub verify: Option<EraseCommand>,
    /// The data directory of the store.
    #[arg(long, env = "VITALSEAL_DATA", value_name = "DIR", required = true)]
    pub data: Option<PathBuf>,
    /// The pseudonym of the patient to erase. There is no way back.
    #[arg(required = true)]
    pub patient: Option<SubjectPseudonym>,
    /// Ground of the erasure, such as "Art. 17(1)(b), request 2026-114". Name no patient here.
    #[arg(long, required = true)]
    pub reason: Option<String>,
    /// Also write the certificate here.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `vitalseal erase verify`
#[derive(Debug, Clone, Subcommand)]
pub enum EraseCommand {
    /// Check a certificate of erasure; needs no server.
    Verify {
        /// The certificate (JSON).
        file: PathBuf,
        /// The audit log's verifier key, kept from before.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Take the verifier key from this store.
        #[arg(long, env = "VITALSEAL_DATA", value_name = "DIR")]
        data: Option<PathBuf>,
    },
}
