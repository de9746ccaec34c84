//! `vitalseal incident …`

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use vitalseal_crypto::DeviceId;
use vitalseal_storage::ports::UserName;

use super::DataArgs;

/// `vitalseal incident …`
#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// Open an incident; the 72 hours run from `--aware-at`.
    Open(IncidentOpenArgs),
    /// Draft the notification of GDPR Article 33(3) from the evidence.
    Report {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The incident.
        incident: String,
        /// How it is written.
        #[arg(long, default_value = "markdown")]
        format: ReportFormat,
    },
    /// List incidents.
    List(DataArgs),
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Markdown,
    /// For programs.
    Json,
}

/// `vitalseal incident open`
#[derive(Debug, Clone, Args)]
pub struct IncidentOpenArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// What happened.
    #[arg(long, value_name = "KIND", help = KIND_HELP)]
    pub kind: String,
    /// Beginning of the time in question (RFC 3339, such as 2026-03-27T08:00:00Z).
    #[arg(long, value_name = "TIME")]
    pub from: Timestamp,
    /// End of the time in question.
    #[arg(long, value_name = "TIME")]
    pub to: Timestamp,
    /// A device that is concerned; may be repeated.
    #[arg(long = "device")]
    pub devices: Vec<DeviceId>,
    /// A user who is concerned; may be repeated.
    #[arg(long = "user")]
    pub users: Vec<UserName>,
    /// When the controller became aware (GDPR 33(1)); the deadline runs from here.
    #[arg(long, value_name = "TIME")]
    pub aware_at: Timestamp,
    /// Why that instant: who decided, on what evidence.
    #[arg(long, default_value = "not recorded")]
    pub aware_reason: String,
}

const KIND_HELP: &str = "What happened: credential_misuse, device_compromise, key_loss, unauthorized_access \
                         or other; own effects after a colon, as in other:integrity+availability";
