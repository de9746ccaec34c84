//! `vitalseal backup` and `vitalseal restore`

use std::path::PathBuf;

use clap::Args;

use super::DataArgs;

/// `vitalseal backup`
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// The new directory that the backup goes to. It holds no keys: those are in the key snapshots.
    #[arg(long, value_name = "BACKUP")]
    pub out: PathBuf,
}

/// `vitalseal restore`
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "BACKUP")]
    pub from: PathBuf,
    /// The data directory to make; it must not exist.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the root keys are; the backup is not asked.
    #[arg(long, value_name = "DIR")]
    pub root_keys: Option<PathBuf>,
    /// Where a key snapshot is, and further ones go; may be repeated. The backup is not asked.
    #[arg(long = "snapshots", value_name = "DIR")]
    pub snapshots: Vec<PathBuf>,
    /// A configuration of your own that says where root keys (or their token) and key snapshots are; what it says
    /// beside that is not used.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
