//! Envelopes.

mod at_rest;
mod header;
mod received;
mod rejection;
mod seal;

pub use self::at_rest::AtRest;
pub use self::header::{ContentType, Header};
pub use self::received::{Opened, Received, Verified};
pub use self::rejection::{Rejection, Rule};
pub use self::seal::{Agreement, SealError, SealRequest, SealedMessage, seal};

/// The largest envelope taken, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = 256 * 1024;
