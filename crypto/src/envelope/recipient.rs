//! Recipients: how the content key travels to the server, and how it is kept for the patient.
//!
//! ```text
//! es = [bstr {1: -31}, {4: kid, -1: ec2}, bstr .size 40]                          fresh ephemeral key
//! ss = [bstr {1: -34}, {4: kid, (-2: ec2 // -3: bstr), -22: uint}, bstr .size 40] session key and nonce
//! pk = [h'', {1: -5, 4: kid}, bstr .size 40]                                      the patient's KEK
//! ec2 = {1: 2, -1: 1, -2: x, -3: y}                                               P-256, uncompressed
//! ```

use zeroize::Zeroizing;

use super::cbor::{Reader, Writer};
use super::header::expect_algorithm;
use super::profile::{
    ALG, CRV_P256, EC2_CRV, EC2_X, EC2_Y, EPHEMERAL_KEY, KID, KTY, KTY_EC2, PARTY_U_NONCE,
    STATIC_KEY, STATIC_KEY_ID, algorithm,
};
use super::structures::kdf_info;
use super::{Rejection, Rule};
use crate::backend::{Backend, BackendError, P256Point};
use crate::ids::Kid;
use crate::keys::{Dek, RecipientKeyRing};

/// The protected headers of the two agreements. Nothing else is accepted, so these *are* the received bytes.
const ES_PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x1e];
const SS_PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x21];

/// The recipient of a message on the wire: one of the server's envelope keys.
pub(super) struct WireRecipient {
    kid: Kid,
    /// `None` when the sender's key is named (`-3`) instead of carried: no directory of such names is kept.
    sender: Option<Sender>,
    wrapped: [u8; 40],
}

/// Whose key agreed with the recipient's.
pub(super) enum Sender {
    /// `es`: a key made for this message.
    Ephemeral(P256Point),
    /// `ss`: a session's key, and the nonce that makes this message's wrap key its own.
    Session(P256Point, u64),
}

impl Sender {
    fn protected(&self) -> &'static [u8] {
        match self {
            Self::Ephemeral(_) => ES_PROTECTED,
            Self::Session(..) => SS_PROTECTED,
        }
    }

    /// The key that wraps the content key: HKDF over the shared secret, without salt (RFC 9053 §6.4).
    pub(super) fn wrap_key(
        &self,
        secret: &[u8; 32],
        backend: &dyn Backend,
    ) -> Result<Zeroizing<[u8; 32]>, BackendError> {
        let nonce = match self {
            Self::Ephemeral(_) => None,
            Self::Session(_, nonce) => Some(*nonce),
        };
        backend.hkdf_sha256(b"", secret, &kdf_info(nonce, self.protected()))
    }

    /// The encoded recipients array for a key that was wrapped under [`Sender::wrap_key`].
    pub(super) fn write(&self, writer: &mut Writer, kid: &Kid, wrapped: &[u8; 40]) {
        writer.array(1).array(3).bytes(self.protected());
        match self {
            Self::Ephemeral(key) => {
                writer.map(2).int(KID).bytes(kid.as_bytes());
                write_point(writer.int(EPHEMERAL_KEY), key);
            }
            Self::Session(key, nonce) => {
                writer.map(3).int(KID).bytes(kid.as_bytes());
                write_point(writer.int(STATIC_KEY), key);
                writer.int(PARTY_U_NONCE).uint(*nonce);
            }
        }
        writer.bytes(wrapped);
    }
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
                STATIC_KEY_ID => named = Some(reader.bytes()?),
                PARTY_U_NONCE => nonce = Some(reader.uint()?),
                _ => return Err(Rejection::shape("the recipient has a foreign label")),
            }
        }
        let sender = match (agreement, ephemeral, session, named, nonce) {
            (algorithm::ECDH_ES_A256KW, Some(key), None, None, None) => {
                Some(Sender::Ephemeral(key))
            }
            (algorithm::ECDH_SS_A256KW, None, Some(key), None, Some(nonce)) => {
                Some(Sender::Session(key, nonce))
            }
            (algorithm::ECDH_SS_A256KW, None, None, Some(_), Some(_)) => None,
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

    /// Agrees with the sender and unwraps the content key.
    pub(super) fn unwrap(
        &self,
        keys: &RecipientKeyRing,
        backend: &dyn Backend,
    ) -> Result<Dek, Rejection> {
        let unknown = |detail| Rejection::new(Rule::UnknownKey, detail);
        let refused = |_| Rejection::new(Rule::Unwrap, "the content key does not unwrap");
        let sender = self
            .sender
            .as_ref()
            .ok_or(unknown("the sender's key is only named, not carried"))?;
        let own = keys
            .find(&self.kid)
            .ok_or(unknown("no key is held for the recipient's kid"))?;
        let unwrap = |secret: &[u8; 32]| {
            let wrap_key = sender.wrap_key(secret, backend)?;
            backend.unwrap(&wrap_key, &self.wrapped)
        };
        let key = match sender {
            Sender::Ephemeral(peer) => own
                .agree(peer, backend)
                .and_then(|secret| unwrap(&secret))
                .map_err(refused)?,
            Sender::Session(peer, _) => keys
                .with_session_secret(own, peer, backend, unwrap)
                .map_err(refused)?,
        };
        Ok(Dek::from_bytes(&key))
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
    reader.array(1)?;
    reader.array(3)
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
        return Err(foreign);
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

fn read_point(reader: &mut Reader<'_>) -> Result<P256Point, Rejection> {
    let (mut kty, mut crv, mut x, mut y) = (None, None, None, None);
    let mut labels = reader.map()?;
    while let Some(label) = labels.next(reader)? {
        match label {
            KTY => kty = Some(reader.int()?),
            EC2_CRV => crv = Some(reader.int()?),
            EC2_X => x = Some(reader.fixed()?),
            EC2_Y => y = Some(reader.fixed()?),
            _ => return Err(Rejection::shape("a key has a foreign label")),
        }
    }
    match (kty, crv, x, y) {
        (Some(KTY_EC2), Some(CRV_P256), Some(x), Some(y)) => Ok(P256Point::from_coordinates(x, y)),
        _ => Err(Rejection::shape("a key is not an uncompressed P-256 point")),
    }
}

fn write_point(writer: &mut Writer, point: &P256Point) {
    writer
        .map(4)
        .int(KTY)
        .int(KTY_EC2)
        .int(EC2_CRV)
        .int(CRV_P256);
    writer
        .int(EC2_X)
        .bytes(point.x())
        .int(EC2_Y)
        .bytes(point.y());
}
