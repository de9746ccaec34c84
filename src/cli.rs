//! Argument types: what an operator can type, and the help they read.
//!
//! No lasting secret stands here: passwords come from files, so that they reach neither a process list
//! nor a shell history. A one-time code does, for it is worth nothing half a minute later; so do a
//! patient's name and record number in `patient add`, which whoever types them has to keep in mind.

mod backup;
mod bucket;
mod device;
mod envelope;
mod erase;
mod incident;
mod listeners;
mod provenance;
mod quarantine;
mod registry;
mod store;
mod user;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::builder::TypedValueParser as _;
use clap::{Args, Parser, Subcommand, value_parser};
use vitalseal_crypto::SubjectPseudonym;
use vitalseal_storage::ports::UserName;

pub use self::backup::{BackupArgs, RestoreArgs};
pub use self::bucket::BucketArgs;
pub use self::device::{DeviceCommand, DeviceSendArgs};
pub use self::envelope::{EnvelopeCommand, EnvelopeFile, EnvelopeVerifyArgs};
pub use self::erase::{EraseArgs, EraseCommand};
pub use self::incident::{IncidentCommand, IncidentOpenArgs, ReportFormat};
pub use self::listeners::{
    AlertCommand, DisplayCommand, DisplayEnrollArgs, NoticeCommand, SubscriberRoleArg,
};
pub use self::provenance::ProvenanceCommand;
pub use self::quarantine::{QuarantineCommand, SettleArgs};
pub use self::registry::RegistryArgs;
pub use self::store::{CheckArgs, StoreCommand};
pub use self::user::{RoleArg, TokenCommand, UserCommand};

/// Sealed vital signs: signed by the device, one key per patient, answered under policy.
#[derive(Debug, Parser)]
#[command(
    name = "vitalseal",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print JSON on standard output instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Where the store is; administration goes through the server that runs on it.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// The data directory of the store.
    #[arg(long, env = "VITALSEAL_DATA", value_name = "DIR")]
    pub data: PathBuf,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a store: certificate authority, keys, registry, audit log, first administrator.
    Init(InitArgs),
    /// Run the server on a store.
    Serve(ServeArgs),
    /// The running server: where it listens, and its settings read again.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Run the whole path once on loopback, in a temporary directory, and check each step.
    Demo(DemoArgs),
    /// Play the bundled recordings as devices against a running server.
    Simulate(SimulateArgs),
    /// The certificate authority that clients trust.
    #[command(subcommand)]
    Ca(CaCommand),
    /// The server's envelope certificate, to which devices seal.
    #[command(subcommand)]
    Recipient(RecipientCommand),
    /// Patients, known outside this command only by their pseudonym.
    #[command(subcommand)]
    Patient(PatientCommand),
    /// Devices: enrolment, assignment to a patient, suspension, revocation.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Displays and services: who hears alerts by a certificate.
    #[command(subcommand)]
    Display(DisplayCommand),
    /// What is told to every device.
    #[command(subcommand)]
    Notice(NoticeCommand),
    /// Alerts on displays.
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Users, the patients they may see and the wards they may hear.
    #[command(subcommand)]
    User(UserCommand),
    /// Short-lived tokens, used as the password for SQL and for MQTT over WebSocket.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Messages that were refused, and why.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// A single message in hand: what it says, and whether its device signed it.
    #[command(subcommand)]
    Envelope(EnvelopeCommand),
    /// Where stored messages came from.
    #[command(subcommand)]
    Provenance(ProvenanceCommand),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The key hierarchy.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Move the inbox into Parquet now.
    Flush {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
    },
    /// What is stored: how much, whether it is sound, and what makes it smaller.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Back up: ciphertext into a new directory, keys to every place for key snapshots.
    Backup(BackupArgs),
    /// Make a store of a backup and the newest key snapshot; needs no server.
    Restore(RestoreArgs),
    /// Erase a patient for ever, or verify the certificate of an erasure.
    Erase(EraseArgs),
    /// Incidents and their 72-hour reports.
    #[command(subcommand)]
    Incident(IncidentCommand),
}

