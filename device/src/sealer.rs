//! Readings become signed, sealed, numbered and chained messages.

use std::sync::Arc;

use jiff::Timestamp;
use vitalseal_crypto::{
    Agreement, Backend, ContentType, Dek, KeyError, MessageId, RecipientCertificate, SealError,
    SealRequest, SessionKey, SubjectPseudonym, default_backend, seal,
};
use vitalseal_vitals::{MAX_READINGS, Reading, Waveform, senml, waveform};

use crate::{DeviceIdentity, Position};

/// How the content key of a message reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgreementMode {
    /// A fresh key agreement for every message (ECDH-ES): the server forgets nothing by forgetting a session.
    Es,
    /// One agreement key for some messages (ECDH-SS with a nonce per message): cheaper on both sides. Every message
    /// carries it in full (`-2`): only its name (`-3`) would do once the server acknowledged one, and what was
    /// acknowledged is not known here, where messages are sealed long before they are sent.
    Ss {
        /// Messages after which a new session key is drawn; at least 1. Who learns a session key opens as many.
        messages_per_session: u32,
    },
}

/// A sealed message, ready for the outbox.
#[derive(Debug)]
pub struct Message {
    /// Device, boot and sequence: what the server tells duplicates by.
    pub id: MessageId,
    /// The envelope, as it goes on the wire.
    pub bytes: Vec<u8>,
    /// SHA-256 of the countersigned bytes, which the next message carries.
    pub signed_hash: [u8; 32],
    /// The content key, for the outbox to wrap; it is wiped with this.
    pub content_key: Dek,
}

impl Message {
    /// Its place in the outbox.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            boot: self.id.boot,
            sequence: self.id.sequence,
        }
    }
}

/// Why readings could not be sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealerError {
    /// No readings, or more than one message may carry.
    #[error("a message carries 1 to {MAX_READINGS} readings; split the batch")]
    Count,
    /// The server destroys its key when the certificate ends: what is sealed to it later opens for nobody.
    #[error(
        "the server's envelope certificate ended at {not_after}; fetch the current one (topic v1/recipient), then seal again"
    )]
    RecipientExpired {
        /// When it ended.
        not_after: Timestamp,
    },
    /// No session key could be drawn.
    #[error("drawing a session key")]
    Session(#[source] KeyError),
    /// The payload could not be sealed.
    #[error("sealing message {sequence} of boot {boot}")]
    Seal {
        /// Boot counter.
        boot: u64,
        /// Sequence within the boot.
        sequence: u64,
        /// Why.
        #[source]
        cause: SealError,
    },
}

#[derive(Debug)]
struct Session {
    key: SessionKey,
    messages_left: u32,
}

/// Seals the messages of one boot, in order.
///
/// Sequence numbers start at 0 with every boot and are never used twice; each message but the first carries
/// the hash of the one before, so that the server sees a hole even if a message was lost before it left the
/// device. One boot has one sealer: two would number different messages alike, which the server takes for a
/// cloned device.
#[derive(Debug)]
pub struct Sealer {
    identity: Arc<DeviceIdentity>,
    subject: SubjectPseudonym,
    recipient: RecipientCertificate,
    mode: AgreementMode,
    session: Option<Session>,
    boot: u64,
    sequence: u64,
    previous: Option<[u8; 32]>,
    backend: &'static dyn Backend,
}

impl Sealer {
    /// A sealer of readings of `subject` for `recipient`, in the boot that [`Outbox::boot`](crate::Outbox::boot) counts.
    #[must_use]
    pub fn new(
        identity: Arc<DeviceIdentity>,
        subject: SubjectPseudonym,
        recipient: RecipientCertificate,
        mode: AgreementMode,
        boot: u64,
    ) -> Self {
        Self {
            identity,
            subject,
            recipient,
            mode,
            session: None,
            boot,
            sequence: 0,
            previous: None,
            backend: default_backend(),
        }
    }

    /// Seals for another envelope certificate from now on: the server's key epochs are short.
    ///
    /// # Security
    /// The certificate has been verified, as [`DeviceIdentity::trust_recipient`] does.
    pub fn set_recipient(&mut self, recipient: RecipientCertificate) {
        self.recipient = recipient;
        self.session = None;
    }

    /// The envelope certificate that is sealed for.
    #[must_use]
    pub fn recipient(&self) -> &RecipientCertificate {
        &self.recipient
    }

    /// Seals readings as one SenML message, issued at `now`.
    ///
    /// # Errors
    /// [`SealerError`]. The sequence number is then not used up.
    pub fn seal(&mut self, readings: &[Reading], now: Timestamp) -> Result<Message, SealerError> {
        if readings.is_empty() || readings.len() > MAX_READINGS {
            return Err(SealerError::Count);
        }
        self.seal_payload(ContentType::SenmlCbor, senml::encode(readings), now)
    }

    /// Seals a waveform as one message, issued at `now`.
    ///
    /// # Errors
    /// [`SealerError`]. The sequence number is then not used up.
    pub fn seal_waveform(
        &mut self,
        waveform: &Waveform,
        now: Timestamp,
    ) -> Result<Message, SealerError> {
        self.seal_payload(ContentType::Waveform, waveform::encode(waveform), now)
    }

    fn seal_payload(
        &mut self,
        content_type: ContentType,
        payload: Vec<u8>,
        now: Timestamp,
    ) -> Result<Message, SealerError> {
        let payload = zeroize::Zeroizing::new(payload);
        let not_after = self.recipient.not_after();
        if now > not_after {
            return Err(SealerError::RecipientExpired { not_after });
        }
        self.renew_session()?;
        let request = SealRequest {
            content_type,
            device: self.identity.device(),
            subject: &self.subject,
            issued_at: now,
            boot: self.boot,
            sequence: self.sequence,
            previous: self.previous,
        };
        let agreement = match &self.session {
            Some(session) => Agreement::Session(&session.key),
            None => Agreement::Ephemeral,
        };
        let signer = self.identity.signer();
        let sealed = seal(
            &request,
            &payload,
            &self.recipient,
            agreement,
            signer,
            self.backend,
        );
        let sealed = sealed.map_err(|cause| SealerError::Seal {
            boot: self.boot,
            sequence: self.sequence,
            cause,
        })?;
        let id = MessageId {
            device: self.identity.device().clone(),
            boot: self.boot,
            sequence: self.sequence,
        };
        self.sequence += 1;
        self.previous = Some(sealed.signed_hash);
        if let Some(session) = &mut self.session {
            session.messages_left -= 1;
        }
        Ok(Message {
            id,
            bytes: sealed.bytes,
            signed_hash: sealed.signed_hash,
            content_key: sealed.content_key,
        })
    }

    fn renew_session(&mut self) -> Result<(), SealerError> {
        let AgreementMode::Ss {
            messages_per_session,
        } = self.mode
        else {
            return Ok(());
        };
        if self
            .session
            .as_ref()
            .is_none_or(|session| session.messages_left == 0)
        {
            let key = SessionKey::generate(self.backend).map_err(SealerError::Session)?;
            self.session = Some(Session {
                key,
                messages_left: messages_per_session.max(1),
            });
        }
        Ok(())
    }
}
