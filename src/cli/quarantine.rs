//! `vitalseal quarantine …`

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use vitalseal_crypto::DeviceId;
use vitalseal_storage::{QuarantineReason, QuarantineState};

use super::DataArgs;

/// `vitalseal quarantine …`
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List refused messages, newest first.
    List {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
        limit: u32,
        /// Of this device only.
        #[arg(long)]
        device: Option<DeviceId>,
        /// Refused for this reason only.
        #[arg(long, value_name = "REASON", value_parser = reasons())]
        reason: Option<QuarantineReason>,
        /// In this state only.
        #[arg(long, value_name = "STATE", value_parser = states())]
        state: Option<QuarantineState>,
    },
    /// Show what is known of a refused message, but for its content, and whether it can be released.
    Show {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The number that the list shows.
        id: i64,
    },
    /// Store messages all the same: everything but what each was refused for is judged again.
    ///
    /// Only what was refused for a time, an order or a state can be released; `quarantine show` says whether.
    Release(SettleArgs),
    /// Give messages up: their bodies are deleted, what is known of them stays.
    Drop(SettleArgs),
}

/// `vitalseal quarantine release|drop`
#[derive(Debug, Clone, Args)]
pub struct SettleArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// The numbers that the list shows.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<i64>,
    /// Why, for the audit log. Name no patient here.
    #[arg(long)]
    pub reason: String,
}

/// The stored spellings, so that the help and a refusal list them.
fn reasons() -> impl TypedValueParser<Value = QuarantineReason> {
    let all = QuarantineReason::ALL.map(QuarantineReason::as_str);
    PossibleValuesParser::new(all).try_map(|text| text.parse())
}

fn states() -> impl TypedValueParser<Value = QuarantineState> {
    let all = [
        QuarantineState::Held,
        QuarantineState::Released,
        QuarantineState::Dropped,
    ];
    PossibleValuesParser::new(all.map(QuarantineState::as_str)).try_map(|text| text.parse())
}
