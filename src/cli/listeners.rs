//! Whoever listens: `vitalseal display …`, and what is said to many: `vitalseal notice …`, `vitalseal alert …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use vitalseal_crypto::SubscriberRole;
use vitalseal_storage::Ward;

use super::DataArgs;

/// `vitalseal display …`
#[derive(Debug, Subcommand)]
pub enum DisplayCommand {
    /// Enrol a display or a service: certify its key for mutual TLS. It hears alerts and sends nothing.
    ///
    /// Give either --csr and --out, or --new-key; and --ward, once or more, or --all-wards.
    Enroll(DisplayEnrollArgs),
    /// List displays and services.
    List(DataArgs),
    /// Revoke a display or a service for ever; its live session ends too.
    Revoke {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// Its name.
        name: String,
        /// What it was enrolled as.
        #[arg(long, default_value = "display")]
        role: SubscriberRoleArg,
        /// Why, for the audit log. Name no patient here.
        #[arg(long)]
        reason: String,
    },
}

/// `vitalseal display enroll`
#[derive(Debug, Clone, Args)]
pub struct DisplayEnrollArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// Its name. Its MQTT client id is `display:NAME` or `service:NAME`, as its certificate says.
    pub name: String,
    /// What it is to be.
    #[arg(long, default_value = "display")]
    pub role: SubscriberRoleArg,
    /// A ward whose alerts it hears; may be repeated. `system` is the installation itself.
    #[arg(long = "ward", value_name = "WARD")]
    pub wards: Vec<Ward>,
    /// It hears every ward; for services only.
    #[arg(long, conflicts_with = "wards")]
    pub all_wards: bool,
    /// A PKCS#10 request made where the key lives (PEM).
    #[arg(long, value_name = "FILE", requires = "out")]
    pub csr: Option<PathBuf>,
    /// Where to write the certificate chain (PEM); a new file.
    #[arg(long, value_name = "CERT", requires = "csr")]
    pub out: Option<PathBuf>,
    /// Make the key here and write key.pem, cert.pem and ca.pem into this new directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["csr", "out"])]
    pub new_key: Option<PathBuf>,
}

/// A subscriber's role on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SubscriberRoleArg {
    /// Shows the alerts of its wards.
    Display,
    /// Carries alerts on, to a pager or a chat.
    Service,
}

impl From<SubscriberRoleArg> for SubscriberRole {
    fn from(role: SubscriberRoleArg) -> Self {
        match role {
            SubscriberRoleArg::Display => Self::Display,
            SubscriberRoleArg::Service => Self::Service,
        }
    }
}

/// `vitalseal notice …`
#[derive(Debug, Subcommand)]
pub enum NoticeCommand {
    /// Tell every device, on v1/notices.
    ///
    /// One that is away hears it when it comes back to its session, unless the server was started anew meanwhile. What it
    /// says is between you and your devices; it is not encrypted for them beyond TLS.
    Send {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// What to send, 64 KiB at most.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

/// `vitalseal alert …`
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// Raise an alert of the kind `test`, to see whether displays show it.
    Test {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The ward whose displays are to show it [default: system].
        #[arg(long)]
        ward: Option<Ward>,
    },
}
