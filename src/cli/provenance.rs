//! `vitalseal provenance …`

use clap::Subcommand;

use super::DataArgs;

/// `vitalseal provenance …`
#[derive(Debug, Subcommand)]
pub enum ProvenanceCommand {
    /// Verify where every stored message came from, wherever it is stored; names each that fails and goes on.
    ///
    /// No patient's key is used. A device's certificate vouches for what it signed while it was valid, whatever became of
    /// the device since. The exit code is 1 when a message fails, when what holds it is damaged, or when what proves some
    /// readings was lost to damage before, which is named as unproven. To verify without trusting this store, take the
    /// column `envelope` of the table `provenance` to `vitalseal envelope verify`.
    Verify(DataArgs),
}
