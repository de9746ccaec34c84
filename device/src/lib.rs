//! Device SDK: what the firmware of a monitor, or the gateway in front of it, links.
//!
//! ```text
//! readings ──▶ Batcher ──▶ Sealer ──▶ Outbox ──▶ Publisher ──MQTT/TLS──▶ server
//!              time, size   sign+seal   on disk      ◀── PUBACK ends the wait
//! ```
//!
//! - [`Batcher`] gathers readings into messages: one signature then covers many of them.
//! - [`Sealer`] signs with the device's key, seals for the server, chains each message to the one before.
//! - [`Outbox`] keeps sealed messages on disk until the server has acknowledged them, through restarts, and for a while
//!   longer: a server that was restored from a backup gets them once more.
//! - [`Publisher`] (feature `mqtt`) sends what waits in the outbox, again and again until it is acknowledged; what
//!   waited for longer than the server kept its key is [addressed](Waiting::address) to the present one, and nothing is
//!   sent before the server has shown on that connection which one it is.
//! - [`recording`] and [`simulated`] stand in for a sensor.
//!
//! Absent by intent: a reading is never written to disk unsealed, and nothing here reads a clock or
//! decides what a reading means. Of vitalseal's crates it needs only `crypto` and `vitals`.
//!
//! Who takes a device reads what waits in its outbox, and what was acknowledged under an envelope certificate that has not
//! ended (30 hours at most, while the device runs): after that its content key is overwritten, and so is the outbox's own
//! key whenever no message is left. A program that would rather lose messages with its server turns that off
//! (`PublisherSettings::keep_acknowledged`). Flash that moves what is written, copy-on-write
//! file systems and snapshots may keep the overwritten bytes: put the outbox on an encrypted disk.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vitalseal_crypto::{RecipientCertificate, SubjectPseudonym};
//! use vitalseal_device::{AgreementMode, DeviceIdentity, Outbox, Sealer, recording::HeartRateRecording};
//! # fn record(
//! #     subject: SubjectPseudonym,
//! #     recipient: RecipientCertificate,
//! #     now: jiff::Timestamp,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Arc::new(DeviceIdentity::load("monitor-001")?);
//! let outbox = Outbox::open("monitor-001/outbox")?;
//! let mut sealer = Sealer::new(identity, subject, recipient, AgreementMode::Es, outbox.boot());
//! for minute in HeartRateRecording::embedded()?.readings().chunks(60) {
//!     let message = sealer.seal(minute, now)?;
//!     outbox.push(&message)?;
//! }
//! # Ok(())
//! # }
//! ```

mod addressing;
mod batcher;
mod identity;
#[cfg(feature = "mqtt")]
mod mqtt;
mod outbox;
mod prng;
pub mod recording;
mod sealer;
pub mod simulated;

pub use addressing::AddressError;
pub use batcher::Batcher;
pub use identity::{AUTHORITY_FILE, CERTIFICATE_FILE, DeviceIdentity, IdentityError, KEY_FILE};
#[cfg(feature = "mqtt")]
pub use mqtt::{
    Endpoint, Incoming, PublishError, Publisher, PublisherSettings, PublisherStats, Source,
};
pub use outbox::{MAX_KEPT, MAX_PENDING, Outbox, OutboxError, Position, Waiting};
pub use sealer::{AgreementMode, Message, Sealer, SealerError};
