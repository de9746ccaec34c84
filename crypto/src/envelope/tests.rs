//! The published vectors' intermediate values, which only show from inside, and agreement with another COSE library.

mod hostile;

use coset::iana::{CborTag, EnumI64 as _};
use coset::{CoseEncrypt, SignatureContext, TaggedCborSerializable as _};
use serde_json::Value;

use super::body::{Body, write_signer};
use super::header::Header;
use super::sender::Sender;
use super::structures::{content_aad, kdf_info, key_thumbprint};
use super::{AtRest, Received};
use crate::backend::Backend;
use crate::keys::Dek;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/envelope.json")).unwrap()
}

fn hex_of(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(value[field].as_str().unwrap()).unwrap()
}

fn key_of(value: &Value, field: &str) -> [u8; 32] {
    hex_of(value, field).try_into().unwrap()
}

fn backends() -> Vec<&'static dyn Backend> {
    vec![
        crate::rust_crypto(),
        #[cfg(feature = "aws-lc")]
        crate::aws_lc(),
    ]
}

#[test]
fn every_intermediate_value_is_the_published_one() {
    let vectors = vectors();
    for vector in vectors["valid"].as_array().unwrap() {
        let wire = hex_of(vector, "wire");
        let (body, _) = Body::read(&wire).unwrap();
        let protected = hex_of(vector, "protected");
        assert_eq!(Header::decode(&protected).unwrap(), *body.header());
        assert_eq!(
            body.header().encode().unwrap(),
            protected,
            "our encoding is theirs"
        );
        assert_eq!(content_aad(&protected), hex_of(vector, "content_aad"));
        assert_eq!(
            body.countersigned().parts().concat(),
            hex_of(vector, "to_be_signed")
        );
        assert_eq!(
            body.header().key_thumbprint.as_slice(),
            hex_of(vector, "content_key_thumbprint")
        );
        let is_session = vector["mode"] == "ss";
        let nonce = is_session.then(|| vector["sequence"].as_u64().unwrap());
        let recipient_protected = if is_session { "a1013821" } else { "a101381e" };
        let info = kdf_info(nonce, &hex::decode(recipient_protected).unwrap());
        assert_eq!(info, hex_of(vector, "kdf_info"));

        for backend in backends() {
            let dek = Dek::from_bytes(&key_of(vector, "content_key"));
            assert_eq!(key_thumbprint(&dek, backend), body.header().key_thumbprint);
            let session = backend
                .p256_from_scalar(&key_of(&vectors, "session_private_scalar"))
                .unwrap();
            let sender = match nonce {
                Some(nonce) => Sender::Session(*session.public(), nonce),
                None => Sender::Ephemeral(*session.public()),
            };
            if is_session {
                let server = backend
                    .p256_from_scalar(&key_of(&vectors, "server_private_scalar"))
                    .unwrap();
                let secret = backend.agree(&session, server.public()).unwrap();
                assert_eq!(*secret, key_of(vector, "shared_secret"));
            }
            let wrap_key = sender
                .wrap_key(&key_of(vector, "shared_secret"), backend)
                .unwrap();
            assert_eq!(*wrap_key, key_of(vector, "wrap_key"));

            // Sealing is not deterministic, but its AEAD is: the same key and IV yield the same ciphertext.
            let iv = hex_of(vector, "iv").try_into().unwrap();
            let sealed = backend
                .seal(
                    dek.bytes(),
                    &iv,
                    &content_aad(&protected),
                    &hex_of(vector, "payload"),
                )
                .unwrap();
            let tail = &body.countersigned().parts().concat();
            assert!(tail.ends_with(&sealed));
        }
    }
}

#[test]
fn another_library_reads_the_same_message() {
    for vector in vectors()["valid"].as_array().unwrap() {
        for field in ["wire", "at_rest"] {
            let bytes = hex_of(vector, field);
            let theirs = CoseEncrypt::from_tagged_slice(&bytes).unwrap();
            assert_eq!(theirs.recipients.len(), 1);
            assert_eq!(theirs.unprotected.iv, hex_of(vector, "iv"));
            assert_eq!(CborTag::CoseEncrypt.to_i64(), 96);

            let signer = *Body::read(&bytes).unwrap().0.signer();
            let signed = coset::sig_structure_data(
                SignatureContext::CounterSignature,
                theirs.protected,
                Some(coset::ProtectedHeader {
                    original_data: Some(write_signer(&signer)),
                    ..Default::default()
                }),
                b"",
                &theirs.ciphertext.unwrap(),
            );
            assert_eq!(signed, hex_of(vector, "to_be_signed"));
        }
    }
}

#[test]
fn a_message_has_one_home() {
    let vectors = vectors();
    let vector = &vectors["valid"][0];
    let wire = Received::decode(&hex_of(vector, "at_rest")).unwrap_err();
    assert_eq!(
        wire.rule,
        super::Rule::Algorithm,
        "a stored message is not taken from the wire"
    );
    let stored = AtRest::decode(&hex_of(vector, "wire")).unwrap_err();
    assert_eq!(
        stored.rule,
        super::Rule::Algorithm,
        "a wire message is not taken for a stored one"
    );
}
