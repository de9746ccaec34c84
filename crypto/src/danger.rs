//! The few doors that hand out or take raw key bytes: easy to grep, easy to review.
//!
//! Whoever calls one becomes responsible for the bytes: where they rest, and that they are wiped.

use zeroize::Zeroizing;

use crate::backend::default_backend;
use crate::certificate::{DeviceCertificate, RecipientCertificate};
use crate::ids::{KeyEpoch, Kid};
use crate::keys::{DeviceSigner, Kek, KeyError, OutboxKey, RecipientKey, RootKey, Secret};

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

/// A recipient key under another identifier than its certificate's, as published vectors choose them.
///
/// # Errors
/// [`KeyError::Malformed`] for what is no scalar, [`KeyError::Mismatch`] if it is not the certificate's.
#[doc(hidden)]
pub fn recipient_key_under_kid(
    kid: Kid,
    scalar: &[u8],
    certificate: RecipientCertificate,
) -> Result<RecipientKey, KeyError> {
    RecipientKey::from_parts(kid, certificate, p256(scalar)?)
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

/// A patient's key as bytes, for tests of interoperability: another COSE library then opens what is stored, knowing
/// nothing else. No code of the server calls it, and none may: a key that left its store outlives the patient's erasure.
#[doc(hidden)]
pub fn kek_to_bytes(key: &Kek) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*key.secret().bytes())
}

/// A patient's key from its bytes, as published vectors give it.
pub fn kek_from_bytes(kid: Kid, bytes: &[u8; 32]) -> Kek {
    Kek::from_parts(kid, Secret::from_bytes(bytes))
}

/// A device's signing key from its scalar, as published vectors give it.
///
/// # Errors
/// [`KeyError::Malformed`] for what is no scalar, [`KeyError::Mismatch`] if it is not the certificate's.
pub fn device_signer_from_parts(
    scalar: &[u8],
    certificate: DeviceCertificate,
) -> Result<DeviceSigner, KeyError> {
    DeviceSigner::from_parts(p256(scalar)?, certificate)
}

fn p256(scalar: &[u8]) -> Result<crate::backend::P256Secret, KeyError> {
    let scalar = scalar.try_into().map_err(|_| KeyError::Malformed)?;
    default_backend()
        .p256_from_scalar(scalar)
        .map_err(|_| KeyError::Malformed)
}
