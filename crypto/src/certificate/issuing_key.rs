//! The issuing authority's private key: here, or somewhere else.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use super::authority::AuthorityError;
use crate::backend::{BackendError, P256Point, default_backend, signature_to_der};
use crate::remote::RemoteSigner;

/// What signs certificates.
pub(super) enum IssuingKey {
    Here(KeyPair),
    Remote(RemoteKey),
}

/// A key of which only the public half is known here.
pub(super) struct RemoteKey {
    signer: Arc<dyn RemoteSigner>,
    public: P256Point,
    /// Why it did not sign: rcgen's error for this carries no reason.
    failure: Mutex<Option<Box<dyn Error + Send + Sync>>>,
}

impl IssuingKey {
    /// # Errors
    /// [`AuthorityError::Authority`] when it is no P-256 key.
    pub(super) fn remote(signer: Arc<dyn RemoteSigner>) -> Result<Self, AuthorityError> {
        let public = P256Point::from_sec1(signer.public()).ok_or(AuthorityError::Authority)?;
        let failure = Mutex::new(None);
        Ok(Self::Remote(RemoteKey {
            signer,
            public,
            failure,
        }))
    }

    /// What rcgen's error was about.
    pub(super) fn explain(&self, error: rcgen::Error) -> AuthorityError {
        let failure = match self {
            Self::Here(_) => None,
            Self::Remote(key) => lock(&key.failure).take(),
        };
        failure.map_or(AuthorityError::Signing(error), AuthorityError::Remote)
    }
}

impl RemoteKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let signature = self.signer.sign(message)?;
        default_backend().verify(&self.public, &[message], &signature)?;
        Ok(signature_to_der(&signature).ok_or(BackendError::Refused)?)
    }
}

impl PublicKeyData for IssuingKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Here(key) => key.der_bytes(),
            Self::Remote(key) => key.public.as_sec1(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for IssuingKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Self::Here(key) => key.sign(message),
            Self::Remote(key) => key.sign(message).map_err(|cause| {
                *lock(&key.failure) = Some(cause);
                rcgen::Error::RemoteKeyError
            }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
