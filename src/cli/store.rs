//! `vitalseal store …`

use clap::{Args, Subcommand};

use super::DataArgs;

/// `vitalseal store …`
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Show what is stored: files, what waits to be flushed or removed, erasures, retention, losses, room.
    Status(DataArgs),
    /// Verify every file, row, chunk, tag, hash and signature; names what is damaged and goes on.
    ///
    /// The exit code is 1 when something is damaged that no repair has set aside.
    Check(CheckArgs),
    /// Turn sealed rows into sealed chunks, and small chunks into large ones, as far as that is due.
    Compact {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// As if every hour and day were over: late messages need another merge then.
        #[arg(long)]
        force: bool,
    },
    /// Rewrite the files that hold ciphertext of erased patients without it, and remove what nobody reads any more.
    Vacuum(DataArgs),
}

/// `vitalseal store check`
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// Do without patients' keys: what is sealed under one is not opened, everything else is verified.
    #[arg(long)]
    pub no_keys: bool,
    /// Set aside what is damaged: the rest of its file is written anew, the damaged file is kept in DIR/damaged, and
    /// what is lost is recorded. A file that is not there is left alone: its disk or bucket may be away.
    #[arg(long)]
    pub repair: bool,
    /// Give up this file, whose loss is recorded, if it is not there and nowhere else either. May be given again.
    #[arg(long, value_name = "FILE", requires = "repair")]
    pub give_up: Vec<String>,
}
