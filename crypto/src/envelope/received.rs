//! A message on its way in.

use std::fmt;

use crate::backend::{Backend, BackendError};
use crate::certificate::DeviceCertificate;
use crate::envelope::{AtRest, Header, Rejection};
use crate::ids::{Kid, Thumbprint};
use crate::keys::{Kek, RecipientKeyRing};

/// Received.
pub struct Received(Header);
impl Received {
    /// Decodes.
    ///
    /// # Errors
    /// Shape or algorithm.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        todo!()
    }
    /// Header.
    pub fn header(&self) -> &Header {
        todo!()
    }
    /// Signer.
    pub fn signer(&self) -> &Thumbprint {
        todo!()
    }
    /// Kid.
    pub fn recipient_kid(&self) -> Option<&Kid> {
        todo!()
    }
    /// Hash.
    pub fn signed_hash(&self, backend: &dyn Backend) -> [u8; 32] {
        todo!()
    }
    /// Verifies.
    ///
    /// # Errors
    /// Identity or signature.
    pub fn verify(
        self,
        certificate: &DeviceCertificate,
        backend: &dyn Backend,
    ) -> Result<Verified, Rejection> {
        todo!()
    }
}
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").finish_non_exhaustive()
    }
}
/// Verified.
pub struct Verified(Header);
impl Verified {
    /// Header.
    pub fn header(&self) -> &Header {
        todo!()
    }
    /// Hash (computed by `verify`).
    pub fn signed_hash(&self) -> &[u8; 32] {
        todo!()
    }
    /// Opens.
    ///
    /// # Errors
    /// Unknown key, unwrap, commitment, open.
    pub fn open(
        self,
        keys: &RecipientKeyRing,
        backend: &dyn Backend,
    ) -> Result<Opened, Rejection> {
        todo!()
    }
}
impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}
/// Opened.
pub struct Opened(Header);
impl Opened {
    /// Header.
    pub fn header(&self) -> &Header {
        todo!()
    }
    /// Hash.
    pub fn signed_hash(&self) -> &[u8; 32] {
        todo!()
    }
    /// Payload, zeroized on drop.
    pub fn payload(&self) -> &[u8] {
        todo!()
    }
    /// Re-wraps.
    ///
    /// # Errors
    /// When the backend fails inside.
    pub fn rewrap(&self, kek: &Kek, backend: &dyn Backend) -> Result<AtRest, BackendError> {
        todo!()
    }
}
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}