/// `vitalseal init`
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// Where the root keys go: outside the data directory, and never into its backups
    /// [default: DIR.root].
    #[arg(long, value_name = "DIR")]
    pub root_keys: Option<PathBuf>,
    /// A further DNS name or address that clients will use for this server; may be repeated.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Name of the first administrator.
    #[arg(long, default_value = "admin", value_name = "NAME")]
    pub administrator: UserName,
    /// Keep the root keys on a PKCS#11 token: the module of its maker.
    #[arg(long, value_name = "FILE", requires_all = ["pkcs11_token", "pkcs11_pin_file"])]
    pub pkcs11_module: Option<PathBuf>,
    /// Label of that token.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub pkcs11_token: Option<String>,
    /// File, readable by its owner only, that holds the token's user PIN.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub pkcs11_pin_file: Option<PathBuf>,
    /// Make the keys of the issuing authority and of the audit log on that token too.
    #[arg(long, requires = "pkcs11_module")]
    pub pkcs11_signing: bool,
    /// Where Parquet files go.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Where the registry goes.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// `vitalseal serve`
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// Address of the MQTT edge (TLS); port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<SocketAddr>,
    /// Address of MQTT over WebSocket (TLS).
    #[arg(long, value_name = "ADDR")]
    pub websocket: Option<SocketAddr>,
    /// Address of the PostgreSQL protocol (TLS).
    #[arg(long, value_name = "ADDR")]
    pub sql: Option<SocketAddr>,
    /// Address of health and metrics.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
}

/// `vitalseal server …`
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Show where it listens.
    Status(DataArgs),
    /// Read the configuration again and apply what can change while it runs; all of that, or nothing.
    ///
    /// The answer names what waits for the next start.
    Reload(DataArgs),
}

/// `vitalseal demo`
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Keep everything in this directory, which must not exist yet; the store is DIR/data.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `vitalseal simulate`
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// How many devices, each with a patient of its own.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub devices: u16,
    /// Where the devices keep their keys and outboxes [default: DIR.devices].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Seed of the simulated signals.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Play a minute of a simulated pulse waveform on every device instead, sampled so many times a second; 5000 at most.
    #[arg(long, value_name = "HZ", value_parser = value_parser!(u32).range(1..=5_000).try_map(NonZeroU32::try_from))]
    pub waveforms: Option<NonZeroU32>,
}

/// `vitalseal ca …`
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Print the PEM bundle that clients trust.
    Show(DataArgs),
    /// Print the newest revocation list (PEM), or write it as DER.
    Crl {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// Where to write the list as DER instead; a new file.
        #[arg(long, value_name = "FILE")]
        der: Option<PathBuf>,
    },
}

/// `vitalseal recipient …`
#[derive(Debug, Subcommand)]
pub enum RecipientCommand {
    /// Print the current envelope certificate (PEM).
    Show(DataArgs),
}

/// `vitalseal patient …`
#[derive(Debug, Subcommand)]
pub enum PatientCommand {
    /// Admit a patient: a random pseudonym and a key of their own.
    Add {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// Name, sealed under the patient's key.
        #[arg(long)]
        name: Option<String>,
        /// Medical record number, sealed under the patient's key.
        #[arg(long)]
        mrn: Option<String>,
    },
    /// List pseudonyms and states (no identities).
    List(DataArgs),
    /// Show one patient with their identity; the look-up is audited.
    Show {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The pseudonym.
        patient: SubjectPseudonym,
    },
}

/// `vitalseal audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the newest entries, oldest of them first.
    Tail {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        limit: u32,
    },
    /// Recompute the whole log against its signed checkpoint, and print that to be kept elsewhere.
    Verify {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// A checkpoint kept elsewhere, to prove that nothing before it was rewritten or cut off.
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
    },
}

/// `vitalseal keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Show epochs and counts; never a key.
    Status(DataArgs),
    /// Replace the root key, or one patient's key. Nothing is erased and everything stays readable.
    Rotate {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// Give this patient a new key for all that comes, instead of replacing the root.
        #[arg(long)]
        patient: Option<SubjectPseudonym>,
    },
}
