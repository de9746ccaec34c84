//! Messages that outlived the server's key that they were sealed for.
//!
//! The server destroys each envelope key when its epoch ends. A message that still waits then would open
//! for nobody; but the device kept its content key, wrapped, and can address the message anew. The
//! signature and all that it covers stay as they are.

use vitalseal_crypto::{
    Agreement, KeyError, Received, RecipientCertificate, SealError, default_backend, readdress,
};

use crate::{DeviceIdentity, Waiting};

/// Why a waiting message could not be addressed anew. As it was sealed, it can still be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Its content key does not open under this device's outbox key.
    #[error(
        "unwrapping the content key of a waiting message; it was kept under another outbox key"
    )]
    ContentKey(#[source] KeyError),
    /// The message is no envelope, or not the one that the content key belongs to.
    #[error("addressing a waiting message to the server's present key")]
    Readdress(#[source] SealError),
}

impl DeviceIdentity {
    /// The wire envelope to send to a server whose present key is `recipient`'s: as it was sealed, or, when that was
    /// for another key, with nothing but its recipient replaced.
    ///
    /// # Errors
    /// [`AddressError`]
    ///
    /// # Security
    /// The certificate has been verified, as [`DeviceIdentity::trust_recipient`] does.
    pub fn address(
        &self,
        waiting: Waiting,
        recipient: &RecipientCertificate,
    ) -> Result<Vec<u8>, AddressError> {
        let sealed = Received::decode(&waiting.envelope);
        if sealed.is_ok_and(|sealed| sealed.recipient_kid() == recipient.kid()) {
            return Ok(waiting.envelope);
        }
        let key = self.outbox_key().unwrap(&waiting.content_key);
        let key = key.map_err(AddressError::ContentKey)?;
        let (ephemeral, backend) = (Agreement::Ephemeral, default_backend());
        readdress(&waiting.envelope, &key, recipient, ephemeral, backend)
            .map_err(AddressError::Readdress)
    }
}
