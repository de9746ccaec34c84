//! `vitalseal user …` and `vitalseal token …`: people, and what they log in with.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::ports::{Role, UserName, Ward};

use super::DataArgs;

/// `vitalseal user …`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; the password and the TOTP secret are shown this once.
    Add {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The user's name.
        user: UserName,
        /// What the user may see in SQL. Administration is by Unix account in this version.
        #[arg(long)]
        role: RoleArg,
    },
    /// Let a user see a patient (care team).
    Grant {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The user's name.
        user: UserName,
        /// The patient's pseudonym.
        #[arg(long)]
        patient: SubjectPseudonym,
    },
    /// Let a user hear a ward's alerts, from the next connection on.
    GrantWard {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The user's name.
        user: UserName,
        /// The ward; `system` is the installation itself.
        ward: Ward,
    },
    /// List users.
    List(DataArgs),
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArg {
    /// Reads the vitals of the patients in their care.
    Clinician,
    /// Data protection officer: sees no vitals in SQL.
    Dpo,
    /// Runs the system: sees no vitals in SQL.
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Clinician => Self::Clinician,
            RoleArg::Dpo => Self::Dpo,
            RoleArg::Admin => Self::Admin,
        }
    }
}

/// `vitalseal token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Log in: password and TOTP code for a short-lived token.
    Issue {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The user's name.
        #[arg(long)]
        user: UserName,
        /// A file that holds the password (mode 0600).
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// The six digits that the authenticator shows now.
        #[arg(long, value_name = "CODE")]
        totp: String,
    },
}
