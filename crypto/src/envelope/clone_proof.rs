//! The proof that a device's key is in two hands.
//!
//! ```text
//! [ "vitalseal clone proof",     tstr
//!   1,                           version
//!   bstr .cbor certificate,      DER of the certificate that the first message was signed under
//!   bstr .cbor COSE_Encrypt0,    the first message, as Signed draws it
//!   bstr, bstr ]                 the same two of the second message
//! ```
//!
//! The CBOR is deterministic. To verify one without this code: read the array; check with any X.509 library that both
//! certificates were issued by the site's authority to one common name; check with any COSE library each message's
//! countersignature (label 11, RFC 9338) under its certificate; and compare the claims (label 15 of the protected
//! headers) and hashes as [`CloneKind`] says. No decryption key is needed, and none can be had from it.
//!
//! What never stands here: what is done about a clone, and payloads in the clear.

use super::cbor::{Reader, Writer};
use super::{Link, Rejection, Signed};
use crate::backend::Backend;
use crate::certificate::{CertificateError, DeviceCertificate};
use crate::ids::DeviceId;

const MAGIC: &str = "vitalseal clone proof";
const VERSION: u64 = 1;

/// Two messages that one device which keeps its counters and its chain cannot both have signed.
///
/// Anyone who trusts the authority can [verify](Self::verify) it, at any later time. It holds ciphertext without a key
/// to it, and the pseudonyms of both headers in the clear: personal data (GDPR 4(5)).
///
/// A device that lost its state but not its key looks the same. So it proves a fault of that key's holder, and a clone
/// is the cause that must be assumed until it is excluded.
#[derive(Clone, Debug)]
pub struct CloneProof {
    first: Evidence,
    second: Evidence,
}

/// What no single device can have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloneKind {
    /// Device, boot and sequence are the same, and the signed hashes (SHA-256 of the countersigned bytes) are not.
    SameCounters,
    /// Device and boot are the same, the second sequence follows the first, and the second message names as its
    /// predecessor (`-65539`) another signed hash than the first message's.
    BrokenLink,
}

/// What a proof says, once it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloneStatement {
    /// The device whose key signed both.
    pub device: DeviceId,
    /// The boot that both claim.
    pub boot: u64,
    /// What they contradict each other in.
    pub kind: CloneKind,
    /// The sequence of the first and the second message.
    pub sequences: [u64; 2],
    /// Their signed hashes.
    pub signed_hashes: [[u8; 32]; 2],
}

