//! What a message keeps from the wire to its erasure, whether it has a recipient or not: protected header, ciphertext, and
//!
//! ```text
//! uhdr = {5: bstr .size 12,                                                     IV
//!         11: [bstr {1: -7, 34: [-16, bstr .size 32]}, {}, bstr .size 64]}      countersignature: ES256 and x5t
//! ```
//!
//! What never stands here: recipients, and what a header means.

use std::ops::Range;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::cbor::{Reader, Writer};
use super::header::{Header, expect_algorithm};
use super::profile::{
    ALG, COUNTERSIGNATURE, IV, MAX_ENVELOPE_BYTES, TAG, TAG_BARE, X5T, algorithm,
};
use super::structures::{Countersigned, content_aad, key_thumbprint};
use super::{Rejection, Rule};
use crate::backend::Backend;
use crate::certificate::DeviceCertificate;
use crate::ids::Thumbprint;
use crate::keys::Dek;

/// The bytes of one message, and where in them the parts are that checks need.
#[derive(Clone)]
pub(super) struct Body {
    bytes: Vec<u8>,
    header: Header,
    protected: Range<usize>,
    iv: [u8; 12],
    signer: Thumbprint,
    sign_protected: Range<usize>,
    signature: [u8; 64],
    ciphertext: Range<usize>,
    /// From the protected header to the ciphertext: what is never touched again.
    kept: Range<usize>,
}

