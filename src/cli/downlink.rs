//! What one device is told: `vitalseal device send`, `vitalseal device outbox`.

use std::path::PathBuf;

use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use vitalseal_crypto::DeviceId;

use super::DataArgs;

/// `vitalseal device send`
#[derive(Debug, Clone, Args)]
pub struct DeviceSendArgs {
    /// The store.
    #[command(flatten)]
    pub at: DataArgs,
    /// The device.
    pub device: DeviceId,
    /// What to send, 64 KiB at most.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// When to give up a device that does not come for it, such as 12h or 30d; 90d at most.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = expiry)]
    pub expires: SignedDuration,
}

/// Longer than that, and it is forgotten by who sent it.
const LONGEST: SignedDuration = SignedDuration::from_hours(90 * 24);

fn expiry(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text
        .parse()
        .map_err(|_| "expected a duration such as 12h or 30d")?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    match duration {
        Ok(expiry) if expiry > SignedDuration::ZERO && expiry <= LONGEST => Ok(expiry),
        _ => Err("expected a duration of 90d at most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_expires_after_a_while_and_within_three_months() {
        let hours = |text| expiry(text).map(|expiry| expiry.as_hours());
        assert_eq!(hours("7d"), Ok(168));
        assert_eq!(hours("1w 12h"), Ok(180));
        for wrong in ["", "7", "0s", "-1h", "91d", "1 month", "soon"] {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
    }
}
