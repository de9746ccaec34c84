//! `vitalseal device …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use vitalseal_crypto::{DeviceId, SubjectPseudonym};

use super::DataArgs;

/// `vitalseal device …`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Enrol a device: certify its key for mutual TLS and for signing.
    ///
    /// Give either --csr and --out, or --new-key.
    Enroll {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device id: its MQTT client id and its certificate's common name.
        device: DeviceId,
        /// A PKCS#10 request made where the key lives (PEM).
        #[arg(long, value_name = "FILE", requires = "out")]
        csr: Option<PathBuf>,
        /// Where to write the certificate chain (PEM); a new file.
        #[arg(long, value_name = "CERT", requires = "csr")]
        out: Option<PathBuf>,
        /// Make the key here and write key.pem, cert.pem and ca.pem into this new directory.
        #[arg(long, value_name = "DIR", conflicts_with_all = ["csr", "out"])]
        new_key: Option<PathBuf>,
    },
    /// Assign a device to a patient, from now on or since an instant in the past.
    Assign {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
        /// The patient's pseudonym.
        #[arg(long)]
        patient: SubjectPseudonym,
        /// Since when it measures them, such as 2026-03-01T08:00:00Z [default: now].
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
    },
    /// List whom a device measured, and when.
    Assignments {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
    },
    /// List devices.
    List(DataArgs),
    /// Print every certificate that a device ever had (PEM), for whoever verifies what they signed.
    Certificates(DataArgs),
    /// Suspend a device until it is reinstated: its session ends, it cannot connect, and what still comes from it is kept
    /// aside.
    Suspend {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
        /// Why, for the audit log. Name no patient here.
        #[arg(long)]
        reason: String,
    },
    /// Let a suspended device connect again. After the alarm of a clone, find out first who holds its key.
    Reinstate {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
        /// Why, for the audit log. Name no patient here.
        #[arg(long)]
        reason: String,
    },
    /// Revoke a device for ever; its live session ends too.
    Revoke {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
        /// Why, for the audit log. Name no patient here.
        #[arg(long)]
        reason: String,
    },
    /// Show which of a device's messages are here, boot by boot, and which are missing.
    Chain {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
    },
    /// Queue a message for a device, until it comes for it.
    ///
    /// It is told on v1/d/DEVICE/down and waits here, sealed, until the device acknowledged it. What it says is between you
    /// and your device; it is not encrypted for it beyond TLS.
    Send(DeviceSendArgs),
    /// List the messages that wait for a device, without their content.
    Downlink {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
    },
    /// Write out the proof that a device's key is in two hands; it holds pseudonyms, and no way to a reading.
    CloneProof {
        /// The store.
        #[command(flatten)]
        at: DataArgs,
        /// The device.
        device: DeviceId,
        /// The proof of this boot of the device [default: the newest].
        #[arg(long)]
        boot: Option<u64>,
        /// Where to write the proof (CBOR); a new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Verify such a proof, without a server and without a key, and say what it proves.
    VerifyCloneProof {
        /// The proof.
        file: PathBuf,
        /// The authority's certificates (PEM), as `vitalseal ca show` prints them.
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
    },
}

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
