//! Doors that only tests may open: published vectors choose their own keys, and another COSE library is given ours.
//!
//! They exist under the feature `test-doors` alone, which no dependency of a program switches on. No code of the
//! server may call one: a patient's key that left its store outlives the patient's erasure.

use zeroize::Zeroizing;

use crate::backend::{P256Secret, default_backend};
use crate::certificate::{DeviceCertificate, RecipientCertificate};
use crate::ids::Kid;
use crate::keys::{DeviceSigner, Kek, KeyError, RecipientKey, Secret};

/// A patient's key as bytes, so that another COSE library can open what is stored, knowing nothing else.
pub fn kek_to_bytes(key: &Kek) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*key.secret().bytes())
}

/// A patient's key from its bytes, as published vectors give it.
pub fn kek_from_bytes(kid: Kid, bytes: &[u8; 32]) -> Kek {
    Kek::from_parts(kid, Secret::from_bytes(bytes))
}

/// A recipient key under another identifier than its certificate's, as published vectors choose them.
///
/// # Errors
/// [`KeyError::Malformed`] for what is no scalar, [`KeyError::Mismatch`] if it is not the certificate's.
pub fn recipient_key_under_kid(
    kid: Kid,
    scalar: &[u8],
    certificate: RecipientCertificate,
) -> Result<RecipientKey, KeyError> {
    RecipientKey::from_parts(kid, certificate, p256(scalar)?)
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

fn p256(scalar: &[u8]) -> Result<P256Secret, KeyError> {
    let scalar = scalar.try_into().map_err(|_| KeyError::Malformed)?;
    default_backend()
        .p256_from_scalar(scalar)
        .map_err(|_| KeyError::Malformed)
}
