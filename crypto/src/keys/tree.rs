//! The upper two levels of the key tree: what makes one key's destruction enough.

use zeroize::Zeroizing;

use super::secret::Secret;
use super::{Kek, KeyError, RecipientKey, blank_debug, sealed, unwrap};
use crate::backend::{Backend, default_backend};
use crate::certificate::RecipientCertificate;
use crate::ids::{KeyEpoch, Kid};

/// What the sealing key of a page's own secrets is derived for.
const PAGE_SECRETS: &[u8] = b"vitalseal page secrets, version 1";
/// What the sealing key of a root's own papers, its key snapshots, is derived for.
const ROOT_PAPERS: &[u8] = b"vitalseal root papers, version 1";

/// The key over one page of patients. An erasure replaces it, and re-wraps the patients that stay.
///
/// A page of its own also seals the service's secrets (authority, TLS and audit keys), since they must die with the
/// store as patients' keys do.
pub struct PageKey(Secret);

impl PageKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when the random source fails.
    pub fn generate(backend: &dyn Backend) -> Result<Self, KeyError> {
        Ok(Self(Secret::generate(backend)?))
    }

    /// Wraps a patient's key (AES-256 key wrap, RFC 3394).
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn wrap_kek(&self, kek: &Kek) -> Result<[u8; 40], KeyError> {
        Ok(default_backend().wrap(self.0.bytes(), kek.secret().bytes())?)
    }

    /// Unwraps a patient's key. `kid` is stored beside the wrap, and is not bound to it.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::Unwrap`].
    pub fn unwrap_kek(&self, kid: Kid, wrapped: &[u8]) -> Result<Kek, KeyError> {
        Ok(Kek::from_parts(kid, unwrap(&self.0, wrapped)?))
    }

    /// Seals one of the service's own secrets. `context` names which: it is bound and not carried.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        sealed::seal(&self.0, PAGE_SECRETS, context, plaintext)
    }

    /// Opens what [`PageKey::seal`] made in the same context.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::Open`].
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        sealed::open(&self.0, PAGE_SECRETS, context, sealed)
    }
}

/// A key that lives outside the data directory, so that no backup of the data holds it: the root of the key tree for
/// one epoch, or the cover of the server's envelope key for one.
pub struct RootKey {
    epoch: KeyEpoch,
    key: Secret,
}

impl RootKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when the random source fails.
    pub fn generate(epoch: KeyEpoch, backend: &dyn Backend) -> Result<Self, KeyError> {
        Ok(Self {
            epoch,
            key: Secret::generate(backend)?,
        })
    }

    pub(crate) fn from_parts(epoch: KeyEpoch, key: Secret) -> Self {
        Self { epoch, key }
    }

    /// Its epoch.
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// Wraps a page key (AES-256 key wrap, RFC 3394).
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn wrap_page(&self, page: &PageKey) -> Result<[u8; 40], KeyError> {
        Ok(default_backend().wrap(self.key.bytes(), page.0.bytes())?)
    }

    /// Unwraps a page key.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::Unwrap`].
    pub fn unwrap_page(&self, wrapped: &[u8]) -> Result<PageKey, KeyError> {
        unwrap(&self.key, wrapped).map(PageKey)
    }

    /// Wraps the private scalar of an envelope key of the server (AES-256 key wrap, RFC 3394).
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn wrap_recipient(&self, recipient: &RecipientKey) -> Result<[u8; 40], KeyError> {
        Ok(default_backend().wrap(self.key.bytes(), recipient.key().scalar())?)
    }

    /// Unwraps an envelope key of the server.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Unwrap`], or [`KeyError::Mismatch`] when it is not the certificate's key.
    pub fn unwrap_recipient(
        &self,
        wrapped: &[u8],
        certificate: RecipientCertificate,
    ) -> Result<RecipientKey, KeyError> {
        let scalar = unwrap(&self.key, wrapped)?;
        let key = default_backend()
            .p256_from_scalar(scalar.bytes())
            .map_err(|_| KeyError::Malformed)?;
        RecipientKey::from_parts(certificate.kid().clone(), certificate, key)
    }

    /// Seals a paper of the tree, such as a key snapshot. `context` names which: it is bound and not carried.
    ///
    /// # Errors
    /// [`KeyError::Backend`] when a primitive fails.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        sealed::seal(&self.key, ROOT_PAPERS, context, plaintext)
    }

    /// Opens what [`RootKey::seal`] made in the same context.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::Open`].
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        sealed::open(&self.key, ROOT_PAPERS, context, sealed)
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.key
    }
}

blank_debug! { PageKey RootKey }
