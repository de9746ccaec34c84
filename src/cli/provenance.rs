//! `vitalseal provenance …`

use clap::Subcommand;

use super::DataArgs;

/// `vitalseal provenance …`
#[derive(Debug, Subcommand)]
pub enum ProvenanceCommand {
    /// Verify where every stored message came from, wherever it is stored; names each that fails and goes on.
    ///
    /// No patient's key is used. A device's certificate vouches for what it signed while it was valid, whatever became of
    /// the device since. The exit code is 1 when a message fails, or what holds it is damaged. To verify without trusting
    /// this store, take the column `envelope` of the table `provenance` to `vitalseal envelope verify`.
    Verify(DataArgs),
}