/// Why something is no clone proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoProof {
    /// The bytes are not a proof of this version.
    #[error("reading a clone proof")]
    Malformed(#[source] Rejection),
    /// A certificate in the proof does not parse.
    #[error("reading a certificate of a clone proof")]
    Certificate(#[source] CertificateError),
    /// A message is not an envelope of the profile.
    #[error("reading a message of a clone proof")]
    Message(#[source] Rejection),
    /// None of the certificates given is the one that a message was signed under.
    #[error("the certificate that a message was signed under is not among those given")]
    UnknownSigner,
    /// A message is not signed by the device that it names.
    #[error("verifying a message of a clone proof")]
    Unsigned(#[source] Rejection),
    /// A certificate was issued by none of the authorities given.
    #[error("verifying a certificate of a clone proof")]
    ForeignIssuer(#[source] CertificateError),
    /// The messages are of two devices.
    #[error("the messages are of different devices")]
    DifferentDevices,
    /// The messages are of two boots of the device.
    #[error("the messages are of different boots")]
    DifferentBoots,
    /// Both are one message, which a device may send as often as it likes.
    #[error("both are the same message")]
    SameMessage,
    /// Neither follows the other directly.
    #[error("the messages' sequences are neither equal nor consecutive")]
    NotConsecutive,
    /// The later message does not name the one before it.
    #[error("the later message names no predecessor")]
    NoLink,
    /// The later message names the earlier one.
    #[error("the later message names the earlier one, as it should")]
    LinkHolds,
}

impl CloneProof {
    /// Makes a proof of two messages, wire or stored, in either order. `certificates` are the device's: after a renewal
    /// the two messages may be signed under different ones. Everything but their issuer is checked.
    ///
    /// # Errors
    /// [`NoProof`] with the first reason found why these two prove nothing.
    pub fn new(
        one: &[u8],
        other: &[u8],
        certificates: &[&DeviceCertificate],
        backend: &dyn Backend,
    ) -> Result<Self, NoProof> {
        let one = Evidence::find(one, certificates)?;
        let other = Evidence::find(other, certificates)?;
        // One order for one pair: by sequence, then by signed hash.
        let order = |evidence: &Evidence| {
            let message = &evidence.message;
            (message.header().sequence, message.signed_hash(backend))
        };
        let (first, second) = if order(&one) <= order(&other) {
            (one, other)
        } else {
            (other, one)
        };
        let proof = Self { first, second };
        proof.check(backend)?;
        Ok(proof)
    }

    /// Reads a proof. This proves nothing yet: [`CloneProof::verify`] does.
    ///
    /// # Errors
    /// [`NoProof::Malformed`], [`NoProof::Certificate`] or [`NoProof::Message`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NoProof> {
        let [certificate_one, one, certificate_two, two] =
            read_parts(bytes).map_err(NoProof::Malformed)?;
        Ok(Self {
            first: Evidence::read(certificate_one, one)?,
            second: Evidence::read(certificate_two, two)?,
        })
    }

    /// The proof's bytes: at most two envelopes and two certificates long.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(6).text(MAGIC).uint(VERSION);
        for Evidence {
            certificate,
            message,
        } in [&self.first, &self.second]
        {
            writer.bytes(certificate.der()).bytes(message.as_bytes());
        }
        writer.into_bytes()
    }

    /// Checks everything, and says what is proven. `issuing_ders` are the authorities that may have issued the device's
    /// certificates. A certificate that has expired since proves as much: only its beginning must lie within its
    /// authority's validity.
    ///
    /// # Errors
    /// [`NoProof`].
    pub fn verify(
        &self,
        issuing_ders: &[&[u8]],
        backend: &dyn Backend,
    ) -> Result<CloneStatement, NoProof> {
        for Evidence { certificate, .. } in [&self.first, &self.second] {
            let mut issued = Err(CertificateError::ForeignIssuer);
            for issuing in issuing_ders {
                issued = issued.or_else(|_| {
                    certificate.verify_issued_by(issuing, certificate.not_before(), backend)
                });
            }
            issued.map_err(NoProof::ForeignIssuer)?;
        }
        self.check(backend)
    }

    /// The device's certificates that the two messages were signed under.
    pub fn certificates(&self) -> [&DeviceCertificate; 2] {
        [&self.first.certificate, &self.second.certificate]
    }

    /// The two messages.
    pub fn messages(&self) -> [&Signed; 2] {
        [&self.first.message, &self.second.message]
    }

    /// That both are signed by one device, and contradict each other.
    fn check(&self, backend: &dyn Backend) -> Result<CloneStatement, NoProof> {
        for evidence in [&self.first, &self.second] {
            evidence
                .message
                .verify(&evidence.certificate, backend)
                .map_err(NoProof::Unsigned)?;
        }
        let [first, second] = self.messages().map(Signed::header);
        if first.device != second.device {
            return Err(NoProof::DifferentDevices);
        }
        if first.boot != second.boot {
            return Err(NoProof::DifferentBoots);
        }
        let signed_hashes = self.messages().map(|message| message.signed_hash(backend));
        let kind = if first.sequence == second.sequence {
            if signed_hashes[0] == signed_hashes[1] {
                return Err(NoProof::SameMessage);
            }
            CloneKind::SameCounters
        } else if first.sequence + 1 == second.sequence {
            match second.link(Some(&signed_hashes[0])) {
                Link::Fork => CloneKind::BrokenLink,
                Link::Holds => return Err(NoProof::LinkHolds),
                Link::First | Link::Unchained | Link::Gap => return Err(NoProof::NoLink),
            }
        } else {
            return Err(NoProof::NotConsecutive);
        };
        Ok(CloneStatement {
            device: first.device.clone(),
            boot: first.boot,
            kind,
            sequences: [first.sequence, second.sequence],
            signed_hashes,
        })
    }
}

/// A message, and the certificate that it was signed under.
#[derive(Clone, Debug)]
struct Evidence {
    certificate: DeviceCertificate,
    message: Signed,
}

impl Evidence {
    fn find(message: &[u8], certificates: &[&DeviceCertificate]) -> Result<Self, NoProof> {
        let message = Signed::decode(message).map_err(NoProof::Message)?;
        let certificate = certificates
            .iter()
            .find(|certificate| certificate.thumbprint() == message.signer())
            .ok_or(NoProof::UnknownSigner)?;
        Ok(Self {
            certificate: (*certificate).clone(),
            message,
        })
    }

    fn read(certificate: &[u8], bytes: &[u8]) -> Result<Self, NoProof> {
        let certificate = DeviceCertificate::from_der(certificate).map_err(NoProof::Certificate)?;
        let message = Signed::decode(bytes).map_err(NoProof::Message)?;
        if message.as_bytes() != bytes {
            return Err(NoProof::Message(Rejection::shape(
                "evidence keeps no recipients",
            )));
        }
        Ok(Self {
            certificate,
            message,
        })
    }
}

fn read_parts(bytes: &[u8]) -> Result<[&[u8]; 4], Rejection> {
    let mut reader = Reader::new(bytes);
    reader.array(6)?;
    if reader.text()? != MAGIC {
        return Err(Rejection::shape("not a clone proof"));
    }
    if reader.uint()? != VERSION {
        return Err(Rejection::shape("a clone proof of another version"));
    }
    let parts = [
        reader.bytes()?,
        reader.bytes()?,
        reader.bytes()?,
        reader.bytes()?,
    ];
    reader.end()?;
    Ok(parts)
}
