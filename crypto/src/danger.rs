//! The few doors that hand out or take raw key bytes: easy to grep, easy to review.
//!
//! Whoever calls one becomes responsible for the bytes: where they rest, and that they are wiped.

#[cfg(feature = "test-doors")]
pub mod test_doors;

use zeroize::Zeroizing;

use crate::ids::{KeyEpoch, Kid};
use crate::keys::{FileKey, KeyError, OutboxKey, RootKey, Secret, StoreKey};

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

/// The store key's bytes, for the key store to seal, and for another Parquet reader that is to open the files.
pub fn store_key_to_bytes(key: &StoreKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*key.secret().bytes())
}

/// A store key that the key store sealed.
///
/// # Errors
/// [`KeyError::Malformed`] unless there are 32 bytes.
pub fn store_key_from_bytes(kid: Kid, bytes: &[u8]) -> Result<StoreKey, KeyError> {
    let bytes = bytes.try_into().map_err(|_| KeyError::Malformed)?;
    Ok(StoreKey::from_parts(kid, Secret::from_bytes(bytes)))
}

/// A file key's bytes, for the Parquet writer and reader.
pub fn file_key_to_bytes(key: &FileKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*key.secret().bytes())
}
