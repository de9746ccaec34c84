//! The byte strings that are signed, bound or hashed but never carried.
//!
//! Each is built around the *received* encoding of what it covers, never around a decoded and re-encoded form.

use super::cbor::Writer;
use super::profile::{KTY, KTY_SYMMETRIC, SYMMETRIC_K, algorithm};
use crate::backend::Backend;
use crate::keys::Dek;

/// The countersigned bytes (RFC 9338 §3.3), in parts, so that the ciphertext is not copied.
///
/// ```text
/// 85                              array of 5
/// 70 "CounterSignature"           context
/// bstr body_protected             the message's protected header, as received
/// bstr sign_protected             the countersignature's, as received
/// 40                              no external data
/// bstr ciphertext
/// ```
///
/// Recipients are not covered: that is what lets a message be re-wrapped under its device's signature.
pub(super) struct Countersigned<'a> {
    head: Vec<u8>,
    ciphertext: &'a [u8],
}

impl<'a> Countersigned<'a> {
    pub(super) fn new(protected: &[u8], sign_protected: &[u8], ciphertext: &'a [u8]) -> Self {
        let mut head = Writer::default();
        head.array(5)
            .text("CounterSignature")
            .bytes(protected)
            .bytes(sign_protected)
            .bytes(b"");
        head.bytes_head(ciphertext.len());
        Self {
            head: head.into_bytes(),
            ciphertext,
        }
    }

    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.head, self.ciphertext]
    }

    /// SHA-256 of the whole: names the message's content for ever, whatever its signature bytes and recipients.
    pub(super) fn hash(&self, backend: &dyn Backend) -> [u8; 32] {
        backend.sha256(&self.parts())
    }
}

/// What the content's AEAD binds (RFC 9052 §5.3): `["Encrypt", protected, h'']`.
pub(super) fn content_aad(protected: &[u8]) -> Vec<u8> {
    let mut aad = Writer::default();
    aad.array(3).text("Encrypt").bytes(protected).bytes(b"");
    aad.into_bytes()
}

/// `info` of the HKDF that yields the wrap key (RFC 9053 §5.2).
///
/// ```text
/// [ -5,                             the algorithm that the derived key is for: A256KW, not the content's
///   [null, nonce or null, null],    party U: the sender
///   [null, null, null],             party V: the recipient
///   [256, recipient_protected] ]    bits of key, and the recipient's protected header
/// ```
pub(super) fn kdf_info(nonce: Option<u64>, recipient_protected: &[u8]) -> Vec<u8> {
    let mut info = Writer::default();
    info.array(4).int(algorithm::A256KW).array(3).null();
    match nonce {
        Some(nonce) => info.uint(nonce),
        None => info.null(),
    };
    info.null()
        .array(3)
        .null()
        .null()
        .null()
        .array(2)
        .uint(256)
        .bytes(recipient_protected);
    info.into_bytes()
}

/// The content key's COSE Key Thumbprint (RFC 9679 §3): SHA-256 of `{1: 4, -1: k}`.
///
/// Signed by the device, it commits the message to one key: AES-GCM alone would let a sender make one ciphertext
/// that opens under two.
pub(super) fn key_thumbprint(dek: &Dek, backend: &dyn Backend) -> [u8; 32] {
    let mut head = Writer::default();
    head.map(2)
        .int(KTY)
        .int(KTY_SYMMETRIC)
        .int(SYMMETRIC_K)
        .bytes_head(dek.bytes().len());
    backend.sha256(&[&head.into_bytes(), dek.bytes()])
}