impl Body {
    /// Reads everything before the recipients, and leaves the reader there.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, Reader<'_>), Rejection> {
        let mut reader = bounded(bytes)?;
        reader.tag(TAG, "not a tagged COSE_Encrypt")?;
        reader.array(4)?;
        let body = Self::read_kept(bytes, &mut reader)?;
        Ok((body, reader))
    }

    /// Reads a message that has no recipients.
    pub(super) fn read_bare(bytes: &[u8]) -> Result<Self, Rejection> {
        let mut reader = bounded(bytes)?;
        reader.tag(TAG_BARE, "not a tagged COSE_Encrypt0")?;
        reader.array(3)?;
        let body = Self::read_kept(bytes, &mut reader)?;
        reader.end()?;
        Ok(body)
    }

    fn read_kept(bytes: &[u8], reader: &mut Reader<'_>) -> Result<Self, Rejection> {
        let start = reader.position();
        let protected = reader.bytes_range()?;
        let header = Header::decode(&bytes[protected.clone()])?;

        let (mut iv, mut countersignature) = (None, None);
        let mut labels = reader.map()?;
        while let Some(label) = labels.next(reader)? {
            match label {
                IV => iv = Some(*reader.fixed()?),
                COUNTERSIGNATURE => {
                    reader.array(3)?;
                    let sign_protected = reader.bytes_range()?;
                    let signer = read_signer(&bytes[sign_protected.clone()])?;
                    if reader.map()?.next(reader)?.is_some() {
                        return Err(Rejection::shape("the countersignature has loose headers"));
                    }
                    countersignature = Some((sign_protected, signer, *reader.fixed()?));
                }
                _ => {
                    return Err(Rejection::shape(
                        "the unprotected header has a foreign label",
                    ));
                }
            }
        }
        let (Some(iv), Some((sign_protected, signer, signature))) = (iv, countersignature) else {
            return Err(Rejection::shape(
                "the IV or the countersignature is missing",
            ));
        };

        let ciphertext = reader.bytes_range()?;
        if ciphertext.len() < 16 {
            return Err(Rejection::shape("the ciphertext is shorter than its tag"));
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            header,
            protected,
            iv,
            signer,
            sign_protected,
            signature,
            ciphertext,
            kept: start..reader.position(),
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn signer(&self) -> &Thumbprint {
        &self.signer
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn countersigned(&self) -> Countersigned<'_> {
        Countersigned::new(
            self.protected(),
            &self.bytes[self.sign_protected.clone()],
            &self.bytes[self.ciphertext.clone()],
        )
    }

    /// That the certificate's device signed this, and says so.
    pub(super) fn verify(
        &self,
        certificate: &DeviceCertificate,
        backend: &dyn Backend,
    ) -> Result<(), Rejection> {
        if self.signer != *certificate.thumbprint() {
            return Err(Rejection::new(
                Rule::Identity,
                "signed under another certificate",
            ));
        }
        if self.header.device != *certificate.device() {
            return Err(Rejection::new(
                Rule::Identity,
                "the issuer is not the certificate's device",
            ));
        }
        backend
            .verify(
                certificate.public_key(),
                &self.countersigned().parts(),
                &self.signature,
            )
            .map_err(|_| Rejection::new(Rule::Signature, "the countersignature does not verify"))
    }

    /// That this content key is the one that the device committed to.
    pub(super) fn check_commitment(
        &self,
        dek: &Dek,
        backend: &dyn Backend,
    ) -> Result<(), Rejection> {
        let thumbprint = key_thumbprint(dek, backend);
        if bool::from(thumbprint.ct_eq(&self.header.key_thumbprint)) {
            Ok(())
        } else {
            Err(Rejection::new(
                Rule::Commitment,
                "the content key is another one than was signed",
            ))
        }
    }

    /// Opens the ciphertext, after checking that the key is the one that the device committed to.
    pub(super) fn open(
        &self,
        dek: &Dek,
        backend: &dyn Backend,
    ) -> Result<Zeroizing<Vec<u8>>, Rejection> {
        self.check_commitment(dek, backend)?;
        let aad = content_aad(self.protected());
        backend
            .open(
                dek.bytes(),
                &self.iv,
                &aad,
                &self.bytes[self.ciphertext.clone()],
            )
            .map_err(|_| Rejection::new(Rule::Open, "the ciphertext does not open"))
    }

    /// The same message for other recipients: every byte before them as it was.
    pub(super) fn with_recipients(&self, write: impl FnOnce(&mut Writer)) -> Self {
        let mut writer = self.before_recipients();
        write(&mut writer);
        Self {
            bytes: writer.into_bytes(),
            header: self.header.clone(),
            protected: self.protected.clone(),
            sign_protected: self.sign_protected.clone(),
            ciphertext: self.ciphertext.clone(),
            kept: self.kept.clone(),
            ..*self
        }
    }

    /// Every byte before the recipients array, which is to follow.
    pub(super) fn before_recipients(&self) -> Writer {
        Writer::after(self.bytes[..self.kept.end].to_vec())
    }

    /// The message without recipients, as [`Body::read_bare`] reads it.
    pub(super) fn bare(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.tag(TAG_BARE).array(3);
        let mut bytes = writer.into_bytes();
        bytes.extend_from_slice(&self.bytes[self.kept.clone()]);
        bytes
    }

    fn protected(&self) -> &[u8] {
        &self.bytes[self.protected.clone()]
    }
}

fn bounded(bytes: &[u8]) -> Result<Reader<'_>, Rejection> {
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return Err(Rejection::shape("larger than any envelope may be"));
    }
    Ok(Reader::new(bytes))
}

/// The countersignature's protected header: `{1: -7, 34: [-16, x5t]}`.
pub(super) fn write_signer(signer: &Thumbprint) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.map(2).int(ALG).int(algorithm::ES256);
    writer
        .int(X5T)
        .array(2)
        .int(algorithm::SHA_256)
        .bytes(signer.as_bytes());
    writer.into_bytes()
}

fn read_signer(bytes: &[u8]) -> Result<Thumbprint, Rejection> {
    let mut reader = Reader::new(bytes);
    let (mut alg, mut signer) = (None, None);
    let mut labels = reader.map()?;
    while let Some(label) = labels.next(&mut reader)? {
        match label {
            ALG => alg = Some(expect_algorithm(&mut reader, algorithm::ES256)?),
            X5T => {
                reader.array(2)?;
                expect_algorithm(&mut reader, algorithm::SHA_256)?;
                signer = Some(Thumbprint::from_bytes(*reader.fixed()?));
            }
            _ => return Err(Rejection::shape("the countersignature has a foreign label")),
        }
    }
    reader.end()?;
    match (alg, signer) {
        (Some(()), Some(signer)) => Ok(signer),
        _ => Err(Rejection::shape("the countersignature lacks a label")),
    }
}
