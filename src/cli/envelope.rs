//! `vitalseal envelope …`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `vitalseal envelope …`
#[derive(Debug, Subcommand)]
pub enum EnvelopeCommand {
    /// Show what an envelope says of itself, without believing it.
    Inspect(EnvelopeFile),
    /// Verify an envelope against the authority's certificate, without a server and without any key.
    ///
    /// Its device signed it, its device's certificate leads to the authority, and all certificates were valid when the
    /// device says that it signed. Exits with 0 when that holds, with 1 when it does not, and with 2 when it could not be
    /// found out. A certificate that has expired or was revoked since then vouches for what was signed before.
    Verify(EnvelopeVerifyArgs),
}

/// An envelope to look at.
#[derive(Debug, Clone, Args)]
pub struct EnvelopeFile {
    /// The envelope, as a device sends it, as it is stored, or as evidence: CBOR; or any number of them in hexadecimal
    /// digits, one a line, as psql shows the column `envelope` of the table `provenance`. - is standard input.
    pub file: PathBuf,
}

/// `vitalseal envelope verify`
#[derive(Debug, Clone, Args)]
pub struct EnvelopeVerifyArgs {
    /// The envelope.
    #[command(flatten)]
    pub envelope: EnvelopeFile,
    /// Certificates of the authority (PEM), as `vitalseal ca show` prints them: whom you trust.
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// Certificates of devices (PEM), as `vitalseal device certificates` prints them, with those of an issuing authority
    /// if --ca has only its root; may be repeated.
    #[arg(long = "certificate", value_name = "FILE")]
    pub certificates: Vec<PathBuf>,
}
