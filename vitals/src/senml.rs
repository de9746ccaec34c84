//! Readings as SenML in CBOR (RFC 8428, content format 112).

use crate::{DecodeError, Reading};

/// Encodes readings.
#[must_use]
pub fn encode(_readings: &[Reading]) -> Vec<u8> {
    todo!()
}

/// Decodes readings.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(_payload: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    todo!()
}
