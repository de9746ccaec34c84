//! The proof of a clone, made while both messages are at hand.

use vitalseal_crypto::{CloneProof, MessageId, NoProof, Signed};
use vitalseal_storage::{Fork, InboxError, RegistryError, StoreError};

use super::PipelineDeps;

/// Why there is no proof of a fork. The message is refused all the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEvidence {
    #[error("looking for proofs that are kept already")]
    Inbox(#[from] InboxError),
    #[error("looking for the message that it contradicts")]
    Store(#[from] StoreError),
    #[error("the message that it contradicts is in no file and not in the inbox")]
    Gone,
    #[error("looking for the certificates that the two messages were signed under")]
    Registry(#[from] RegistryError),
    #[error("a certificate that one of them was signed under was never enrolled")]
    Certificate,
    #[error("holding the two messages against each other")]
    Proof(#[from] NoProof),
}

/// The encoded proof that `body` and the stored message that it contradicts make; `None` when it would not be kept or was
/// looked for before, which spares the search.
pub(super) async fn of_fork(
    deps: &PipelineDeps,
    message: &MessageId,
    fork: Fork,
    body: &[u8],
) -> Result<Option<Vec<u8>>, NoEvidence> {
    let store = &deps.store;
    if !store.inbox.wants_proof(message).await? {
        return Ok(None);
    }
    let other = MessageId {
        sequence: fork.other,
        ..message.clone()
    };
    let stored = store.stored_envelope(&other).await?;
    let stored = stored.ok_or(NoEvidence::Gone)?;
    let mut certificates = Vec::with_capacity(2);
    for message in [&stored[..], body] {
        let signed = Signed::decode(message).map_err(NoProof::Message)?;
        let certificate = store.registry.device_certificate(signed.signer()).await?;
        certificates.push(certificate.ok_or(NoEvidence::Certificate)?);
    }
    let certificates: Vec<_> = certificates.iter().map(AsRef::as_ref).collect();
    let proof = CloneProof::new(&stored, body, &certificates, deps.backend)?;
    Ok(Some(proof.encode()))
}
