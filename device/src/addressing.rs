//! Messages that outlived the server's key that they were sealed for.
//!
//! The server destroys each envelope key when its epoch ends. A message that still waits then would open
//! for nobody; but the device kept its content key, and can address the message anew. The signature and
//! all that it covers stay as they are.

use vitalseal_crypto::{
    Agreement, Received, RecipientCertificate, SealError, default_backend, readdress,
};

use crate::Waiting;

/// Why a waiting message could not be addressed anew. It is not sent: a server that cannot open it takes it for good,
/// and the device would forget it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Its content key was kept under an outbox key that is lost.
    #[error(
        "the content key of a waiting message does not open, since its outbox key is lost; only a server that still has \
         the key that it was sealed for can read it"
    )]
    ContentKey,
    /// The message is no envelope, or not the one that the content key belongs to.
    #[error("addressing a waiting message to the server's present key")]
    Readdress(#[source] SealError),
}

impl Waiting {
    /// The wire envelope to send to a server whose present key is `recipient`'s: as it was sealed, or, when that was
    /// for another key, with nothing but its recipient replaced. It is for no other key than that one.
    ///
    /// # Errors
    /// [`AddressError`]
    ///
    /// # Security
    /// The certificate has been verified, as [`DeviceIdentity::trust_recipient`](crate::DeviceIdentity::trust_recipient)
    /// does.
    pub fn address(self, recipient: &RecipientCertificate) -> Result<Vec<u8>, AddressError> {
        let sealed = Received::decode(&self.envelope);
        if sealed.is_ok_and(|sealed| sealed.recipient_kid() == recipient.kid()) {
            return Ok(self.envelope);
        }
        let key = self.content_key.ok_or(AddressError::ContentKey)?;
        let (ephemeral, backend) = (Agreement::Ephemeral, default_backend());
        readdress(&self.envelope, &key, recipient, ephemeral, backend)
            .map_err(AddressError::Readdress)
    }
}
