//! A message in storage.

use std::fmt;

use zeroize::Zeroizing;

use crate::backend::Backend;
use crate::certificate::DeviceCertificate;
use crate::envelope::{Header, Rejection};
use crate::ids::{Kid, Thumbprint};
use crate::keys::Kek;

/// At rest.
#[derive(Clone)]
pub struct AtRest(Header);
impl AtRest {
    /// Decodes.
    ///
    /// # Errors
    /// Shape or algorithm.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        todo!()
    }
    /// Bytes.
    pub fn as_bytes(&self) -> &[u8] {
        todo!()
    }
    /// Bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        todo!()
    }
    /// Header.
    pub fn header(&self) -> &Header {
        todo!()
    }
    /// Kid.
    pub fn kek_kid(&self) -> &Kid {
        todo!()
    }
    /// Signer.
    pub fn signer(&self) -> &Thumbprint {
        todo!()
    }
    /// Hash.
    pub fn signed_hash(&self, backend: &dyn Backend) -> [u8; 32] {
        todo!()
    }
    /// Verifies.
    ///
    /// # Errors
    /// Identity, signature.
    pub fn verify(
        &self,
        certificate: &DeviceCertificate,
        backend: &dyn Backend,
    ) -> Result<(), Rejection> {
        todo!()
    }
    /// Opens.
    ///
    /// # Errors
    /// Unknown key, unwrap, commitment, open.
    pub fn open(&self, kek: &Kek, backend: &dyn Backend) -> Result<Zeroizing<Vec<u8>>, Rejection> {
        todo!()
    }
}
impl fmt::Debug for AtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtRest").finish_non_exhaustive()
    }
}
