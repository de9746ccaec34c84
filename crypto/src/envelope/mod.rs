//! Envelopes: the only place that knows COSE bytes.
//!
//! An envelope is a `COSE_Encrypt` message (RFC 9052 §5.1) with a countersignature (RFC 9338) by its device:
//!
//! ```text
//! wire    = #6.96([bstr .cbor hdr, uhdr, bstr, [es / ss]])      as a device publishes it
//! at-rest = #6.96([bstr .cbor hdr, uhdr, bstr, [pk]])           as it is stored
//! signed  = #6.16([bstr .cbor hdr, uhdr, bstr])                 as evidence against a clone: no way to its key
//! ```
//!
//! The countersignature covers the protected header and the ciphertext, and not the recipients. So the server can
//! replace the recipient, its own epoch key, by the patient's KEK, and the device's signature still holds over what
//! is stored. A signature wrapped around the whole would die there, or keep a second way to the content key alive.
//!
//! Checks run in this order, cheap ones first, and a message is refused at the first that fails:
//!
//! | Step | Type it yields | Rules |
//! |---|---|---|
//! | [`Received::decode`] | [`Received`] | shape, algorithm |
//! | [`Received::verify`] | [`Verified`] | identity, signature |
//! | [`Verified::open`] | [`Opened`] | unknown key, unwrap, commitment, open |
//! | [`Opened::rewrap`] | [`AtRest`] | |
//!
//! What is verified are the received bytes, never a re-encoding of them. What never stands here: payload formats,
//! the state of devices and patients, replay memory.

mod at_rest;
mod body;
mod cbor;
mod chain;
mod clone_proof;
mod header;
mod profile;
mod received;
mod recipient;
mod rejection;
mod seal;
mod sender;
mod signed;
mod structures;
#[cfg(test)]
mod tests;

pub use self::at_rest::AtRest;
pub use self::chain::Link;
pub use self::clone_proof::{CloneKind, CloneProof, CloneStatement, NoProof};
pub use self::header::{ContentType, Header};
pub use self::profile::MAX_ENVELOPE_BYTES;
pub use self::received::{Opened, Received, Verified};
pub use self::rejection::{Rejection, Rule};
pub use self::seal::{Agreement, SealError, SealRequest, SealedMessage, readdress, seal};
pub use self::sender::{NoSenderKeys, SenderKeys};
pub use self::signed::Signed;
