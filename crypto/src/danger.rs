//! The few doors that hand out or take raw key bytes: easy to grep, easy to review.

use zeroize::Zeroizing;

use crate::certificate::RecipientCertificate;
use crate::ids::{KeyEpoch, Kid};
use crate::keys::{Kek, KeyError, RecipientKey, RootKey};

/// A root key's bytes, for a root provider to store.
pub fn root_key_to_bytes(key: &RootKey) -> Zeroizing<[u8; 32]> {
    todo!()
}

/// A root key that a root provider stored.
///
/// # Errors
/// [`KeyError::Malformed`] unless there are 32 bytes.
pub fn root_key_from_bytes(epoch: KeyEpoch, bytes: &[u8]) -> Result<RootKey, KeyError> {
    todo!()
}

/// A recipient key's private scalar, for the key store to seal.
pub fn recipient_private_scalar(key: &RecipientKey) -> Zeroizing<[u8; 32]> {
    todo!()
}

/// A recipient key that the key store sealed.
///
/// # Errors
/// [`KeyError::Malformed`] for what is no scalar, [`KeyError::Mismatch`] if it is not the certificate's.
pub fn recipient_key_from_parts(
    scalar: &[u8],
    certificate: RecipientCertificate,
) -> Result<RecipientKey, KeyError> {
    todo!()
}

/// A patient's key from its bytes, for published vectors.
pub fn kek_from_bytes(kid: Kid, bytes: &[u8; 32]) -> Kek {
    todo!()
}
