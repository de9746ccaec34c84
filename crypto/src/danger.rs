//! The few doors that hand out or take raw key bytes: easy to grep, easy to review.
//!
//! Whoever calls one becomes responsible for the bytes: where they rest, and that they are wiped.

#[cfg(feature = "test-doors")]
pub mod test_doors;

use zeroize::Zeroizing;

use crate::ids::KeyEpoch;
use crate::keys::{KeyError, OutboxKey, RootKey, Secret};

/// A root key's bytes, for a root provider to store.
pub fn root_key_to_bytes(key: &RootKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*key.secret().bytes())
}

/// A root key that a root provider stored.
///
/// # Errors
/// [`KeyError::Malformed`] unless there are 32 bytes.
pub fn root_key_from_bytes(epoch: KeyEpoch, bytes: &[u8]) -> Result<RootKey, KeyError> {
    let bytes = bytes.try_into().map_err(|_| KeyError::Malformed)?;
    Ok(RootKey::from_parts(epoch, Secret::from_bytes(bytes)))
}

/// An outbox key's bytes, for the device to store.
pub fn outbox_key_to_bytes(key: &OutboxKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*key.secret().bytes())
}

/// An outbox key that the device stored.
///
/// # Errors
/// [`KeyError::Malformed`] unless there are 32 bytes.
pub fn outbox_key_from_bytes(bytes: &[u8]) -> Result<OutboxKey, KeyError> {
    let bytes = bytes.try_into().map_err(|_| KeyError::Malformed)?;
    Ok(OutboxKey::from_secret(Secret::from_bytes(bytes)))
}
