//! Recipients: how the content key travels to the server, and how it is kept for the patient.
//!
//! ```text
//! es = [bstr {1: -31}, {4: kid, -1: ec2}, bstr .size 40]                                   fresh ephemeral key
//! ss = [bstr {1: -34}, {4: kid, (-2: ec2 // -3: bstr .size 32), -22: uint}, bstr .size 40] session key and nonce
//! pk = [h'', {1: -5, 4: kid}, bstr .size 40]                                               the patient's KEK
//! ```

use super::cbor::{Reader, Writer};
use super::header::expect_algorithm;
use super::profile::{
    ALG, EPHEMERAL_KEY, KID, PARTY_U_NONCE, STATIC_KEY, STATIC_KEY_ID, algorithm,
};
use super::sender::{ES_PROTECTED, SS_PROTECTED, Sender, SenderKeys, read_point};
use super::{Rejection, Rule};
use crate::backend::{Backend, P256Point};
use crate::ids::{DeviceId, Kid, SenderKeyId};
use crate::keys::{Dek, RecipientKeyRing};

/// The recipient of a message on the wire: one of the server's envelope keys.
pub(super) struct WireRecipient {
    kid: Kid,
    sender: Sender,
    wrapped: [u8; 40],
}

impl WireRecipient {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Rejection> {
        one_recipient(reader)?;
        let agreement = read_agreement(reader.bytes()?)?;
        let (mut kid, mut nonce) = (None, None);
        let (mut ephemeral, mut session, mut named) = (None, None, None);
        let mut labels = reader.map()?;
        while let Some(label) = labels.next(reader)? {
            match label {
                KID => kid = Some(read_kid(reader)?),
                EPHEMERAL_KEY => ephemeral = Some(read_point(reader)?),
                STATIC_KEY => session = Some(read_point(reader)?),
                STATIC_KEY_ID => named = Some(SenderKeyId::from_bytes(*reader.fixed()?)),
                PARTY_U_NONCE => nonce = Some(reader.uint()?),
                _ => return Err(Rejection::shape("the recipient has a foreign label")),
            }
        }
        let sender = match (agreement, ephemeral, session, named, nonce) {
            (algorithm::ECDH_ES_A256KW, Some(key), None, None, None) => Sender::Ephemeral(key),
            (algorithm::ECDH_SS_A256KW, None, Some(key), None, Some(nonce)) => {
                Sender::Session(key, nonce)
            }
            (algorithm::ECDH_SS_A256KW, None, None, Some(id), Some(nonce)) => {
                Sender::NamedSession(id, nonce)
            }
            _ => {
                return Err(Rejection::shape(
                    "the recipient's labels do not fit its algorithm",
                ));
            }
        };
        let kid = kid.ok_or(Rejection::shape("the recipient names no key"))?;
        Ok(Self {
            kid,
            sender,
            wrapped: *reader.fixed()?,
        })
    }

    pub(super) fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The session key that the message carries in full.
    pub(super) fn carried_session(&self) -> Option<&P256Point> {
        match &self.sender {
            Sender::Session(key, _) => Some(key),
            Sender::Ephemeral(_) | Sender::NamedSession(..) => None,
        }
    }

    /// Agrees with the sender and unwraps the content key.
    pub(super) fn unwrap(
        &self,
        device: &DeviceId,
        keys: &RecipientKeyRing,
        senders: &dyn SenderKeys,
        backend: &dyn Backend,
    ) -> Result<Dek, Rejection> {
        let own = keys.find(&self.kid).ok_or(Rejection::new(
            Rule::UnknownKey,
            "no key is held for the recipient's kid",
        ))?;
        let peer = self.sender.key(device, senders, backend)?;
        let unwrap = |secret: &[u8; 32]| {
            let wrap_key = self.sender.wrap_key(secret, backend)?;
            backend.unwrap(&wrap_key, &self.wrapped)
        };
        let unwrapped = match self.sender {
            Sender::Ephemeral(_) => own.agree(&peer, backend).and_then(|secret| unwrap(&secret)),
            Sender::Session(..) | Sender::NamedSession(..) => {
                keys.with_session_secret(own, &peer, backend, unwrap)
            }
        };
        unwrapped
            .map(|key| Dek::from_bytes(&key))
            .map_err(|_| Rejection::new(Rule::Unwrap, "the content key does not unwrap"))
    }
}

/// The recipient of a message in storage: one patient's KEK.
#[derive(Clone)]
pub(super) struct PatientRecipient {
    pub(super) kid: Kid,
    pub(super) wrapped: [u8; 40],
}

impl PatientRecipient {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Rejection> {
        one_recipient(reader)?;
        if !reader.bytes()?.is_empty() {
            return Err(Rejection::new(Rule::Algorithm, "not wrapped for a patient"));
        }
        let (mut alg, mut kid) = (None, None);
        let mut labels = reader.map()?;
        while let Some(label) = labels.next(reader)? {
            match label {
                ALG => alg = Some(expect_algorithm(reader, algorithm::A256KW)?),
                KID => kid = Some(read_kid(reader)?),
                _ => return Err(Rejection::shape("the recipient has a foreign label")),
            }
        }
        let (Some(()), Some(kid)) = (alg, kid) else {
            return Err(Rejection::shape("the recipient lacks a label"));
        };
        Ok(Self {
            kid,
            wrapped: *reader.fixed()?,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array(1).array(3).bytes(b"").map(2);
        writer
            .int(ALG)
            .int(algorithm::A256KW)
            .int(KID)
            .bytes(self.kid.as_bytes());
        writer.bytes(&self.wrapped);
    }
}

/// Exactly one recipient of three elements: a second one would be a copy that survives an erasure.
fn one_recipient(reader: &mut Reader<'_>) -> Result<(), Rejection> {
    reader.array_or(1, "not exactly one recipient")?;
    reader.array_or(3, "a recipient has other than three parts")
}

fn read_agreement(protected: &[u8]) -> Result<i64, Rejection> {
    match protected {
        ES_PROTECTED => return Ok(algorithm::ECDH_ES_A256KW),
        SS_PROTECTED => return Ok(algorithm::ECDH_SS_A256KW),
        _ => {}
    }
    // Refused in any case; what remains is which rule it broke.
    let foreign = Rejection::new(Rule::Algorithm, "the recipient's algorithm is not allowed");
    if protected.is_empty() {
        return Err(foreign);
    }
    let mut reader = Reader::new(protected);
    if reader.map()?.next(&mut reader)? != Some(ALG) {
        return Err(Rejection::shape("the recipient names no algorithm"));
    }
    if reader.text_follows() {
        return Err(Rejection::new(
            Rule::Algorithm,
            "an algorithm is named by text",
        ));
    }
    match reader.int()? {
        algorithm::ECDH_ES_A256KW | algorithm::ECDH_SS_A256KW => Err(Rejection::shape(
            "the recipient's protected header has more than an algorithm",
        )),
        _ => Err(foreign),
    }
}

fn read_kid(reader: &mut Reader<'_>) -> Result<Kid, Rejection> {
    Kid::from_bytes(reader.bytes()?).map_err(|_| Rejection::shape("a kid has no such length"))
}
